"""Run each command, and each part of a split one, as a task of a Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import override

from rastervision.pipeline.errors import RunError
from rastervision.pipeline.file_system.utils import is_local
from rastervision.pipeline.registry import registry_
from rastervision.pipeline.run_plan import RunOptions, RunPlan
from rastervision.pipeline.runner.plan_run import Attempt, PlanRun, cli_args, root_uri_of
from rastervision.pipeline.runner.processes import describe_exit, sigterm_as_exit
from rastervision.pipeline.runner.runner import Runner, linear_plan
from rastervision.pipeline.runner.step_log import log_uri
from rastervision.pipeline.runner.warm_python import configs_to_keep, preloads_for
from rastervision.pipeline.rv_config import rv_config_
from rastervision.pipeline.settings import find_ini_file
from rastervision.ray.cluster import alive_nodes, connected, could_run, resources_for
from rastervision.ray.settings import RaySettings
from rastervision.ray.together import reserve, run_together
from rastervision.ray.worker import Job, Result, run_job, run_on_node

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from rastervision.pipeline.pipeline import Pipeline
    from rastervision.pipeline.run_plan import Step

__all__ = ["RAY", "RayRunner"]

log = logging.getLogger(__name__)

RAY = "ray"
_MANY = 10_000  # tasks that are handed to Ray at once; what runs is limited by the resources of the cluster
_FAILED = 1
_CHECK_S = 10.0


class RayRunner(Runner):
    """Runs commands as tasks of a Ray cluster: that of the setting ``address``, or one that is started here.

    The nodes need nothing of this machine but the files at the ``root_uri`` of the pipelines, and the same packages.
    A command whose node is lost is started again elsewhere. Once one has failed for good, no other is started, and
    those that run are waited for. Tasks end with this process.
    """

    blocking: ClassVar[bool] = True

    @override
    def run(
        self,
        cfg_json_uri: str,
        pipeline: Pipeline,
        commands: Sequence[str],
        num_splits: int = 1,
        pipeline_run_name: str = "raster-vision",
    ) -> None:
        self.run_dag(linear_plan(cfg_json_uri, pipeline, commands, num_splits), RunOptions(run_name=pipeline_run_name))

    def run_dag(self, plan: RunPlan, options: RunOptions) -> None:
        """Carry out a plan.

        Raises:
            RunError: A command failed, and failed again in each of the retries, or there is no cluster.
        """
        settings = RaySettings.load()
        with sigterm_as_exit(), connected(settings):
            _Run(plan, options, settings).wait()

    @override
    def run_command(self, cmd: list[str]) -> None:
        settings = RaySettings.load()
        with sigterm_as_exit(), connected(settings):
            import ray

            problem = ray.get(ray.remote(run_on_node).options(name=cmd[0], max_retries=0).remote(cmd))
        if problem is not None:
            message, exit_code = problem
            raise RunError(message, exit_code=exit_code)


@dataclass(eq=False)
class _Task(Attempt):
    """One task for a step."""

    request: dict[str, float]
    ref: Any = field(default=None, init=False)
    group: Any = field(default=None, init=False)  # where its processes are, if it has several
    result: Result | None = field(default=None, init=False)
    problem: str = field(default="", init=False)  # why there is no result
    is_lost: bool = field(default=False, init=False)

    @override
    def tail(self) -> Sequence[str]:
        return [] if self.result is None else self.result["tail"]


class _Run(PlanRun):
    """A plan that is being carried out."""

    def __init__(self, plan: RunPlan, options: RunOptions, settings: RaySettings) -> None:
        import ray

        super().__init__(plan, options, jobs=_MANY, gpu_jobs=_MANY)
        self._settings = settings
        self._nodes = alive_nodes()
        self._submit, self._submit_together = ray.remote(run_job), ray.remote(run_together)
        configs = {uri: pipeline.config for uri, pipeline in plan.pipelines.items()}
        self._preloads, self._configs = preloads_for(configs.values()), configs_to_keep(configs)
        self._id = uuid.uuid4().hex
        self._env = _handed_on(settings.env)
        self._settings_text = _settings_text()
        self._times_lost: Counter[int] = Counter()
        self._requests: dict[tuple[str, bool, bool], dict[str, float]] = {}
        self._checked, self._told = time.monotonic(), False
        _warn_of_local_roots(plan, self._nodes)

    @override
    def start_attempt(self, step: Step, number: int) -> Attempt:
        kind = (step.command, step.gpu, step.num_splits > 1)
        if kind not in self._requests:
            self._requests[kind] = resources_for(step, self._nodes)
        task = _Task(step, number, log_uri(root_uri_of(self.plan, step), step), self._requests[kind])
        name = self.names[step.id]
        job: Job = {
            "args": cli_args(step.cfg_json_uri, step, self.digest_of(step)),
            "label": name,
            "log_uri": task.log_uri,
            "note": f"attempt {number} of {self.retries + 1}",
            "run_id": self._id,
            "preloads": self._preloads,
            "configs": self._configs,
            "env": self._env,
            "settings": self._settings_text,
            "quiet": self.shows_table,
        }
        # retries are counted here: Ray would start again without end what the nodes have too little memory for
        options = {"name": name, "max_retries": 0, "scheduling_strategy": "SPREAD"}
        if (workers := RaySettings.load(step.command).workers) > 1:
            task.group = reserve(workers, task.request)
            together = self._submit_together.options(**options, num_cpus=0)
            task.ref = together.remote(job, task.group, task.request)
        else:
            task.ref = self._submit.options(**options, **task.request).remote(job)
        task.ref.future().add_done_callback(lambda future: self._take(task, future))
        return task

    def _take(self, task: _Task, future: Future[Result]) -> None:
        """Note how a task ended; called by a thread of Ray."""
        from ray import exceptions

        returncode = _FAILED
        try:
            task.result = future.result()
            if (error := task.result.get("error")) is not None:
                raise error
            returncode = task.result["returncode"]
        except exceptions.OutOfMemoryError:
            task.problem = (
                "its end: its node ran out of memory. Ask for more with the setting "
                f"{task.step.command}_memory of the section ray, or run fewer commands side by side"
            )
        except (exceptions.RayTaskError, exceptions.RuntimeEnvSetupError) as e:
            task.problem = f"an error of its worker: {_last_line(e)}"
        except Exception as e:
            # whatever Ray calls it: the worker, the node, or what they belong to is gone
            task.problem, task.is_lost = f"the loss of its worker or node ({_last_line(e)})", True
        self.ended.put((task, returncode))

    @override
    def take_failure(self, attempt: Attempt, returncode: int) -> bool:
        assert isinstance(attempt, _Task)
        lost = self._times_lost[attempt.step.id]
        if not attempt.is_lost or lost >= self._settings.lost_retries:
            return False
        self._times_lost[attempt.step.id] += 1
        log.warning("%s ended with %s; starting it again", self.names[attempt.step.id], attempt.problem)
        self._nodes = alive_nodes()
        self._requests.clear()
        self.restart(attempt)
        return True

    @override
    def describe_end(self, attempt: Attempt, returncode: int) -> str:
        assert isinstance(attempt, _Task)
        return attempt.problem or describe_exit(returncode)

    @override
    def free(self, attempt: Attempt) -> None:
        assert isinstance(attempt, _Task)
        if attempt.group is not None:
            from ray.util.placement_group import remove_placement_group

            with contextlib.suppress(Exception):
                remove_placement_group(attempt.group)

    @override
    def tick(self) -> None:
        """Tell, once, of a task that no node can run: on a cluster that grows, one may come."""
        if self._told or time.monotonic() - self._checked < _CHECK_S:
            return
        self._checked, self._nodes = time.monotonic(), alive_nodes()
        for task in self.running.values():
            if isinstance(task, _Task) and not could_run(task.request, self._nodes):
                self._told = True
                wanted = ", ".join(f"{k}={v:g}" for k, v in task.request.items() if v)
                log.warning("%s waits for a node with %s, and there is none", self.names[task.step.id], wanted)
                return

    @override
    def stop(self) -> None:
        import ray

        for task in self.running.values():
            if isinstance(task, _Task):
                with contextlib.suppress(Exception):
                    ray.cancel(task.ref, force=True)
                self.free(task)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")


def _handed_on(names: Sequence[str]) -> dict[str, str]:
    """Return the environment variables that commands get: settings of Raster Vision, and those that are named.

    The settings are saved with a pipeline too, but that may be where it cannot be read without them.
    """
    sections = registry_.get_rv_config_schema()
    known = {f"{section}_{key}".upper() for section, keys in sections.items() if section != RAY for key in keys}
    wanted = known.union(names)
    return {k: v for k, v in os.environ.items() if k.startswith("RASTERVISION_") or k in wanted}


def _settings_text() -> str | None:
    """Return the settings file of this process, which the nodes do not have."""
    path = find_ini_file(rv_config_.profile, rv_config_.rv_home or os.path.expanduser("~/.rastervision"))
    if path is None:
        return None
    with open(path, encoding="utf-8") as f:
        return f.read()


def _warn_of_local_roots(plan: RunPlan, nodes: Sequence[dict[str, Any]]) -> None:
    if len({node["NodeManagerAddress"] for node in nodes}) < 2:
        return
    roots = dict.fromkeys(root_uri_of(plan, step) for step in plan.steps)
    if local := [uri for uri in roots if is_local(uri)]:
        log.warning("the cluster has several machines: %s must be a folder that all of them share", ", ".join(local))
