"""How long it takes until Raster Vision is there: CPU seconds and modules of fresh interpreters.

python benchmarks/bench_startup.py [--python OTHER_ENVIRONMENT/bin/python]...
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys

CASES = {
    "import pydantic, typer": "import pydantic, typer",
    "import rastervision.pipeline": "import rastervision.pipeline",
    "import RasterioSourceConfig": "from rastervision.core.data import RasterioSourceConfig",
    "import a backend config": "from rastervision.pytorch_backend import PyTorchSemanticSegmentationConfig",
    "import the learner": "from rastervision.pytorch_learner import SemanticSegmentationLearner",
    "rastervision --help": None,
}
HELP = "import sys; sys.argv = ['rastervision', '--help']; from rastervision.pipeline.cli import _main; _main()"
COUNT = "\nimport sys; print('\\nMODULES', len(sys.modules))"


def child_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(python: str, code: str | None, repeat: int) -> tuple[float, int]:
    """Return median CPU seconds and the number of modules; the first run, which compiles, does not count."""
    script = code + COUNT if code else f"try:\n    {HELP}\nexcept SystemExit:\n    pass{COUNT}"
    seconds, modules = [], -1
    for _ in range(repeat + 1):
        before = child_cpu_s()
        done = subprocess.run(
            [python, "-c", script],
            capture_output=True,
            text=True,
            env={**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1"},
        )
        if done.returncode:
            return float("nan"), -1
        seconds.append(child_cpu_s() - before)
        modules = int(done.stdout.rsplit("MODULES", 1)[1])
    return statistics.median(seconds[1:]), modules


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", default=[], help="also measure this interpreter")
    parser.add_argument("--repeat", type=int, default=5)
    args = parser.parse_args()
    for python in [sys.executable, *args.python]:
        print(python if args.python else "this environment")
        for name, code in CASES.items():
            seconds, modules = measure(python, code, args.repeat)
            print(json.dumps({"case": name, "cpu_s": round(seconds, 3), "modules": modules}))


if __name__ == "__main__":
    main()
