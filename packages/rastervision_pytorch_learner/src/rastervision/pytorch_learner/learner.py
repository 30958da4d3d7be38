"""Learners: train, validate and run a model. A facade over parts that each work alone.

The parts are `data` (datasets), `models`, `optim`, `loop` (batches), `checkpoint`, `tracking` (logs),
`bundle` and `onnx_export`. A task subclasses `Learner` with its steps: see `SemanticSegmentationLearner`.
"""

from __future__ import annotations

import logging
import os
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler

from rastervision.pipeline.errors import ConfigError, RunError
from rastervision.pytorch_learner import checkpoint as ckpt
from rastervision.pytorch_learner.bundle import (
    BUNDLE_MODEL_ONNX_FILENAME,
    LEARNER_CONFIG_FILENAME,
    MODULES_DIRNAME,
    open_learner_bundle,
    write_learner_bundle,
)
from rastervision.pytorch_learner.data import build_dataset
from rastervision.pytorch_learner.learner_training import Split, TrainingLearner
from rastervision.pytorch_learner.loop import Precision, RecordingSampler, has_batch_norm
from rastervision.pytorch_learner.onnx_export import ONNXRuntimeAdapter, export_onnx, try_export_onnx
from rastervision.pytorch_learner.optim import drops_last_batch
from rastervision.pytorch_learner.tracking import log_system_details
from rastervision.pytorch_learner.trained_on import put_aside_other_training, training_basis

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from rastervision.pytorch_backend.learner_config import LearnerConfig

__all__ = ["CHECKPOINTS_DIRNAME", "Learner"]

log = logging.getLogger(__name__)

CHECKPOINTS_DIRNAME = "checkpoints"
_LAST_CHECKPOINT = "last.ckpt"


