"""The place of a learner among the processes of a training; see `rastervision.pytorch_learner.distributed`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner.distributed import (
    DDPContextManager,
    gather,
    is_joined,
    ranks_of_environment,
    setting,
)
from rastervision.pytorch_learner.learner_steps import LearnerSteps

__all__ = ["LearnerRanks"]

log = logging.getLogger(__name__)


class LearnerRanks(LearnerSteps):
    """Base of `Learner`: what it needs to train in several processes.

    ``distributed`` says whether it does. ``is_ddp_process`` says whether this is one of those processes:
    if not, `train` starts them.
    """

    training: bool
    tmp_dir: str
    output_dir: str | None
    loss: Any
    _parallel_model: DistributedDataParallel | None = None
    _spawn_args: dict[str, Any] | None = None

    def setup_ddp_params(self) -> None:
        """Find out whether this is one of several processes, or several should be started."""
        wanted = bool(setting("USE_DDP", True, as_bool=True))
        ranks = ranks_of_environment() if wanted else None
        self.is_ddp_process = ranks is not None
        self.ddp_start_method = str(setting("DDP_START_METHOD", "spawn"))
        gpus = max(1, torch.cuda.device_count()) if wanted and self.training and ranks is None else 1
        self._set_ranks(*(ranks or (gpus, 0, 0)))
        # a process that has used CUDA cannot be forked
        self.avoid_activating_cuda_runtime = gpus > 1 and self.ddp_start_method == "fork"

    def _set_ranks(self, world_size: int, rank: int, local_rank: int) -> None:
        self.ddp_world_size, self.ddp_rank, self.ddp_local_rank = world_size, rank, local_rank
        self.is_ddp_master, self.is_ddp_local_master = rank == 0, local_rank == 0
        self.distributed = self.is_ddp_process or world_size > 1

    def _plan_processes(self, datasets: dict[str, Any], objects: Sequence[Any], **kwargs: Any) -> None:
        """Take down the arguments of the learners that `train` starts; train in this process if that cannot be.

        Args:
            datasets: Datasets that were given, or None, by argument.
            objects: Model, loss, optimiser and schedules that were given, or None.
            **kwargs: More arguments.
        """
        given = {name: ds for name, ds in datasets.items() if ds is not None}
        if any(o is not None for o in objects) or (given and self.ddp_start_method != "fork"):
            log.warning(
                "only one of %d GPUs is used: datasets, model, loss or optimiser are objects, which other processes "
                "cannot be given. Let the config say what they are, or start the program with torchrun.",
                self.ddp_world_size,
            )
            self._set_ranks(1, 0, 0)
        else:
            common = {"cfg": self.cfg, "output_dir": self.output_dir, "tmp_dir": self.tmp_dir}
            self._spawn_args = {**common, **kwargs, **given}

    def on_joined(self, rank: int, world_size: int, local_rank: int) -> None:
        """Take note that this process is now one of several."""
        self.is_ddp_process = True
        self._set_ranks(world_size, rank, local_rank)
        if self.device.type == "cuda":
            self.device = torch.device("cuda", local_rank)

    def ddp(self, rank: int | None = None, world_size: int | None = None) -> DDPContextManager:
        """Return a context in which this process is one of several that train together.

        Not needed with ``torchrun``, nor where `train` starts the processes.

        Args:
            rank: Number of this process; as the environment says if not given.
            world_size: Number of processes; as the environment says if not given.
        """
        return DDPContextManager(self, rank, world_size)

    def reduce_distributed_metrics(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """Return the mean of metrics over all processes; without processes, ``metrics``."""
        if not is_joined():
            return metrics
        rows = gather(metrics)
        return {
            k: sum(float(r[k]) for r in rows) / len(rows) if isinstance(v, (int, float)) else v
            for k, v in metrics.items()
        }

    def batch_sz_of_process(self, distributed: bool) -> int:
        """Return how many chips of ``solver.batch_sz`` this process takes.

        Raises:
            ConfigError: There are more processes than chips in a batch.
        """
        batch_sz = self.cfg.solver.batch_sz if self.cfg.solver is not None else 1
        if not distributed:
            return batch_sz
        if batch_sz < self.ddp_world_size:
            raise ConfigError(
                f"solver.batch_sz={batch_sz} is smaller than the {self.ddp_world_size} processes that share a batch. "
                "Raise it, or start fewer processes."
            )
        return batch_sz // self.ddp_world_size

    @contextmanager
    def _in_parallel(self) -> Iterator[Callable[[], AbstractContextManager[Any]]]:
        """Put a model whose gradients are averaged over the processes in the place of the model.

        Yields what makes a context without that averaging.
        """
        if not is_joined():
            yield nullcontext
            return
        plain = self.model
        if self._parallel_model is None or self._parallel_model.module is not plain:
            devices = [self.ddp_local_rank] if self.device.type == "cuda" else None
            self._parallel_model = DistributedDataParallel(plain, device_ids=devices)
        self.model = self._parallel_model
        try:
            yield self._parallel_model.no_sync
        finally:
            self.model = plain

    def _sync_batch_norm(self, model: nn.Module) -> nn.Module:
        if self.is_ddp_process and self.device.type == "cuda":
            synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
            return synced
        return model
