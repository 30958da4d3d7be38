"""Learners: train, validate and run a model. A facade over parts that each work alone.

The parts are `data` (datasets), `models`, `optim`, `loop` (batches), `checkpoint`, `tracking` (logs),
`bundle` and `onnx_export`. A task subclasses `Learner` with its steps: see `SemanticSegmentationLearner`.
"""

from __future__ import annotations

import copy
import logging
import os
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from rastervision.pipeline.errors import ConfigError, RunError
from rastervision.pytorch_backend.onnx_predict import wants_onnx
from rastervision.pytorch_learner import checkpoint as ckpt
from rastervision.pytorch_learner.bundle import (
    BUNDLE_MODEL_ONNX_FILENAME,
    LEARNER_CONFIG_FILENAME,
    MODULES_DIRNAME,
    open_learner_bundle,
    write_learner_bundle,
)
from rastervision.pytorch_learner.distributed import taking_turns
from rastervision.pytorch_learner.learner_training import TrainingLearner
from rastervision.pytorch_learner.loop import Precision
from rastervision.pytorch_learner.onnx_export import ONNXRuntimeAdapter, export_onnx, try_export_onnx
from rastervision.pytorch_learner.tracking import log_system_details
from rastervision.pytorch_learner.trust import note_own_config

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torch.utils.data import Dataset

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
        step_scheduler: Learning-rate schedule that advances with each step of the optimiser.
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
        self.cfg, self.training = cfg, training
        self.setup_ddp_params()
        if not self.avoid_activating_cuda_runtime:
            log_system_details()
        self.device = torch.device("cpu" if self.avoid_activating_cuda_runtime else _device_name())
        if training and self.is_ddp_process:
            self.ddp().stay()
        self.tmp_dir = self._own_tmp_dir() if tmp_dir is None else tmp_dir
        self.train_ds, self.valid_ds, self.test_ds = train_ds, valid_ds, test_ds
        self.loss: Any = loss
        self.opt = optimizer
        self.epoch_scheduler, self.step_scheduler = epoch_scheduler, step_scheduler
        self.tb_log = None
        self.tb_process = None
        self.average = None
        self.state = ckpt.TrainState()
        self._given_schedulers = epoch_scheduler is not None or step_scheduler is not None
        self._set_paths(output_dir)
        if training:
            with taking_turns(self.is_ddp_master):
                # what a program hands over cannot be compared with what an earlier one did
                self._prepare_folder(compare=model is None and train_ds is None and loss is None)
            if cfg.solver is not None and cfg.solver.seed is not None:
                ckpt.seed_everything(cfg.solver.seed)
            if self.distributed and not self.is_ddp_process:
                self._plan_processes(
                    {"train_ds": train_ds, "valid_ds": valid_ds, "test_ds": test_ds},
                    objects=(model, loss, optimizer, epoch_scheduler, step_scheduler),
                    model_weights_path=model_weights_path,
                    model_def_path=model_def_path,
                    loss_def_path=loss_def_path,
                )
        self._own_model = model is None and cfg.model is not None and cfg.model.external_def is None
        self.model: nn.Module = model  # type: ignore[assignment]
        with taking_turns(self.is_ddp_master):
            self.setup_model(model_weights_path, model_def_path)
        solver = cfg.solver
        self.precision = Precision(self.device, solver.mixed_precision if solver is not None else False)
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
        keeps_modules = self.training and self.is_ddp_master
        modules = MODULES_DIRNAME if self.is_ddp_master else f"{MODULES_DIRNAME}-{self.ddp_rank}"
        self.modules_dir = str((local if keeps_modules else Path(self.tmp_dir)) / modules)
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
        if cfg is not None:
            note_own_config(cfg)
        bundle = open_learner_bundle(uri, folder, cfg)
        bundle.check_learner(cls, uri)
        if use_onnx_model is None:
            use_onnx_model = wants_onnx()
        if use_onnx_model and not training and bundle.onnx_path is not None and "model" not in kwargs:
            kwargs["model"] = cls.onnx_adapter.from_file(bundle.onnx_path)  # it needs no code
        else:
            kwargs.setdefault("model_weights_path", bundle.weights_path)
            model_cfg = bundle.cfg.model
            kwargs.setdefault("model_def_path", bundle.module_dir(model_cfg and model_cfg.external_def))
        if training:
            solver = bundle.cfg.solver
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
        if self.is_ddp_master:
            os.makedirs(self.checkpoints_dir_local, exist_ok=True)
            self.cfg.to_file(self.config_path)
        self._prepare_model()
        self.setup_data()
        with taking_turns(self.is_ddp_master):
            self.setup_loss(loss_def_path)
        if self.opt is None:
            self.opt = self.build_optimizer()
        if not self._given_schedulers:
            self.epoch_scheduler, self.step_scheduler = (
                self.build_epoch_scheduler(),
                self.build_step_scheduler(),
            )
        self.load_checkpoint()
        if self.is_ddp_master:
            self.remove_leftovers()

    def setup_loss(self, loss_def_path: str | None = None) -> None:
        """Build the loss unless one was given, and put it on the device."""
        if self.loss is None:
            self.loss = self.build_loss(loss_def_path)
        if isinstance(self.loss, nn.Module):
            self.loss.to(self.device)

    def build_loss(self, loss_def_path: str | None = None) -> Callable[..., torch.Tensor]:
        """Build the loss of the config."""
        return self._solver.build_loss(self.cfg.data.num_classes, self.modules_dir, loss_def_path)

    def build_optimizer(self) -> Optimizer:
        """Build the optimiser of the config."""
        optimizer: Optimizer = self._solver.build_optimizer(self.model)
        return optimizer

    def save_weights(self, path: str) -> None:
        """Write the weights of the model as a ``torch.save`` file."""
        ckpt.save_torch(self.model.state_dict(), path)

    def save_model_bundle(self, export_onnx: bool = False) -> None:
        """Write the bundle: config, the model's weights, and the code of external modules.

        Args:
            export_onnx: Whether to add ``model.onnx`` if it can be made within five minutes.
        """
        log.info("writing the model bundle %s", self.model_bundle_uri)
        with tempfile.TemporaryDirectory(prefix="rv-onnx-") as tmp:
            onnx_path = os.path.join(tmp, BUNDLE_MODEL_ONNX_FILENAME)
            made = export_onnx and try_export_onnx(onnx_path, *self._onnx_args(), output_names=self.onnx_outputs)
            write_learner_bundle(
                self.model_bundle_uri,
                self.cfg,
                self.model.state_dict(),
                self.modules_dir if os.path.isdir(self.modules_dir) else None,
                onnx_path if made else None,
            )

    def _onnx_args(self) -> tuple[nn.Module, torch.Tensor]:
        side, channels = self.cfg.data.img_sz, self.cfg.data.img_channels or 3
        compiled = self.cfg.solver is not None and self.cfg.solver.compile_model
        model = copy.deepcopy(self.model) if compiled else self.model  # a copy is not compiled
        ramp = torch.linspace(0, 1, channels * side * side).view(1, channels, side, side)
        return self.make_exportable(model.eval()), ramp

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
            own if model is None else self.make_exportable(model.eval()),
            sample if sample_input is None else sample_input,
            validate_export,
            self.onnx_outputs,
            **kwargs,
        )

    def load_onnx_model(self, model_path: str) -> ONNXRuntimeAdapter:
        """Load a model for ONNX Runtime."""
        return self.onnx_adapter.from_file(model_path)


def _device_name() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _get_tmp_dir() -> Any:
    from rastervision.pipeline.file_system.utils import get_tmp_dir

    return get_tmp_dir()
