"""Training by a learner: epochs of batches, measured and logged. Built on `loop` and `learner_state`."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from rastervision.pytorch_learner import checkpoint as ckpt
from rastervision.pytorch_learner.distributed import broadcast, gather, is_joined, spawn_training, sync_buffers
from rastervision.pytorch_learner.learner_data import Split
from rastervision.pytorch_learner.learner_state import LearnerState
from rastervision.pytorch_learner.loop import (
    NonFiniteLossError,
    Update,
    describe_batch,
    train_batches,
    validate_batches,
)
from rastervision.pytorch_learner.meter import Meter
from rastervision.pytorch_learner.run_logger import RunLoggers
from rastervision.pytorch_learner.tracking import TensorBoardLog, start_tensorboard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torch.utils.data import DataLoader

__all__ = ["Split", "TrainingLearner"]

log = logging.getLogger(__name__)


class TrainingLearner(LearnerState):
    """Base of `Learner`: training and measuring with the parts that `Learner` sets up."""

    tb_log: TensorBoardLog | None
    tb_process: subprocess.Popen[bytes] | None
    tb_log_dir: str
    _run_loggers: RunLoggers | None = None

    def save_model_bundle(self, export_onnx: bool = False) -> None:
        """Write the bundle."""
        raise NotImplementedError

    def main(self) -> None:
        """Train, write the bundle of the best epoch, and measure and plot on the validation data."""
        cfg, master = self.cfg, self.is_ddp_master
        with self._tensorboard_server(), self._logged():
            self.log_data_stats()
            if master:
                self.plot_dataloaders(cfg.data.preview_batch_limit)
            self.train()
            if master and cfg.save_model_bundle:
                self.save_model_bundle(export_onnx=cfg.export_onnx)
            splits: tuple[Split, ...] = ("train", "valid") if cfg.eval_train else ("valid",)
            for split in splits:
                if self._has_data(split):
                    self.validate(split)
            if master:
                self._log_artifacts("valid_metrics.json", "valid_preds.png", "model-bundle.zip")
                self.sync_to_cloud()

    def train(self, epochs: int | None = None) -> None:
        """Train up to ``cfg.solver.num_epochs``, or ``epochs`` more; then the model has the best weights.

        Goes on from the checkpoint in the output folder if there is one. Where there are several GPUs, a process for
        each is started.

        Raises:
            NonFiniteLossError: A loss is NaN or infinite.
        """
        if self.distributed and not self.is_ddp_process and self._spawn_args is not None:
            spawn_training(type(self), self._spawn_args, self.ddp_world_size, self.ddp_start_method, epochs)
            self.load_checkpoint()
        else:
            self._train_here(epochs)
        self.load_best_weights()

    def _train_here(self, epochs: int | None) -> None:
        self.load_checkpoint(with_rng=True)
        start, end = self.get_start_and_end_epochs(epochs)
        if start >= end:
            log.info("training is complete: %d of %d epochs are done", start, end)
        if start == 0:
            self._start_seeds()
        self.setup_tensorboard(start)
        self.on_train_start()
        try:
            with self._logged():
                for epoch in range(start, end):
                    if self._is_stopped_early():
                        log.info("training stops early: %d epochs without a gain", self._epochs_without_gain())
                        break
                    metrics = self._run_epoch(epoch, end)
                    self.on_epoch_end(epoch, metrics)
                    self._log_metrics(metrics, epoch)
                if self.is_ddp_master:
                    self._plot_history()
                    self._log_artifacts("log.csv", "loss.png")
        finally:
            if self.tb_log is not None:
                self.tb_log.close()
                self.tb_log = None

    def _plot_history(self) -> None:
        from rastervision.pytorch_learner.figures import save_figure
        from rastervision.pytorch_learner.plots import plot_loss_curves, plot_metric_curves

        history = self.state.history
        figures = {"loss": plot_loss_curves(history), "metrics": plot_metric_curves(history)} if history else {}
        for name, fig in figures.items():
            if fig is not None:
                save_figure(fig, os.path.join(self.output_dir_local, f"{name}.png"))

    def on_train_start(self) -> None:
        """Do what a subclass wants before the first epoch of a call of `train`."""

    def _start_seeds(self) -> None:
        """Give each process random numbers of its own, and all of them the same order of chips."""
        if is_joined():
            self.state.seed = broadcast(int(torch.randint(2**31, ())))
            ckpt.seed_everything(self.state.seed + self.ddp_rank)

    def _run_epoch(self, epoch: int, end: int) -> dict[str, Any]:
        name = f"epoch {epoch + 1}/{end}"
        began = time.monotonic()
        sampler: Any = self.train_dl.sampler
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch, self.state.seed)
        metrics: dict[str, Any] = {"epoch": epoch}
        meter = self._meter()
        metrics |= self.train_epoch(description=f"{name}: train", meter=meter)
        metrics["train_time"] = str(timedelta(seconds=time.monotonic() - began))
        if self.valid_dl is not None:
            began = time.monotonic()
            with self._kept_model_in_place():
                metrics |= self.validate_epoch(self.valid_dl, description=f"{name}: validate")
            metrics["valid_time"] = str(timedelta(seconds=time.monotonic() - began))
        self._step_epoch_scheduler(metrics)
        shown = ("train_loss", "val_loss", self.best_metric[0])
        parts = [f"{k} {metrics[k]:.4g}" for k in dict.fromkeys(shown) if k in metrics]
        log.info("%s: %s", name, ", ".join([*parts, str(meter)]))
        return metrics

    def _step_epoch_scheduler(self, metrics: dict[str, Any]) -> None:
        scheduler = self.epoch_scheduler
        if isinstance(scheduler, ReduceLROnPlateau):
            loss = metrics.get("val_loss", metrics["train_loss"])
            score = self._score(metrics)
            scheduler.step(loss if scheduler.mode == "min" else -metrics["train_loss"] if score is None else score)
        elif scheduler is not None:
            scheduler.step()

    def _meter(self) -> Meter:
        name = self.best_metric[0]
        last = self.state.history[-1].get(name) if self.state.history else None
        return Meter(f"last {name} {last:.3f}" if isinstance(last, float) else "", shown=self.is_ddp_master)

    @contextmanager
    def _kept_model_in_place(self) -> Iterator[None]:
        """Run the model that is kept as the model."""
        model, self.model = self.model, self.kept_model
        try:
            yield
        finally:
            self.model = model

    def train_epoch(
        self,
        optimizer: Optimizer | None = None,
        dataloader: DataLoader[Any] | None = None,
        step_scheduler: LRScheduler | None = None,
        description: str = "train",
        meter: Meter | None = None,
    ) -> dict[str, float]:
        """Train on all batches once and return the metrics; the learner's own parts are used if not given."""
        loader = self.train_dl if dataloader is None else dataloader
        solver = self._solver
        self.model.train()
        with self._in_parallel() as no_sync, self._keeping_nan_batch(loader):
            update = Update(
                self.opt if optimizer is None else optimizer,  # type: ignore[arg-type]
                self.step_scheduler if step_scheduler is None else step_scheduler,
                self.precision,
                solver.accumulate_batches,
                solver.max_grad_norm,
                self._update_average,
                no_sync,
            )
            outputs = train_batches(
                self.train_step,
                self._train_batches(loader),
                update,
                total=len(loader),
                description=description,
                describe=lambda i: describe_batch(loader, i),
                meter=meter,
            )
        sync_buffers(self.model)
        if self.average is not None:
            sync_buffers(self.average.module)
        return self.reduce_distributed_metrics(self.train_end(outputs))

    def _update_average(self) -> None:
        if self.average is not None:
            self.average.update_parameters(getattr(self.model, "module", self.model))

    def validate_epoch(self, dl: DataLoader[Any], description: str = "validate") -> dict[str, float]:
        """Measure the model on all batches, those of all processes together, and return the metrics."""
        self.model.eval()
        with self._keeping_nan_batch(dl):
            outputs = validate_batches(
                self.validate_step,
                self._batches(dl),
                total=len(dl),
                precision=self.precision,
                description=description,
                describe=lambda i: describe_batch(dl, i),
                meter=Meter(shown=self.is_ddp_master),
            )
        if is_joined():
            outputs = [o for part in gather(self.to_device(outputs, "cpu")) for o in part]
        return self.validate_end(outputs)

    @contextmanager
    def _keeping_nan_batch(self, dl: DataLoader[Any]) -> Iterator[None]:
        try:
            yield
        except NonFiniteLossError as e:
            path = self.save_nan_batch(e, describe_batch(dl, e.index, None))
            raise NonFiniteLossError(f"{e} The batch is in {path}.", e.batch, e.index) from e

    def validate(self, split: Split = "valid") -> dict[str, float]:
        """Return the metrics of a split; write ``<split>_metrics.json``, ``<split>_preds.png`` and other plots."""
        from rastervision.pipeline.file_system.utils import json_to_file
        from rastervision.pytorch_learner.figures import save_figure

        metrics = self.validate_epoch(self.get_dataloader(split), description=f"validate on {split} data")
        if self.is_ddp_master:
            # NaN, which stands for a metric that is not defined, is no JSON
            defined = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
            json_to_file(defined, os.path.join(self.output_dir_local, f"{split}_metrics.json"))
            self.plot_predictions(split, self.cfg.data.preview_batch_limit)
            for name, fig in self.plot_metrics().items():
                save_figure(fig, os.path.join(self.output_dir_local, f"{split}_{name}.png"))
        return metrics

    # logs

    def setup_tensorboard(self, start_epoch: int = 0) -> None:
        """Open the TensorBoard log if the config asks for one."""
        if self.cfg.log_tensorboard and self.is_ddp_master:
            self.tb_log = TensorBoardLog(self.tb_log_dir, start_epoch)

    def run_tensorboard(self) -> None:
        """Start a TensorBoard server if the config asks for one."""
        if self.cfg.run_tensorboard and self.is_ddp_master:
            self.tb_process = start_tensorboard(self.tb_log_dir)

    def stop_tensorboard(self) -> None:
        """Stop the TensorBoard server if one was started."""
        if self.tb_process is not None:
            self.tb_process.terminate()
            self.tb_process.wait()
            self.tb_process = None

    @contextmanager
    def _tensorboard_server(self) -> Iterator[None]:
        self.run_tensorboard()
        try:
            yield
        finally:
            self.stop_tensorboard()

    @contextmanager
    def _logged(self) -> Iterator[None]:
        """Tell the loggers of the config of this run; does nothing if that is being done."""
        if self._run_loggers is not None or not self.cfg.loggers or not self.is_ddp_master:
            yield
            return
        with RunLoggers(self.cfg.loggers, self.cfg.json(), self.output_dir_local) as self._run_loggers:
            try:
                yield
            finally:
                self._run_loggers = None

    def _log_metrics(self, metrics: dict[str, Any], epoch: int) -> None:
        if self.tb_log is not None:
            self.tb_log.write(metrics, epoch)
        if self._run_loggers is not None:
            self._run_loggers.log(metrics, epoch)

    def _log_artifacts(self, *names: str) -> None:
        for name in names:
            path = os.path.join(self.output_dir_local, name)
            if self._run_loggers is not None and os.path.isfile(path):
                self._run_loggers.artifact(path)
