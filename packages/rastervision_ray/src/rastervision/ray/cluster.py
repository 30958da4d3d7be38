"""The cluster: connect to it or start one, and tell what a task may ask for."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import RunError
from rastervision.pipeline.rv_config import rv_config_
from rastervision.pipeline.verbosity import Verbosity
from rastervision.ray.settings import RaySettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rastervision.pipeline.run_plan import Step

__all__ = ["alive_nodes", "connected", "could_run", "resources_for"]

log = logging.getLogger(__name__)

# results are a few lines of text: nothing that is worth more memory passes through the object store
_OBJECT_STORE_BYTES = 100 << 20
_CONNECT_S = 10.0
_ENV_OF_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no report over the network from a cluster that nobody set up
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a warning of Ray asks for this
}


@contextlib.contextmanager
def connected(settings: RaySettings) -> Iterator[None]:
    """Be connected to the cluster of the settings, or to one on this machine that is started for it.

    What was not started here is left as it is, also a connection that this process has already.

    Raises:
        RunError: The cluster cannot be reached, or none can be started.
    """
    for name, value in _ENV_OF_RAY.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {
        "address": settings.address,
        "runtime_env": settings.runtime_env,
        "log_to_driver": rv_config_.verbosity > Verbosity.QUIET,
        "logging_level": logging.INFO if rv_config_.verbosity > Verbosity.NORMAL else logging.WARNING,
    }
    if settings.address is None:
        options |= {"address": "local", "include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    try:
        if settings.address is not None:
            _check_that_it_answers(settings.address)
        ray.init(**options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as e:
        what = f"Cannot use the Ray cluster at {settings.address}" if settings.address else "Cannot start Ray"
        hint = (
            " Check the setting address of the section ray (RAY_ADDRESS), that the cluster runs, and that it has the "
            "same versions of Ray and Python as this machine; without an address, one is started here."
        )
        raise RunError(f"{what}: {str(e).strip().rstrip('.')}.{hint if settings.address else ''}") from e
    if settings.address is None:
        log.info("started Ray on this machine, with %g CPUs", ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        ray.shutdown()


def _check_that_it_answers(address: str) -> None:
    """Raise `OSError` if nothing listens at an address, which Ray would try to reach for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S):
            pass


def alive_nodes() -> list[dict[str, Any]]:
    """Return what Ray tells of the nodes that are there."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def resources_for(step: Step, nodes: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return what a step asks for: ``num_cpus``, ``num_gpus`` and perhaps ``memory``.

    Unless the settings say so, it is one GPU, with its share of the CPUs of its node, for a step that makes use of a
    GPU. Where there is none, such a step that is not one of several parts asks for all CPUs of a node, or of as many
    nodes as it has processes. All others ask for one CPU.
    """
    settings = RaySettings.load(step.command)
    with_gpus = [r for r in (node["Resources"] for node in nodes) if r.get("GPU")]
    gpus = settings.num_gpus if settings.num_gpus is not None else float(bool(with_gpus))
    gpus = gpus if step.gpu else 0
    cpus = settings.num_cpus
    if cpus is None:
        cpus = 1.0
        if gpus:
            cpus = max(1.0, min((r.get("CPU", 0) // r["GPU"] for r in with_gpus), default=1.0) * max(gpus, 1.0))
        elif step.gpu and step.num_splits == 1:
            cpus = _cpus_of_each(settings.workers, nodes)
    out = {"num_cpus": cpus, "num_gpus": gpus}
    return out if settings.memory is None else {**out, "memory": settings.memory}


def _cpus_of_each(workers: int, nodes: Sequence[dict[str, Any]]) -> float:
    """Return how many CPUs each of some processes can have, if they are on the largest nodes."""
    sizes = sorted((cpus for node in nodes if (cpus := node["Resources"].get("CPU", 0.0))), reverse=True)[:workers]
    return max(1.0, sizes[-1] // -(-workers // len(sizes))) if sizes else 1.0


def could_run(request: dict[str, float], nodes: Sequence[dict[str, Any]]) -> bool:
    """Return whether one of the nodes has what a task asks for, if nothing else ran there."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    return any(all(node["Resources"].get(names[k], 0) >= v for k, v in request.items()) for node in nodes)
