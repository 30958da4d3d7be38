"""Training in several processes, one for each GPU, whose gradients are averaged (DDP).

The processes are those of ``torchrun`` (``WORLD_SIZE``, ``RANK`` and ``LOCAL_RANK`` are set), or a learner starts them
itself where there are several GPUs. Only rank 0 writes files. Without processes, the functions here do nothing.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed as dist
from torch import nn
from torch.utils.data import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from rastervision.pytorch_learner.learner_ranks import LearnerRanks

__all__ = [
    "DDP_BACKEND",
    "DDPContextManager",
    "ShareSampler",
    "broadcast",
    "gather",
    "is_joined",
    "ranks_of_environment",
    "spawn_training",
    "sync_buffers",
    "taking_turns",
]

log = logging.getLogger(__name__)

DDP_BACKEND = "nccl"
_ENV = ("WORLD_SIZE", "RANK", "LOCAL_RANK")


def setting(name: str, default: Any, **kwargs: Any) -> Any:
    """Return a setting of the section ``rastervision``, such as ``USE_DDP``."""
    from rastervision.pipeline.rv_config import rv_config_

    return rv_config_.get_namespace_option("rastervision", name, default, **kwargs)


def ranks_of_environment() -> tuple[int, int, int] | None:
    """Return world size, rank and local rank if this process is one of several; None if not."""
    if not all(name in os.environ for name in _ENV):
        return None
    world_size, rank, local_rank = (int(os.environ[name]) for name in _ENV)
    return world_size, rank, local_rank


def is_joined() -> bool:
    """Return whether this process has joined others."""
    return dist.is_available() and dist.is_initialized()


class DDPContextManager(AbstractContextManager[Any]):
    """Joins this process to the others of a training, and leaves them at the end; does nothing if it has joined.

    Args:
        learner: The learner that trains in this process.
        rank: Number of this process; that of the learner if not given.
        world_size: Number of processes; that of the learner if not given.
    """

    def __init__(self, learner: LearnerRanks, rank: int | None = None, world_size: int | None = None) -> None:
        self.learner = learner
        self.rank = learner.ddp_rank if rank is None else rank
        self.world_size = learner.ddp_world_size if world_size is None else world_size
        self.noop = is_joined() or (rank is None and not learner.is_ddp_process)

    def __enter__(self) -> DDPContextManager:
        if not self.noop:
            local_rank = self.learner.ddp_local_rank if self.learner.is_ddp_process else self.rank
            cuda = torch.cuda.is_available()
            if cuda:
                torch.cuda.set_device(local_rank)
            os.environ.setdefault("MASTER_ADDR", "localhost")
            os.environ.setdefault("MASTER_PORT", "12355")
            backend = setting("DDP_BACKEND", DDP_BACKEND if cuda else "gloo")
            dist.init_process_group(backend, rank=self.rank, world_size=self.world_size)
            self.learner.on_joined(self.rank, self.world_size, local_rank)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self.noop:
            leave()

    def stay(self) -> None:
        """Join until this process ends."""
        self.__enter__()
        if not self.noop:
            atexit.register(leave)
            if self.rank > 0:
                # rank 0 tells what all of them do
                logging.getLogger("rastervision").setLevel(logging.WARNING)


def leave() -> None:
    """Leave the other processes."""
    if is_joined():
        dist.destroy_process_group()


def broadcast(value: Any) -> Any:
    """Return what rank 0 has for ``value``."""
    if not is_joined():
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def gather(value: Any) -> list[Any]:
    """Return ``value`` of each process, by rank."""
    if not is_joined():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


@contextmanager
def taking_turns(first: bool) -> Iterator[None]:
    """Let the processes that are ``first`` do something before the others, for which it is easier then."""
    joined = is_joined()
    if joined and not first:
        dist.barrier()
    yield
    if joined and first:
        dist.barrier()


@torch.no_grad()
def sync_buffers(model: nn.Module) -> None:
    """Give a model the buffers of rank 0, such as the means of batch norm."""
    if is_joined():
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


class ShareSampler(Sampler[int]):
    """Every n-th item for each of n processes; each item is taken once, so that metrics are right.

    Args:
        size: Number of items.
        rank: Number of this process.
        world_size: n.
    """

    def __init__(self, size: int, rank: int, world_size: int) -> None:
        self._items = range(rank, size, world_size)

    def __iter__(self) -> Iterator[int]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def spawn_training(
    make_learner: Callable[..., Any], kwargs: dict[str, Any], world_size: int, start_method: str, epochs: int | None
) -> None:
    """Train in new processes, and wait for them.

    Args:
        make_learner: The learner's class.
        kwargs: Its arguments.
        world_size: Number of processes.
        start_method: "spawn", "fork" or "forkserver".
        epochs: Argument of ``train``.
    """
    from torch.multiprocessing.spawn import start_processes

    log.info("training in %d processes", world_size)
    args = (make_learner, kwargs, world_size, _free_port(), epochs, logging.getLogger("rastervision").level)
    start_processes(_train, args=args, nprocs=world_size, start_method=start_method)  # type: ignore[no-untyped-call]


def _train(
    rank: int,
    make_learner: Callable[..., Any],
    kwargs: dict[str, Any],
    world_size: int,
    port: int,
    epochs: int | None,
    log_level: int,
) -> None:
    os.environ |= {name: str(value) for name, value in zip(_ENV, (world_size, rank, rank), strict=True)}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    if rank == 0 and log_level:
        logging.basicConfig(format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
        logging.getLogger("rastervision").setLevel(log_level)
    try:
        make_learner(**kwargs).train(epochs)
    finally:
        leave()


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return int(s.getsockname()[1])
