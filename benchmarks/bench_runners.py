"""What a runner costs: many parts of commands that do nothing, of a pipeline over many scenes.

    python benchmarks/bench_runners.py [--scenes 2000] [--runners inprocess local batch]

The pipeline has three commands, two of which are done in as many parts as there are scenes. What is measured is the
planning, and the run without what it needs to start (the same run with one scene, a second time). ``batch`` submits
to a double of AWS Batch that takes jobs and does nothing; it counts requests. ``ray`` works too where it is installed.
What a part costs grows with the number of scenes: its record says in what state all files were that the command reads.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from rastervision.pipeline.planner import PlanOptions, make_plan
from rastervision.pipeline.registry import registry_
from rastervision.pipeline.run_pipelines import carry_out
from rastervision.pipeline.run_plan import RunOptions
from rastervision.testing.pipelines import TextPipelineConfig


class StubbedBatch:
    """Takes jobs, and says that all queues are there."""

    meta = SimpleNamespace(region_name="eu-central-1")

    def __init__(self) -> None:
        self.requests = 0

    def submit_job(self, **request: Any) -> dict[str, str]:
        self.requests += 1
        return {"jobId": f"job-{self.requests}"}

    def describe_job_queues(self, jobQueues: list[str]) -> dict[str, Any]:
        return {"jobQueues": [{"state": "ENABLED"}]}

    def describe_job_definitions(self, **request: Any) -> dict[str, Any]:
        return {"jobDefinitions": [request]}


def cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def run_once(runner_name: str, num_scenes: int, folder: Path) -> tuple[float, float, float, int]:
    """Return seconds of planning and of the run, CPU seconds of the run, and the number of commands."""
    images = []
    for i in range(num_scenes):
        (folder / f"{i}.txt").write_text("image")
        images.append(str(folder / f"{i}.txt"))
    config = TextPipelineConfig(root_uri=str(folder / "root"), images=images)
    start = time.perf_counter()
    commands = ["chip", "train", "predict"]
    plan = make_plan([("", config)], str(folder), PlanOptions(commands, num_scenes, rerun=True, check_sources=False))
    planned, cpu = time.perf_counter(), cpu_s()
    carry_out(plan, registry_.get_runner(runner_name)(), RunOptions(), num_scenes)
    return planned - start, time.perf_counter() - planned, cpu_s() - cpu, len(plan.run_plan().steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--runners", nargs="+", default=["inprocess", "local", "batch"])
    args = parser.parse_args()
    for kind in ("cpu", "gpu"):
        os.environ |= {f"BATCH_{kind}_JOB_QUEUE".upper(): "queue", f"BATCH_{kind}_JOB_DEF".upper(): "def"}
    print("runner | commands | planning, s | run, s | start, s | per command, ms | CPU per command, ms")
    for name in args.runners:
        batch = StubbedBatch()
        with mock.patch("rastervision.aws_batch.submission.aws_client", return_value=batch):
            for _ in range(2):
                with tempfile.TemporaryDirectory() as folder:
                    _, first, first_cpu, few = run_once(name, 1, Path(folder))
            before = batch.requests
            with tempfile.TemporaryDirectory() as folder:
                planning, seconds, cpu, count = run_once(name, args.scenes, Path(folder))
        each, each_cpu = (1000 * (a - b) / (count - few) for a, b in ((seconds, first), (cpu, first_cpu)))
        note = f" | {batch.requests - before} requests" if batch.requests else ""
        cells = (f"{planning:.2f}", f"{seconds:.1f}", f"{first:.2f}", f"{each:.2f}", f"{each_cpu:.2f}")
        print(f"{name} | {count} | {' | '.join(cells)}{note}", flush=True)


if __name__ == "__main__":
    main()
