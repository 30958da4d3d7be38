"""Training by a learner: epochs, checkpoints, logs, plots. Built on `loop`, `checkpoint`, `tracking`."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from abc import abstractmethod
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader

from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.file_system.atomic import TMP_PREFIX
from rastervision.pytorch_learner import checkpoint as ckpt
from rastervision.pytorch_learner.learner_steps import LearnerSteps
from rastervision.pytorch_learner.loop import Precision, describe_batch, train_batches, validate_batches
from rastervision.pytorch_learner.optim import steps_per_epoch
from rastervision.pytorch_learner.tracking import (
    TensorBoardLog,
    plot_loss_curve,
    read_log_csv,
    start_tensorboard,
    write_log_csv,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torch.utils.data import Dataset

    from rastervision.pytorch_learner.dataset.visualizer import Visualizer

__all__ = ["TrainingLearner"]

log = logging.getLogger(__name__)

_MAX_PREVIEW_CHIPS = 8

Split = Literal["train", "valid", "test"]


class TrainingLearner(LearnerSteps):
    """Base of `Learner`: training, measuring and plotting with the parts that `Learner` sets up."""

    best_metric: ClassVar[tuple[str, bool]] = ("val_loss", False)
    """Metric that says which epoch is best, and whether more is better."""

    train_ds: Dataset[Any] | None
    valid_ds: Dataset[Any] | None
    test_ds: Dataset[Any] | None
    train_dl: DataLoader[Any]
    valid_dl: DataLoader[Any] | None
    test_dl: DataLoader[Any] | None
    opt: Optimizer | None
    epoch_scheduler: LRScheduler | None
    step_scheduler: LRScheduler | None
    precision: Precision
    state: ckpt.TrainState
    tb_log: TensorBoardLog | None
    tb_process: subprocess.Popen[bytes] | None
    output_dir: str | None
    output_dir_local: str
    log_path: str
    last_model_weights_path: str
    checkpoints_dir_local: str
    checkpoint_path: str
    tb_log_dir: str
    _given_schedulers: bool

    @abstractmethod
    def build_epoch_scheduler(self, start_epoch: int = 0) -> LRScheduler | None:
        """Build the schedule that advances with each epoch, as it is before ``start_epoch``."""

    @abstractmethod
    def build_step_scheduler(self, start_epoch: int = 0) -> LRScheduler | None:
        """Build the schedule that advances with each batch, as it is before ``start_epoch``."""

    @abstractmethod
    def load_weights(self, uri: str, **kwargs: Any) -> None:
        """Load weights of the model."""

    @abstractmethod
    def save_model_bundle(self, export_onnx: bool = False) -> None:
        """Write the bundle."""

    @property
    def _solver(self) -> Any:
        return self.cfg.solver

    @property
    def _plan(self) -> dict[str, int]:
        steps = steps_per_epoch(len(self.train_ds), self._solver.batch_sz)  # type: ignore[arg-type]
        return {"num_epochs": self._solver.num_epochs, "steps": steps}

    @property
    def visualizer(self) -> Visualizer:
        """Plots samples of this task."""
        data, options = self.cfg.data, self.cfg.data.plot_options
        return self.get_visualizer_class()(
            data.class_names or [],
            data.class_colors,
            transform=None if options is None else options.transform,
            channel_display_groups=None if options is None else options.channel_display_groups,
        )

    def get_dataset(self, split: Split) -> Dataset[Any] | None:
        """Return the dataset of a split."""
        return {"train": self.train_ds, "valid": self.valid_ds, "test": self.test_ds}[split]

    def get_dataloader(self, split: Split) -> DataLoader[Any]:
        """Return the data loader of a split.

        Raises:
            ConfigError: The split has no data.
        """
        loader = {"train": self.train_dl, "valid": self.valid_dl, "test": self.test_dl}[split]
        if loader is None:
            raise ConfigError(f"There is no {split} data. Add {split} scenes or chips.")
        return loader

    def _has_data(self, split: Split) -> bool:
        ds = self.get_dataset(split)
        return ds is not None and len(ds) > 0  # type: ignore[arg-type]

    def main(self) -> None:
        """Train, write the bundle of the best epoch, and measure and plot on the validation data."""
        cfg = self.cfg
        self.run_tensorboard()
        try:
            self.log_data_stats()
            self.plot_dataloaders(cfg.data.preview_batch_limit)
            self.train()
            if cfg.save_model_bundle:
                self.save_model_bundle()
            splits: tuple[Split, ...] = ("train", "valid") if cfg.eval_train else ("valid",)
            for split in splits:
                if self._has_data(split):
                    self.validate(split)
            self.sync_to_cloud()
        finally:
            self.stop_tensorboard()

    def train(self, epochs: int | None = None) -> None:
        """Train up to ``cfg.solver.num_epochs``, or ``epochs`` more; then the model has the best weights.

        Goes on from the checkpoint in the output folder if there is one.

        Raises:
            NonFiniteLossError: A loss is NaN or infinite.
        """
        self.load_checkpoint(with_rng=True)
        start, end = self.get_start_and_end_epochs(epochs)
        if start >= end:
            log.info("training is complete: %d of %d epochs are done", start, end)
        self.setup_tensorboard(start)
        self.on_train_start()
        try:
            for epoch in range(start, end):
                self.on_epoch_end(epoch, self._run_epoch(epoch, end))
        finally:
            if self.tb_log is not None:
                self.tb_log.close()
                self.tb_log = None
        plot_loss_curve(self.state.history, os.path.join(self.output_dir_local, "loss.png"))
        self.load_best_weights()

    def on_train_start(self) -> None:
        """Do what a subclass wants before the first epoch of a call of `train`."""

    def _run_epoch(self, epoch: int, end: int) -> dict[str, Any]:
        name = f"epoch {epoch + 1}/{end}"
        began = time.monotonic()
        metrics: dict[str, Any] = {"epoch": epoch}
        metrics |= self.train_epoch(description=f"{name}: train")
        metrics["train_time"] = str(timedelta(seconds=time.monotonic() - began))
        if self.epoch_scheduler is not None:
            self.epoch_scheduler.step()
        if self.valid_dl is not None:
            began = time.monotonic()
            metrics |= self.validate_epoch(self.valid_dl, description=f"{name}: validate")
            metrics["valid_time"] = str(timedelta(seconds=time.monotonic() - began))
        shown = ("train_loss", "val_loss", "avg_f1")
        log.info("%s: %s", name, ", ".join(f"{k} {metrics[k]:.4g}" for k in shown if k in metrics))
        return metrics

    def train_epoch(
        self,
        optimizer: Optimizer | None = None,
        dataloader: DataLoader[Any] | None = None,
        step_scheduler: LRScheduler | None = None,
        description: str = "train",
    ) -> dict[str, float]:
        """Train on all batches once and return the metrics; the learner's own parts are used if not given."""
        loader = self.train_dl if dataloader is None else dataloader
        self.model.train()
        outputs = train_batches(
            self.train_step,
            self._batches(loader),
            self.opt if optimizer is None else optimizer,  # type: ignore[arg-type]
            total=len(loader),
            step_scheduler=self.step_scheduler if step_scheduler is None else step_scheduler,
            precision=self.precision,
            description=description,
            describe=lambda i: describe_batch(loader, i),
        )
        return self.train_end(outputs)

    def validate_epoch(self, dl: DataLoader[Any], description: str = "validate") -> dict[str, float]:
        """Measure the model on all batches and return the metrics."""
        self.model.eval()
        outputs = validate_batches(
            self.validate_step,
            self._batches(dl),
            total=len(dl),
            precision=self.precision,
            description=description,
            describe=lambda i: describe_batch(dl, i),
        )
        return self.validate_end(outputs)

    def _batches(self, dl: DataLoader[Any]) -> Iterator[Any]:
        for i, batch in enumerate(dl):
            self.check_batch(batch, lambda i=i: describe_batch(dl, i))  # type: ignore[misc]
            yield tuple(self.to_device(part, self.device) for part in batch)

    def on_epoch_end(self, curr_epoch: int, metrics: dict[str, Any]) -> None:
        """Save weights, checkpoint and logs of an epoch; a kill at any point leaves a state to go on from."""
        state = self.state
        score = self._score(metrics)
        best_before = state.best_epoch
        state.epoch, state.plan = curr_epoch, self._plan
        state.history = [row for row in state.history if row["epoch"] < curr_epoch] + [metrics]
        weights = self.model.state_dict()
        if score is None or state.best_score is None or score >= state.best_score:
            state.best_epoch, state.best_score = curr_epoch, score
            ckpt.save_torch(weights, self._best_weights_path(curr_epoch))
        if self.cfg.save_all_checkpoints and curr_epoch > 0:
            name = f"model-ckpt-epoch-{curr_epoch - 1}.pth"
            ckpt.keep_copy(self.last_model_weights_path, os.path.join(self.checkpoints_dir_local, name))
        ckpt.save_torch(weights, self.last_model_weights_path)
        # from here on the epoch counts as done
        ckpt.save_checkpoint(self.checkpoint_path, state, self._parts)
        write_log_csv(self.log_path, state.history)
        if best_before not in (None, state.best_epoch):
            Path(self._best_weights_path(best_before or 0)).unlink(missing_ok=True)
        if self.tb_log is not None:
            self.tb_log.write(metrics, curr_epoch)
        if (curr_epoch + 1) % self._solver.sync_interval == 0:
            self.sync_to_cloud()

    def _score(self, metrics: dict[str, Any]) -> float | None:
        """Return how good an epoch is, more is better; None if it was not measured."""
        for name, more_is_better in (self.best_metric, ("val_loss", False)):
            if name in metrics:
                return float(metrics[name]) if more_is_better else -float(metrics[name])
        return None

    def _best_weights_path(self, epoch: int) -> str:
        return os.path.join(self.checkpoints_dir_local, f"best-model-epoch-{epoch}.pth")

    @property
    def _parts(self) -> dict[str, Any]:
        parts = {"model": self.model, "optimizer": self.opt, "precision": self.precision}
        return {**parts, "epoch_scheduler": self.epoch_scheduler, "step_scheduler": self.step_scheduler}

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
        if os.path.isfile(self.checkpoint_path):
            self.state, states, rng = ckpt.load_checkpoint(self.checkpoint_path)
            parts = self._parts
            if self.state.plan != self._plan and not self._given_schedulers:
                # the saved schedules were laid out for another number of epochs
                start = self.get_start_epoch()
                self.epoch_scheduler = self.build_epoch_scheduler(start)
                self.step_scheduler = self.build_step_scheduler(start)
                parts = {k: v for k, v in parts.items() if not k.endswith("scheduler")}
            ckpt.restore_parts(self.checkpoint_path, parts, states)
            if with_rng:
                ckpt.set_rng_state(rng)
        elif os.path.isfile(self.last_model_weights_path) and self.state.epoch < 0:
            history = read_log_csv(self.log_path)
            if history:
                self.load_weights(self.last_model_weights_path)
                self.state = ckpt.TrainState(epoch=history[-1]["epoch"], history=history)
                start = self.get_start_epoch()
                if not self._given_schedulers:
                    self.epoch_scheduler = self.build_epoch_scheduler(start)
                    self.step_scheduler = self.build_step_scheduler(start)
        if self.state.epoch >= 0:
            log.info("going on after epoch %d in %s", self.state.epoch + 1, self.output_dir_local)

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
        if best is None or best == self.state.epoch:
            return
        path = self._best_weights_path(best)
        if os.path.isfile(path):
            log.info("using the weights of epoch %d, the best one", best + 1)
            self.load_weights(path)

    def setup_tensorboard(self, start_epoch: int = 0) -> None:
        """Open the TensorBoard log if the config asks for one."""
        if self.cfg.log_tensorboard:
            self.tb_log = TensorBoardLog(self.tb_log_dir, start_epoch)

    def run_tensorboard(self) -> None:
        """Start a TensorBoard server if the config asks for one."""
        if self.cfg.run_tensorboard:
            self.tb_process = start_tensorboard(self.tb_log_dir)

    def stop_tensorboard(self) -> None:
        """Stop the TensorBoard server if one was started."""
        if self.tb_process is not None:
            self.tb_process.terminate()
            self.tb_process.wait()
            self.tb_process = None

    def log_data_stats(self) -> None:
        """Log the sizes of the datasets."""
        for split, ds in (("train", self.train_ds), ("valid", self.valid_ds), ("test", self.test_ds)):
            log.info("%s data: %d chips", split, 0 if ds is None else len(ds))  # type: ignore[arg-type]

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

    def validate(self, split: Split = "valid") -> dict[str, float]:
        """Return the metrics of a split; write ``<split>_metrics.json`` and ``<split>_preds.png``."""
        from rastervision.pipeline.file_system.utils import json_to_file

        metrics = self.validate_epoch(self.get_dataloader(split), description=f"validate on {split} data")
        json_to_file(metrics, os.path.join(self.output_dir_local, f"{split}_metrics.json"))
        self.plot_predictions(split, self.cfg.data.preview_batch_limit)
        return metrics

    @ckpt.preserve_rng()
    def plot_predictions(self, split: Split, batch_limit: int | None = None, show: bool = False) -> None:
        """Plot some chips of a split with labels and predictions to ``<split>_preds.png``."""
        x, y = self._preview(split, batch_limit)
        z = self.predict(x)
        path = os.path.join(self.output_dir_local, f"{split}_preds.png")
        self.visualizer.plot_batch(x, y, path, z=z, show=show)

    def plot_dataloader(
        self, dl: DataLoader[Any], output_path: str, batch_limit: int | None = None, show: bool = False
    ) -> None:
        """Plot the first chips of a data loader with their labels."""
        x, y = next(iter(dl))
        self.visualizer.plot_batch(x, y, output_path, batch_limit=batch_limit, show=show)

    @ckpt.preserve_rng()
    def plot_dataloaders(self, batch_limit: int | None = None, show: bool = False) -> None:
        """Plot some chips of each split with their labels to ``dataloaders/<split>.png``."""
        splits: tuple[Split, ...] = ("train", "valid", "test")
        for split in splits:
            if self._has_data(split):
                path = os.path.join(self.output_dir_local, "dataloaders", f"{split}.png")
                self.visualizer.plot_batch(*self._preview(split, batch_limit), path, show=show)

    def _preview(self, split: Split, limit: int | None) -> tuple[torch.Tensor, Any]:
        """Return chips from all over a split, read in this process."""
        ds = self.get_dataset(split)
        size = len(ds)  # type: ignore[arg-type]
        count = min(size, self._solver.batch_sz, _MAX_PREVIEW_CHIPS) if limit is None else min(size, limit)
        picks = np.linspace(0, size - 1, max(1, count)).round().astype(int).tolist()
        loader = DataLoader(ds, batch_size=len(picks), sampler=picks, collate_fn=self.get_collate_fn())  # type: ignore[arg-type]
        x, y = next(iter(loader))
        return x, y