class Learner(TrainingLearner):
    """Train, validate and run a model.

    Args:
        cfg: What to train on what, and how.
        output_dir: Folder (may be remote) of weights, logs and plots; ``cfg.output_uri`` if not given.
        train_ds: Training data; built from ``cfg.data`` if not given. The same holds for the next arguments.
        valid_ds: Validation data.
        test_ds: Test data; built only if no dataset is given.
        model: The model; its first parameter's task decides what it must return.
        loss: The loss, called with outputs and targets.
        optimizer: The optimiser.
        epoch_scheduler: Learning-rate schedule that advances with each epoch.
        step_scheduler: Learning-rate schedule that advances with each batch.
        tmp_dir: Local folder for temporary files.
        model_weights_path: File of weights to start from, instead of ``cfg.model.init_weights``.
        model_def_path: Folder with the code of an external model, as found in a bundle.
        loss_def_path: Folder with the code of an external loss, as found in a bundle.
        training: Whether the learner will train. If ``output_dir`` has a checkpoint, training goes on from
            there; a training of another model or on other data is moved to ``earlier`` first.
    """

    def __init__(
        self,
        cfg: LearnerConfig,
        output_dir: str | None = None,
        train_ds: Dataset[Any] | None = None,
        valid_ds: Dataset[Any] | None = None,
        test_ds: Dataset[Any] | None = None,
        model: nn.Module | None = None,
        loss: Callable[..., torch.Tensor] | None = None,
        optimizer: Optimizer | None = None,
        epoch_scheduler: LRScheduler | None = None,
        step_scheduler: LRScheduler | None = None,
        tmp_dir: str | None = None,
        model_weights_path: str | None = None,
        model_def_path: str | None = None,
        loss_def_path: str | None = None,
        training: bool = True,
    ) -> None:
        log_system_details()
        self.cfg, self.training = cfg, training
        self.device = torch.device(_device_name())
        self.tmp_dir = self._own_tmp_dir() if tmp_dir is None else tmp_dir
        self.train_ds, self.valid_ds, self.test_ds = train_ds, valid_ds, test_ds
        self.loss: Any = loss
        self.opt = optimizer
        self.epoch_scheduler, self.step_scheduler = epoch_scheduler, step_scheduler
        self.tb_log = None
        self.tb_process = None
        self.state = ckpt.TrainState()
        self._given_schedulers = epoch_scheduler is not None or step_scheduler is not None
        self._set_paths(output_dir)
        if training:
            self.sync_from_cloud()
            # what a program hands over cannot be compared with what an earlier one did
            if all(given is None for given in (model, train_ds, loss)) and cfg.solver is not None:
                started = any(os.path.isfile(path) for path in (self.checkpoint_path, self.last_model_weights_path))
                put_aside_other_training(self.output_dir_local, training_basis(cfg, self.tmp_dir), started)
            if cfg.solver is not None and cfg.solver.seed is not None:
                ckpt.seed_everything(cfg.solver.seed)
        self.model: nn.Module = model  # type: ignore[assignment]
        self.setup_model(model_weights_path, model_def_path)
        solver = cfg.solver
        self.precision = Precision(self.device, solver is not None and solver.mixed_precision)
        if training:
            self.setup_training(loss_def_path)
        else:
            self.model.eval()

    def _own_tmp_dir(self) -> str:
        tmp = _get_tmp_dir()
        weakref.finalize(self, tmp.cleanup)
        return str(tmp.name)

    def _set_paths(self, output_dir: str | None) -> None:
        from rastervision.pipeline.file_system.utils import get_local_path

        self.output_dir = output_dir or self.cfg.output_uri
        if self.output_dir is None:
            if self.training:
                raise ConfigError("output_dir and learner.output_uri are not set. Give training a folder to write to.")
            self.output_dir_local = self.tmp_dir
        else:
            self.output_dir_local = get_local_path(self.output_dir, self.tmp_dir)
        local = Path(self.output_dir_local)
        self.model_bundle_uri = f"{(self.output_dir or self.tmp_dir).rstrip('/')}/model-bundle.zip"
        self.config_path = str(local / LEARNER_CONFIG_FILENAME)
        self.log_path = str(local / "log.csv")
        self.last_model_weights_path = str(local / "last-model.pth")
        self.checkpoints_dir_local = str(local / CHECKPOINTS_DIRNAME)
        self.checkpoint_path = str(local / CHECKPOINTS_DIRNAME / _LAST_CHECKPOINT)
        self.modules_dir = str((local if self.training else Path(self.tmp_dir)) / MODULES_DIRNAME)
        self.tb_log_dir = str(local / "tb-logs")

    @classmethod
    def from_model_bundle(
        cls,
        model_bundle_uri: str,
        tmp_dir: str | None = None,
        cfg: LearnerConfig | None = None,
        training: bool = False,
        use_onnx_model: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Make a learner from a bundle, of this release or of earlier ones.

        Args:
            model_bundle_uri: URI of the zip.
            tmp_dir: Local folder for temporary files.
            cfg: Config to use instead of the one in the bundle.
            training: Whether the learner will train.
            use_onnx_model: Whether to run ``model.onnx`` of the bundle; by default the setting
                ``rastervision.USE_ONNX`` says.
            **kwargs: Arguments of the constructor.

        Raises:
            BundleError: It is not a bundle, or is damaged.
        """
        own_tmp = _get_tmp_dir() if tmp_dir is None else None
        folder: str = tmp_dir if own_tmp is None else own_tmp.name  # type: ignore[assignment]
        try:
            learner = cls._from_bundle(model_bundle_uri, folder, cfg, training, use_onnx_model, kwargs)
        except BaseException:
            if own_tmp is not None:
                own_tmp.cleanup()
            raise
        if own_tmp is not None:
            weakref.finalize(learner, own_tmp.cleanup)
        return learner

    @classmethod
    def _from_bundle(
        cls,
        uri: str,
        folder: str,
        cfg: LearnerConfig | None,
        training: bool,
        use_onnx_model: bool | None,
        kwargs: dict[str, Any],
    ) -> Self:
        bundle = open_learner_bundle(uri, folder, cfg)
        if use_onnx_model is None:
            use_onnx_model = _use_onnx_setting()
        if use_onnx_model and not training and bundle.onnx_path is not None and "model" not in kwargs:
            kwargs["model"] = ONNXRuntimeAdapter.from_file(bundle.onnx_path)
        else:
            kwargs.setdefault("model_weights_path", bundle.weights_path)
        model_cfg, solver = bundle.cfg.model, bundle.cfg.solver
        kwargs.setdefault("model_def_path", bundle.module_dir(model_cfg and model_cfg.external_def))
        if training:
            kwargs.setdefault("loss_def_path", bundle.module_dir(solver and solver.external_loss_def))
        return cls(cfg=bundle.cfg, tmp_dir=folder, training=training, **kwargs)

    def setup_model(self, model_weights_path: str | None = None, model_def_path: str | None = None) -> None:
        """Build the model unless one was given, move it to the device, load the weights to start from."""
        if self.model is None:
            weights = model_weights_path or (self.cfg.model.init_weights if self.cfg.model else None)
            resuming = self.training and os.path.isfile(self.last_model_weights_path)
            self.model = self.build_model(model_def_path, fetch_weights=weights is None and not resuming)
        self.model.to(self.device)
        if not self.onnx_mode:
            self.load_init_weights(model_weights_path)

    def build_model(self, model_def_path: str | None = None, fetch_weights: bool = True) -> nn.Module:
        """Build the model of the config.

        Args:
            model_def_path: Folder with the code of an external model; fetched from its source if not given.
            fetch_weights: Whether to get pretrained weights; off if all weights will be loaded from a file.
        """
        cfg = self.cfg.model
        if cfg is None:
            raise ConfigError("learner.model is not set. Set it, or give the learner a model object.")
        kwargs = {} if fetch_weights or not cfg.pretrained or cfg.external_def else {"fetch_weights": False}
        model: nn.Module = cfg.build(
            num_classes=self.cfg.data.num_classes,
            in_channels=self.cfg.data.img_channels,  # type: ignore[arg-type]
            save_dir=self.modules_dir,
            hubconf_dir=model_def_path,
            **kwargs,
        )
        return model

    def load_init_weights(self, model_weights_path: str | None = None) -> None:
        """Load the weights to start from: of this file, else of ``cfg.model.init_weights`` if set."""
        cfg = self.cfg.model
        uri = model_weights_path or (cfg.init_weights if cfg is not None and self.training else None)
        if uri is not None:
            self.load_weights(uri, strict=cfg is None or cfg.load_strict)

    def load_weights(self, uri: str, **kwargs: Any) -> None:
        """Load weights from safetensors or a ``torch.save`` file; ``kwargs`` as ``load_state_dict``.

        Raises:
            NotReadableError: The file is damaged.
            RunError: The weights do not fit the model.
        """
        from rastervision.pipeline.file_system.utils import download_if_needed

        state = ckpt.load_weights_file(download_if_needed(uri, self.tmp_dir))
        try:
            missing = self.model.load_state_dict(state, **kwargs)
        except RuntimeError as e:
            raise RunError(
                f"The weights in {uri} do not fit the model: {' '.join(str(e).split())[:300]}. Use the "
                "weights of this model, or set model.load_strict=False."
            ) from e
        if missing.missing_keys or missing.unexpected_keys:
            log.warning("weights %s: %d keys missing, %d not used", uri, *map(len, missing))

    def setup_training(self, loss_def_path: str | None = None) -> None:
        """Build data, loss, optimiser and schedules, and load the checkpoint if there is one."""
        if self.cfg.solver is None:
            raise ConfigError("learner.solver is not set. Set it to train.")
        os.makedirs(self.checkpoints_dir_local, exist_ok=True)
        self.cfg.to_file(self.config_path)
        self.setup_data()
        self.setup_loss(loss_def_path)
        if self.opt is None:
            self.opt = self.build_optimizer()
        if not self._given_schedulers:
            self.epoch_scheduler, self.step_scheduler = (
                self.build_epoch_scheduler(),
                self.build_step_scheduler(),
            )
        self.load_checkpoint()
        self.remove_leftovers()

    def setup_data(self) -> None:
        """Build the datasets that were not given, and the data loaders."""
        given = [ds is not None for ds in (self.train_ds, self.valid_ds, self.test_ds)]
        if self.train_ds is None:
            self.train_ds = self.build_dataset("train")
        if self.valid_ds is None:
            self.valid_ds = self.build_dataset("valid")
        if not any(given):
            self.test_ds = self.build_dataset("test")
        if len(self.train_ds) == 0:  # type: ignore[arg-type]
            raise ConfigError("The training data is empty. Check data.uri, or the scenes and sampling options.")
        if len(self.train_ds) == 1 and has_batch_norm(self.model):  # type: ignore[arg-type]
            raise ConfigError(
                "The training data is a single chip, and the batch norm of this model needs at least two in "
                "a batch. Add chips, or make them smaller."
            )
        self.train_dl, self.valid_dl, self.test_dl = self.build_dataloaders()

    def setup_loss(self, loss_def_path: str | None = None) -> None:
        """Build the loss unless one was given, and put it on the device."""
        if self.loss is None:
            self.loss = self.build_loss(loss_def_path)
        if isinstance(self.loss, nn.Module):
            self.loss.to(self.device)

    def build_dataset(self, split: Split) -> Dataset[Any]:
        """Build the dataset of a split."""
        log.info("building the %s data", split)
        return build_dataset(self.cfg.data, split, self.tmp_dir)

    def build_datasets(self) -> tuple[Dataset[Any], Dataset[Any], Dataset[Any]]:
        """Build the training, validation and test datasets."""
        return self.build_dataset("train"), self.build_dataset("valid"), self.build_dataset("test")

    def build_sampler(self, ds: Dataset[Any], split: Split) -> Sampler[int]:
        """Return the order of a dataset: random for training."""
        order: Sampler[int] = RandomSampler(ds) if split == "train" else SequentialSampler(ds)  # type: ignore[arg-type]
        return RecordingSampler(order)

    def build_dataloader(self, split: Split, **kwargs: Any) -> DataLoader[Any]:
        """Build the data loader of a split; ``kwargs`` are arguments of `DataLoader`."""
        ds = self.get_dataset(split)
        assert ds is not None
        batch_sz = self.cfg.solver.batch_sz if self.cfg.solver is not None else 1
        args: dict[str, Any] = {
            "batch_size": batch_sz,
            "drop_last": split == "train" and drops_last_batch(len(ds), batch_sz),  # type: ignore[arg-type]
            "num_workers": min(self.cfg.data.num_workers, os.cpu_count() or 1),
            "pin_memory": self.device.type == "cuda",
            "collate_fn": self.get_collate_fn(),
            **kwargs,
        }
        return DataLoader(ds, **{"sampler": self.build_sampler(ds, split), **args})

    def build_dataloaders(self) -> tuple[DataLoader[Any], DataLoader[Any] | None, DataLoader[Any] | None]:
        """Build the data loaders; None for a split without data."""
        splits: tuple[Split, Split, Split] = ("train", "valid", "test")
        train, valid, test = (self.build_dataloader(s) if self._has_data(s) else None for s in splits)
        assert train is not None
        return train, valid, test

    def build_loss(self, loss_def_path: str | None = None) -> Callable[..., torch.Tensor]:
        """Build the loss of the config."""
        return self._solver.build_loss(self.cfg.data.num_classes, self.modules_dir, loss_def_path)

    def build_optimizer(self) -> Optimizer:
        """Build the optimiser of the config."""
        optimizer: Optimizer = self._solver.build_optimizer(self.model)
        return optimizer

    def build_epoch_scheduler(self, start_epoch: int = 0) -> LRScheduler | None:
        """Build the schedule that advances with each epoch, as it is before ``start_epoch``."""
        return self._solver.build_epoch_scheduler(self.opt, last_epoch=start_epoch - 1)

    def build_step_scheduler(self, start_epoch: int = 0) -> LRScheduler | None:
        """Build the schedule that advances with each batch, as it is before ``start_epoch``."""
        last = start_epoch * self._plan["steps"] - 1
        return self._solver.build_step_scheduler(self.opt, len(self.train_ds), last_epoch=last)  # type: ignore[arg-type]

    def save_weights(self, path: str) -> None:
        """Write the weights of the model as a ``torch.save`` file."""
        ckpt.save_torch(self.model.state_dict(), path)

    def save_model_bundle(self, export_onnx: bool = False) -> None:
        """Write the bundle: config, the model's weights, and the code of external modules.

        Args:
            export_onnx: Whether to add ``model.onnx`` if it can be made within two minutes.
        """
        log.info("writing the model bundle %s", self.model_bundle_uri)
        with tempfile.TemporaryDirectory(prefix="rv-onnx-") as tmp:
            onnx_path = os.path.join(tmp, BUNDLE_MODEL_ONNX_FILENAME)
            made = export_onnx and try_export_onnx(onnx_path, *self._onnx_args())
            write_learner_bundle(
                self.model_bundle_uri,
                self.cfg,
                self.model.state_dict(),
                self.modules_dir if os.path.isdir(self.modules_dir) else None,
                onnx_path if made else None,
            )

    def _onnx_args(self) -> tuple[nn.Module, torch.Tensor]:
        side, channels = self.cfg.data.img_sz, self.cfg.data.img_channels or 3
        return _TensorOutput(self.model.eval(), self.post_forward), torch.randn(1, channels, side, side)

    def export_to_onnx(
        self,
        path: str,
        model: nn.Module | None = None,
        sample_input: torch.Tensor | None = None,
        validate_export: bool = True,
        **kwargs: Any,
    ) -> None:
        """Export a model to ONNX; see `rastervision.pytorch_learner.onnx_export.export_onnx`.

        Args:
            path: Local file to write.
            model: The model; that of the learner if not given.
            sample_input: (N, C, H, W) input to trace it with.
            validate_export: Whether to check the file.
            **kwargs: Arguments of `torch.onnx.export`.
        """
        own, sample = self._onnx_args()
        export_onnx(
            path,
            own if model is None else model.eval(),
            sample if sample_input is None else sample_input,
            validate_export,
            **kwargs,
        )

    def load_onnx_model(self, model_path: str) -> ONNXRuntimeAdapter:
        """Load a model for ONNX Runtime."""
        return ONNXRuntimeAdapter.from_file(model_path)


class _TensorOutput(nn.Module):
    """A model whose output is a tensor instead of a dict, for export."""

    def __init__(self, model: nn.Module, post_forward: Callable[[Any], Any]) -> None:
        super().__init__()
        self.model, self._post_forward = model, post_forward

    def forward(self, x: torch.Tensor) -> Any:
        return self._post_forward(self.model(x))


def _device_name() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _get_tmp_dir() -> Any:
    from rastervision.pipeline.file_system.utils import get_tmp_dir

    return get_tmp_dir()


def _use_onnx_setting() -> bool:
    from rastervision.pipeline.rv_config import rv_config_

    return bool(rv_config_.get_namespace_option("rastervision", "USE_ONNX", False, as_bool=True))
