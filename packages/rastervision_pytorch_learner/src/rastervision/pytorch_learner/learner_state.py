"""What a learner keeps in its output folder: weights, checkpoints and ``log.csv``, and going on from there."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rastervision.pipeline.file_system.atomic import TMP_PREFIX
from rastervision.pytorch_learner import checkpoint as ckpt
from rastervision.pytorch_learner.distributed import broadcast, gather
from rastervision.pytorch_learner.learner_data import LearnerData
from rastervision.pytorch_learner.tracking import read_log_csv, write_log_csv
from rastervision.pytorch_learner.trained_on import put_aside_other_training, training_basis

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from rastervision.pytorch_learner.loop import NonFiniteLossError, Precision

__all__ = ["LearnerState"]

log = logging.getLogger(__name__)

NAN_BATCH_FILENAME = "nan-batch.pth"


class LearnerState(LearnerData):
    """Base of `Learner`: saves the state of training after each epoch, and loads it."""

    best_metric: ClassVar[tuple[str, bool]] = ("val_loss", False)
    """Metric that says which epoch is best, and whether more is better."""

    opt: Optimizer | None
    epoch_scheduler: LRScheduler | None
    step_scheduler: LRScheduler | None
    precision: Precision
    average: AveragedModel | None
    """Running mean of the weights, with ``solver.ema_decay``."""
    state: ckpt.TrainState
    log_path: str
    last_model_weights_path: str
    checkpoints_dir_local: str
    checkpoint_path: str
    _given_schedulers: bool
    _own_model: bool

    def build_epoch_scheduler(self, start_epoch: int = 0) -> LRScheduler | None:
        """Build the schedule that advances with each epoch, as it is before ``start_epoch``."""
        scheduler: LRScheduler | None = self._solver.build_epoch_scheduler(self.opt, last_epoch=start_epoch - 1)
        return scheduler

    def build_step_scheduler(self, start_epoch: int = 0) -> LRScheduler | None:
        """Build the schedule that advances with each step of the optimiser, as it is before ``start_epoch``."""
        solver, steps = self._solver, self._steps_per_epoch
        # as many chips as make this number of steps in one process
        chips = steps * solver.accumulate_batches * solver.batch_sz
        scheduler: LRScheduler | None = solver.build_step_scheduler(self.opt, chips, last_epoch=start_epoch * steps - 1)
        return scheduler

    def load_weights(self, uri: str, **kwargs: Any) -> None:
        """Load weights of the model."""
        raise NotImplementedError

    @property
    def kept_model(self) -> nn.Module:
        """The model that is measured and whose weights are kept: the model, or the running mean of its weights."""
        return self.model if self.average is None else self.average.module

    @property
    def _plan(self) -> dict[str, int]:
        return {"num_epochs": self._solver.num_epochs, "steps": self._steps_per_epoch}

    @property
    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.opt, "precision": self.precision, "average": self.average}
        return {**parts, "epoch_scheduler": self.epoch_scheduler, "step_scheduler": self.step_scheduler}

    def _prepare_folder(self, compare: bool) -> None:
        """Get what is in the output folder; put it aside if it is another training and is to be compared."""
        if self.is_ddp_local_master:
            self.sync_from_cloud()
        if self.is_ddp_master and compare and self.cfg.solver is not None:
            started = any(os.path.isfile(path) for path in (self.checkpoint_path, self.last_model_weights_path))
            put_aside_other_training(self.output_dir_local, training_basis(self.cfg, self.tmp_dir), started)

    def _prepare_model(self) -> None:
        """Lay the model out for training."""
        solver = self._solver
        self.model = self._sync_batch_norm(self.model)
        if self._own_model:
            # convolutions are faster so; models of others may rely on the order of axes in memory
            self.model.to(memory_format=torch.channels_last)
        if solver.ema_decay is not None:
            mean = get_ema_multi_avg_fn(solver.ema_decay)  # type: ignore[no-untyped-call]
            self.average = AveragedModel(self.model, multi_avg_fn=mean, use_buffers=True)
        if solver.compile_model:
            self.model.compile()

    def on_epoch_end(self, curr_epoch: int, metrics: dict[str, Any]) -> None:
        """Save weights, checkpoint and logs of an epoch; a kill at any point leaves a state to go on from."""
        state = self.state
        score = self._score(metrics)
        best_before = state.best_epoch
        state.epoch, state.plan = curr_epoch, self._plan
        state.history = [row for row in state.history if row["epoch"] < curr_epoch] + [metrics]
        is_best = score is None or state.best_score is None or score >= state.best_score
        if is_best:
            state.best_epoch, state.best_score = curr_epoch, score
        rng = gather(ckpt.get_rng_state())
        if self.is_ddp_master:
            self._save(best_before, rng)
            if (curr_epoch + 1) % self._solver.sync_interval == 0:
                self.sync_to_cloud()

    def _save(self, best_before: int | None, rng: list[dict[str, Any]]) -> None:
        state, epoch = self.state, self.state.epoch
        weights = self.kept_model.state_dict()
        if state.best_epoch == epoch:
            ckpt.save_torch(weights, self._best_weights_path(epoch))
        if self.cfg.save_all_checkpoints and epoch > 0:
            name = f"model-ckpt-epoch-{epoch - 1}.pth"
            ckpt.keep_copy(self.last_model_weights_path, os.path.join(self.checkpoints_dir_local, name))
        ckpt.save_torch(weights, self.last_model_weights_path)
        # from here on the epoch counts as done
        ckpt.save_checkpoint(self.checkpoint_path, state, self._parts, rng)
        write_log_csv(self.log_path, state.history)
        if best_before not in (None, state.best_epoch):
            Path(self._best_weights_path(best_before or 0)).unlink(missing_ok=True)

    def _score(self, metrics: dict[str, Any]) -> float | None:
        """Return how good an epoch is, more is better; None if it was not measured."""
        for name, more_is_better in (self.best_metric, ("val_loss", False)):
            if name in metrics:
                return float(metrics[name]) if more_is_better else -float(metrics[name])
        return None

    def _epochs_without_gain(self) -> int:
        """Return for how many epochs the score has not risen; 0 if it is not measured."""
        scores = [self._score(row) for row in self.state.history]
        known = [s for s in scores if s is not None]
        return len(known) - 1 - known.index(max(known)) if known else 0

    def _is_stopped_early(self) -> bool:
        patience = self._solver.early_stopping_patience
        return patience is not None and self._epochs_without_gain() >= patience

    def _best_weights_path(self, epoch: int) -> str:
        return os.path.join(self.checkpoints_dir_local, f"best-model-epoch-{epoch}.pth")

    def get_start_epoch(self) -> int:
        """Return the first epoch that is not done."""
        return self.state.epoch + 1

    def get_start_and_end_epochs(self, epochs: int | None = None) -> tuple[int, int]:
        """Return the first epoch to train and the one after the last."""
        start = self.get_start_epoch()
        return start, self._solver.num_epochs if epochs is None else start + epochs

    def load_checkpoint(self, with_rng: bool = False) -> None:
        """Restore all parts of training from the output folder; does nothing if there is no checkpoint.

        A folder of 0.31 has only weights and ``log.csv``: then the schedules are moved on to the epoch.

        Args:
            with_rng: Whether to restore the state of random numbers too.
        """
        if broadcast(os.path.isfile(self.checkpoint_path)):
            content = ckpt.load_checkpoint(self.checkpoint_path) if self.is_ddp_master else None
            state, states, rng = broadcast(content)
            self._restore(state, states)
            if with_rng and self.ddp_rank < len(rng):
                ckpt.set_rng_state(rng[self.ddp_rank])
        elif broadcast(os.path.isfile(self.last_model_weights_path)) and self.state.epoch < 0:
            history = broadcast(read_log_csv(self.log_path))
            if history:
                self._load_own_weights(self.last_model_weights_path)
                self.state = ckpt.TrainState(epoch=history[-1]["epoch"], history=history)
                if not self._given_schedulers:
                    self.epoch_scheduler = self.build_epoch_scheduler(self.get_start_epoch())
                    self.step_scheduler = self.build_step_scheduler(self.get_start_epoch())
        if self.state.epoch >= 0:
            log.info("going on after epoch %d in %s", self.state.epoch + 1, self.output_dir_local)

    def _restore(self, state: ckpt.TrainState, states: dict[str, Any]) -> None:
        self.state = state
        parts = self._parts
        # a schedule by step is laid out for a number of epochs
        other_plan = state.plan != self._plan and not self._given_schedulers
        if other_plan:
            parts.pop("step_scheduler")
        ckpt.restore_parts(self.checkpoint_path, parts, states)
        if other_plan:
            self.step_scheduler = self.build_step_scheduler(self.get_start_epoch())

    def _load_own_weights(self, path: str) -> None:
        """Load a file that rank 0 wrote, in all processes."""
        if self.is_ddp_master:
            self.load_weights(path)
        weights = broadcast(self.model.state_dict() if self.is_ddp_process else None)
        if weights is not None:
            self.model.load_state_dict(weights)

    def remove_leftovers(self) -> None:
        """Delete what a killed run left behind: unfinished files, and weights of epochs that will be repeated."""
        done, best = self.state.epoch, self.state.best_epoch
        for folder in (self.output_dir_local, self.checkpoints_dir_local):
            for path in Path(folder).glob(f"{TMP_PREFIX}*"):
                path.unlink(missing_ok=True)
        for path in Path(self.checkpoints_dir_local).glob("*-epoch-*.pth"):
            epoch = int(path.stem.rpartition("-")[2])
            if epoch > done or (path.name.startswith("best-") and epoch != best):
                path.unlink()

    def load_best_weights(self) -> None:
        """Give the model the weights of the epoch that was best on the validation data."""
        best = self.state.best_epoch
        if best is None or (best == self.state.epoch and self.average is None):
            return
        path = self._best_weights_path(best)
        if broadcast(os.path.isfile(path)):
            log.info("using the weights of epoch %d, the best one", best + 1)
            self._load_own_weights(path)

    def save_nan_batch(self, error: NonFiniteLossError, chips: str) -> str:
        """Write the batch that an error is about, for inspection with ``torch.load``, and return the path."""
        parts = error.batch if isinstance(error.batch, (tuple, list)) else (error.batch, None)
        x, y = (_plain(self.to_device(part, "cpu")) for part in parts)
        path = os.path.join(self.output_dir_local, NAN_BATCH_FILENAME)
        ckpt.save_torch({"x": x, "y": y, "chips": chips, "error": str(error)}, path)
        return path

    def sync_to_cloud(self) -> None:
        """Copy the local output folder to ``output_dir`` if that is remote."""
        from rastervision.pipeline.file_system.utils import sync_to_dir

        if self.output_dir is not None and self.output_dir != self.output_dir_local:
            sync_to_dir(self.output_dir_local, self.output_dir)

    def sync_from_cloud(self) -> None:
        """Copy ``output_dir`` to the local output folder if it is remote and exists."""
        from rastervision.pipeline.file_system.utils import file_exists, sync_from_dir

        if self.output_dir is not None and self.output_dir != self.output_dir_local and file_exists(self.output_dir):
            sync_from_dir(self.output_dir, self.output_dir_local)


def _plain(x: Any) -> Any:
    """Return ``x`` made of tensors, lists, dicts and plain values only."""
    if isinstance(x, dict):
        return {k: _plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [_plain(v) for v in x]
    return _plain(vars(x)) if hasattr(x, "__dict__") and not isinstance(x, torch.Tensor) else x
