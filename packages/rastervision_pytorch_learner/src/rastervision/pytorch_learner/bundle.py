"""Learner bundles: one zip with the config, the weights and the code of external modules."""

from __future__ import annotations

import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rastervision.pipeline.errors import BundleError, NotReadableError, NotWritableError, RegistryError
from rastervision.pipeline.file_system.atomic import replacing
from rastervision.pytorch_backend.learner_config import LearnerConfig
from rastervision.pytorch_learner.checkpoint import load_weights_file

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BUNDLE_MODEL_ONNX_FILENAME",
    "BUNDLE_MODEL_WEIGHTS_FILENAME",
    "BUNDLE_SAFETENSORS_FILENAME",
    "MODULES_DIRNAME",
    "LearnerBundle",
    "get_learner_config_from_bundle_dir",
    "open_learner_bundle",
    "write_learner_bundle",
]

BUNDLE_MODEL_WEIGHTS_FILENAME = "model.pth"
BUNDLE_MODEL_ONNX_FILENAME = "model.onnx"
BUNDLE_SAFETENSORS_FILENAME = "model.safetensors"
LEARNER_CONFIG_FILENAME = "learner-config.json"
# up to release 0.21, a pipeline that has nothing but the learner
OLD_CONFIG_FILENAME = "pipeline-config.json"
MODULES_DIRNAME = "modules"

_INCOMPRESSIBLE = (".pth", ".safetensors", ".onnx", ".data")


@dataclass
class LearnerBundle:
    """An unpacked bundle.

    Args:
        folder: Local folder with its files.
        cfg: The config of the learner.
        weights_path: File of weights: safetensors if there is one.
        onnx_path: The exported model, if there is one.
    """

    folder: str
    cfg: LearnerConfig
    weights_path: str
    onnx_path: str | None

    def module_dir(self, definition: Any) -> str | None:
        """Return the folder with the code of an external module, or None for none."""
        from rastervision.pytorch_learner.torch_hub import get_hubconf_dir_from_cfg

        if definition is None:
            return None
        return get_hubconf_dir_from_cfg(definition, parent=os.path.join(self.folder, MODULES_DIRNAME))

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
        state_dict: Weights of the model; written as safetensors and as a ``torch.save`` file.
        modules_dir: Folder with the code of external modules.
        onnx_path: Exported model to include.

    Raises:
        NotWritableError: The disk is full, or ``uri`` cannot be written to.
    """
    from rastervision.pipeline.file_system.utils import is_local, upload_or_copy

    try:
        with tempfile.TemporaryDirectory(prefix="rv-bundle-") as tmp:
            config_path = os.path.join(tmp, LEARNER_CONFIG_FILENAME)
            cfg.to_file(config_path)
            files = {LEARNER_CONFIG_FILENAME: config_path, **_write_weights(state_dict, tmp)}
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


def _write_weights(state_dict: Mapping[str, torch.Tensor], folder: str) -> dict[str, str]:
    from safetensors.torch import save_file

    # tensors that share memory are written twice: safetensors has no sharing
    plain = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in state_dict.items()}
    files = {n: os.path.join(folder, n) for n in (BUNDLE_SAFETENSORS_FILENAME, BUNDLE_MODEL_WEIGHTS_FILENAME)}
    save_file(plain, files[BUNDLE_SAFETENSORS_FILENAME], metadata={"format": "pt"})
    torch.save(plain, files[BUNDLE_MODEL_WEIGHTS_FILENAME])
    return files


def _zip(files: Mapping[str, str], target: str) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files.items():
            # weights hardly shrink: not worth the time
            kind = zipfile.ZIP_STORED if path.endswith(_INCOMPRESSIBLE) else zipfile.ZIP_DEFLATED
            archive.write(path, name, compress_type=kind)


def open_learner_bundle(uri: str, tmp_dir: str, cfg: LearnerConfig | None = None) -> LearnerBundle:
    """Get and unpack a bundle, of this release or of earlier ones.

    Args:
        uri: The zip.
        tmp_dir: Local folder; the bundle is unpacked to ``<tmp_dir>/model-bundle``.
        cfg: Config to use instead of the one in the bundle.

    Raises:
        NotReadableError: There is nothing at ``uri``.
        BundleError: It is not a bundle, or is damaged.
    """
    from rastervision.pipeline.file_system.utils import download_if_needed, unzip

    path = download_if_needed(uri, tmp_dir)
    if not os.path.isfile(path):
        raise NotReadableError(f"There is no model bundle at {uri}. Correct the URI, or train first.")
    folder = os.path.join(tmp_dir, "model-bundle")
    try:
        unzip(path, folder)
    except (NotReadableError, zipfile.BadZipFile, EOFError, OSError) as e:
        raise BundleError(f"{uri} is not a model bundle, or is damaged: {e}") from e
    names = (BUNDLE_SAFETENSORS_FILENAME, BUNDLE_MODEL_WEIGHTS_FILENAME)
    weights = [p for p in (os.path.join(folder, n) for n in names) if os.path.isfile(p)]
    if not weights:
        raise BundleError(f"{uri} has no {' or '.join(names)}: it is not a learner's model bundle.")
    onnx_path = os.path.join(folder, BUNDLE_MODEL_ONNX_FILENAME)
    if cfg is None:
        cfg = get_learner_config_from_bundle_dir(folder)
    return LearnerBundle(folder, cfg, weights[0], onnx_path if os.path.isfile(onnx_path) else None)


def get_learner_config_from_bundle_dir(model_bundle_dir: str) -> LearnerConfig:
    """Return the config in an unpacked bundle, brought up to date.

    Raises:
        BundleError: There is none, or it cannot be read or used.
    """
    from rastervision.pipeline.file_system.utils import file_to_json

    paths = [os.path.join(model_bundle_dir, name) for name in (LEARNER_CONFIG_FILENAME, OLD_CONFIG_FILENAME)]
    path = next((p for p in paths if os.path.isfile(p)), None)
    if path is None:
        raise BundleError(f"{model_bundle_dir} has no {LEARNER_CONFIG_FILENAME}: it is not a learner's model bundle.")
    try:
        content = file_to_json(path)
        if isinstance(content, dict) and "learner" in content:
            content = {**content["learner"], "plugin_versions": content.get("plugin_versions")}
        cfg = LearnerConfig.from_dict(content)
    except (NotReadableError, TypeError) as e:
        raise BundleError(f"The config in the bundle {model_bundle_dir} is damaged: {e}.") from e
    except (RegistryError, ValueError) as e:  # pydantic's errors are ValueErrors
        raise BundleError(f"The config in the bundle {model_bundle_dir} is not valid: {e}") from e
    if not isinstance(cfg, LearnerConfig):
        raise BundleError(f"{path} is a {type(cfg).__name__}, not the config of a learner.")
    return cfg
