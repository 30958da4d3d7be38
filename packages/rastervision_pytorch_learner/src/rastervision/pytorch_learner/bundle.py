"""Learner bundles: one zip with the config, the weights and the code of external modules."""

from __future__ import annotations

import itertools
import logging
import os
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rastervision.pipeline.errors import BundleError, NotReadableError, NotWritableError
from rastervision.pipeline.file_system.atomic import replacing
from rastervision.pytorch_backend.learner_bundle import (
    BUNDLE_MODEL_ONNX_FILENAME,
    BUNDLE_MODEL_WEIGHTS_FILENAME,
    BUNDLE_SAFETENSORS_FILENAME,
    LEARNER_CONFIG_FILENAME,
    MODULES_DIRNAME,
    TRANSFORMS_DIRNAME,
    LearnerBundleFiles,
    get_learner_config_from_bundle_dir,
)
from rastervision.pytorch_backend.learner_config import (
    ClassificationLearnerConfig,
    LearnerConfig,
    ObjectDetectionLearnerConfig,
    RegressionLearnerConfig,
    SemanticSegmentationLearnerConfig,
)
from rastervision.pytorch_learner.checkpoint import load_weights_file

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BUNDLE_MODEL_ONNX_FILENAME",
    "BUNDLE_MODEL_WEIGHTS_FILENAME",
    "BUNDLE_SAFETENSORS_FILENAME",
    "LEARNER_CONFIG_FILENAME",
    "MODULES_DIRNAME",
    "TRANSFORMS_DIRNAME",
    "LearnerBundle",
    "get_learner_config_from_bundle_dir",
    "open_learner_bundle",
    "write_learner_bundle",
]

log = logging.getLogger(__name__)

_TASKS: tuple[type[LearnerConfig], ...] = (
    ClassificationLearnerConfig,
    ObjectDetectionLearnerConfig,
    RegressionLearnerConfig,
    SemanticSegmentationLearnerConfig,
)
_INCOMPRESSIBLE = (".pth", ".safetensors", ".onnx", ".data")


class LearnerBundle(LearnerBundleFiles):
    """An unpacked bundle whose code and weights can be loaded."""

    def module_dir(self, definition: Any) -> str | None:
        """Return the folder with the code of an external module, or None for none.

        Raises:
            UntrustedCodeError: The code is not the user's own, and not trusted.
        """
        from rastervision.pytorch_learner.torch_hub import get_hubconf_dir_from_cfg
        from rastervision.pytorch_learner.trust import check_trusted

        if definition is None:
            return None
        folder = get_hubconf_dir_from_cfg(definition, parent=os.path.join(self.folder, MODULES_DIRNAME))
        check_trusted(folder, "The model bundle")
        return folder

    def check_learner(self, learner_class: type, uri: str) -> None:
        """Raise an error if the bundle is not of the task of a learner.

        Args:
            learner_class: The learner.
            uri: The bundle, for the error.

        Raises:
            BundleError: It is not.
        """
        references = [f"rastervision.pytorch_learner:{c.__name__}" for c in learner_class.__mro__]
        expected = next((cfg for cfg in _TASKS if cfg.learner_class in references), None)
        if expected is not None:
            self.check_task(expected, uri)

    def load_weights(self) -> dict[str, Any]:
        """Return the state dict of the model.

        Raises:
            BundleError: The file is damaged.
        """
        try:
            return load_weights_file(self.weights_path)
        except NotReadableError as e:
            raise BundleError(f"The weights in the bundle are damaged. {e}") from e


def write_learner_bundle(
    uri: str,
    cfg: LearnerConfig,
    state_dict: Mapping[str, torch.Tensor],
    modules_dir: str | None = None,
    onnx_path: str | None = None,
) -> None:
    """Write a bundle; it appears at its URI once it is whole.

    Args:
        uri: Where to write the zip.
        cfg: The config of the learner.
        state_dict: Weights of the model; written to ``model.pth``, where 0.31 has them.
        modules_dir: Folder with the code of external modules.
        onnx_path: Exported model to include.

    Raises:
        NotWritableError: The disk is full, or ``uri`` cannot be written to.
    """
    from rastervision.pipeline.file_system.utils import is_local, upload_or_copy

    try:
        with tempfile.TemporaryDirectory(prefix="rv-bundle-") as tmp:
            config_path = os.path.join(tmp, LEARNER_CONFIG_FILENAME)
            cfg, functions = _take_transforms(cfg)
            cfg.to_file(config_path)
            weights_path = _write_weights(state_dict, tmp)
            files = {
                LEARNER_CONFIG_FILENAME: config_path,
                BUNDLE_MODEL_WEIGHTS_FILENAME: weights_path,
                **functions,
            }
            if onnx_path is not None:
                for path in sorted(Path(onnx_path).parent.glob(f"{Path(onnx_path).name}*")):
                    files[path.name] = str(path)
            for path in sorted(Path(modules_dir or tmp, "").rglob("*")) if modules_dir else ():
                if path.is_file() and not any(p.startswith(".tmp-") or p == "__pycache__" for p in path.parts):
                    files[f"{MODULES_DIRNAME}/{path.relative_to(modules_dir or '').as_posix()}"] = str(path)
            if is_local(uri):
                with replacing(uri) as target:
                    _zip(files, target)
            else:
                target = os.path.join(tmp, "bundle.zip")
                _zip(files, target)
                upload_or_copy(target, uri)
    except (OSError, RuntimeError) as e:
        raise NotWritableError(
            f"The model bundle {uri} cannot be written: {e}. Free space or correct output_uri."
        ) from e


def _take_transforms(cfg: LearnerConfig) -> tuple[LearnerConfig, dict[str, str]]:
    """Return the files with functions of transforms by their name in the bundle, and a config that names them so."""
    cfg = cfg.copy()
    members: dict[str, str] = {}
    for transform in cfg.data.get_custom_albumentations_transforms():
        path = Path(transform["lambda_transforms_path"])
        if not path.is_file():
            log.warning("%s is gone, so the model bundle lacks the functions that its transforms use", path)
            continue
        others = (f"{path.stem}-{n}{path.suffix}" for n in itertools.count(2))
        names = (f"{TRANSFORMS_DIRNAME}/{name}" for name in itertools.chain([path.name], others))
        member = next(name for name in names if members.get(name, str(path)) == str(path))
        members[member] = str(path)
        # the path that 0.31 has in memory
        transform["lambda_transforms_path"] = f"model-bundle/{member}"
    return cfg, members


def _write_weights(state_dict: Mapping[str, torch.Tensor], folder: str) -> str:
    # contiguous, so that others who read the file need not know of our layout in memory
    plain = {k: v.detach().cpu().contiguous() for k, v in state_dict.items()}
    path = os.path.join(folder, BUNDLE_MODEL_WEIGHTS_FILENAME)
    torch.save(plain, path)
    return path


def _zip(files: Mapping[str, str], target: str) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files.items():
            # weights hardly shrink: not worth the time
            kind = zipfile.ZIP_STORED if path.endswith(_INCOMPRESSIBLE) else zipfile.ZIP_DEFLATED
            archive.write(path, name, compress_type=kind)


def open_learner_bundle(uri: str, tmp_dir: str, cfg: LearnerConfig | None = None) -> LearnerBundle:
    """Get and unpack a bundle; see `LearnerBundle.open`."""
    return LearnerBundle.open(uri, tmp_dir, cfg)
