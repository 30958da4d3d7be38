"""One command in several processes on any nodes, which find each other as those of ``torchrun`` do."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

from rastervision.ray.worker import Job, Result, run_job

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["reserve", "run_together"]


def reserve(size: int, request: Mapping[str, float]) -> Any:
    """Return a placement group with room for some processes, on different nodes if possible, once there is room.

    Args:
        size: Number of processes.
        request: What each of them asks for, as `rastervision.ray.cluster.resources_for` returns it.
    """
    from ray.util.placement_group import placement_group

    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    bundle = {names[name]: value for name, value in request.items() if value}
    return placement_group([bundle] * size, strategy="SPREAD")


def run_together(job: Job, group: Any, request: Mapping[str, float]) -> Result:
    """Run the command line of a job once in each bundle of a placement group, to their end.

    Once one process has failed, the others are ended, because they would wait for it. This is a task itself, which asks
    for no resources; the loss of one of its tasks is told of in the result.

    Returns:
        Result of the process that failed first; that of rank 0 if all of them succeeded.
    """
    import ray

    ray.get(group.ready())
    size = len(group.bundle_specs)
    host, port = ray.get(_task(_free_address, group, 0, {"num_cpus": 0}).remote())
    together = {"WORLD_SIZE": str(size), "MASTER_ADDR": host, "MASTER_PORT": str(port)}
    refs = []
    for rank in range(size):
        # Ray shows each process the GPUs that it has, and no others
        env = {**job["env"], **together, "RANK": str(rank), "LOCAL_RANK": "0"}
        one = Job(**{**job, "env": env, "log_uri": _log_uri(job["log_uri"], rank, size)})
        refs.append(_task(run_job, group, rank, request, name=f"{job['label']} rank {rank}").remote(one))
    waiting = list(refs)
    try:
        while waiting:
            (ended,), waiting = ray.wait(waiting)
            result: Result = ray.get(ended)
            if result["returncode"]:
                return result
        first: Result = ray.get(refs[0])
        return first
    except Exception as e:
        return {"returncode": 1, "tail": [], "node": "", "error": e}
    finally:
        for ref in waiting:
            with contextlib.suppress(Exception):
                ray.cancel(ref, force=True)


def _task(function: Any, group: Any, bundle: int, request: Mapping[str, float], **options: Any) -> Any:
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=bundle)
    return ray.remote(function).options(max_retries=0, scheduling_strategy=where, **request, **options)


def _free_address() -> tuple[str, int]:
    """Return address and port at which the processes of other nodes can reach one of this node."""
    import ray

    with socket.socket() as s:
        s.bind(("", 0))
        return str(ray.util.get_node_ip_address()), int(s.getsockname()[1])  # type: ignore[no-untyped-call]


def _log_uri(log_uri: str, rank: int, size: int) -> str:
    stem, ending = os.path.splitext(log_uri)
    return log_uri if rank == 0 else f"{stem}-rank-{rank}-of-{size}{ending}"
