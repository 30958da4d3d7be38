"""Read learner bundles, which hold a config, weights and perhaps an exported model. Needs no PyTorch.

A bundle may come from anybody: unpacking it runs nothing and writes nothing outside its folder. For writing one see
`rastervision.pytorch_learner.bundle`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Self

from rastervision.pipeline.errors import BundleError, MissingPluginError, NotReadableError, RegistryError
from rastervision.pytorch_backend.learner_config.learner import LearnerConfig

__all__ = [
    "BUNDLE_MODEL_ONNX_FILENAME",
    "BUNDLE_MODEL_WEIGHTS_FILENAME",
    "BUNDLE_SAFETENSORS_FILENAME",
    "LEARNER_CONFIG_FILENAME",
    "MODULES_DIRNAME",
    "TRANSFORMS_DIRNAME",
    "LearnerBundleFiles",
    "get_learner_config_from_bundle_dir",
]

BUNDLE_MODEL_WEIGHTS_FILENAME = "model.pth"
BUNDLE_MODEL_ONNX_FILENAME = "model.onnx"
BUNDLE_SAFETENSORS_FILENAME = "model.safetensors"
LEARNER_CONFIG_FILENAME = "learner-config.json"
# up to release 0.21, a pipeline that has nothing but the learner
OLD_CONFIG_FILENAME = "pipeline-config.json"
MODULES_DIRNAME = "modules"
# Python files with functions of transforms
TRANSFORMS_DIRNAME = "custom_albumentations_transforms"


@dataclass
class LearnerBundleFiles:
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

    @classmethod
    def open(cls, uri: str, tmp_dir: str, cfg: LearnerConfig | None = None) -> Self:
        """Get and unpack a bundle, of this release or of earlier ones.

        Args:
            uri: The zip.
            tmp_dir: Local folder; the bundle is unpacked to ``<tmp_dir>/model-bundle``.
            cfg: Config to use instead of the one in the bundle.

        Raises:
            NotReadableError: There is nothing at ``uri``.
            BundleError: It is not a bundle, is damaged, or is made to do harm.
        """
        from rastervision.pipeline.file_system.untrusted_zip import unzip_untrusted
        from rastervision.pipeline.file_system.utils import download_if_needed

        path = download_if_needed(uri, tmp_dir)
        if not os.path.isfile(path):
            raise NotReadableError(f"There is no model bundle at {uri}. Correct the URI, or train first.")
        folder = os.path.join(tmp_dir, "model-bundle")
        try:
            unzip_untrusted(path, folder)
        except NotReadableError as e:
            raise BundleError(f"{uri} is not a model bundle, or is damaged: {e}") from e
        names = (BUNDLE_SAFETENSORS_FILENAME, BUNDLE_MODEL_WEIGHTS_FILENAME)
        weights = [p for p in (os.path.join(folder, n) for n in names) if os.path.isfile(p)]
        if not weights:
            has_inner = os.path.isfile(os.path.join(folder, "model-bundle.zip"))
            hint = " A pipeline's bundle has it inside, as model-bundle.zip." if has_inner else ""
            raise BundleError(f"{uri} has no {' or '.join(names)}: it is not a learner's model bundle.{hint}")
        onnx_path = os.path.join(folder, BUNDLE_MODEL_ONNX_FILENAME)
        if cfg is None:
            cfg = get_learner_config_from_bundle_dir(folder)
            _find_transforms(cfg, os.path.join(folder, TRANSFORMS_DIRNAME))
        return cls(folder, cfg, weights[0], onnx_path if os.path.isfile(onnx_path) else None)

    def check_task(self, expected: type[LearnerConfig], uri: str) -> None:
        """Raise an error if the learner is of another task.

        Args:
            expected: Class of the learner configs of the task.
            uri: The bundle, for the error.

        Raises:
            BundleError: It is.
        """
        if not isinstance(self.cfg, expected):
            raise BundleError(
                f"{uri} is the bundle of a {self.cfg.registered_type_hint}, not of a {expected.registered_type_hint}. "
                "Use a bundle of the same task."
            )


def _find_transforms(cfg: LearnerConfig, folder: str) -> None:
    """Let a config name the files with functions of transforms that came with it; 0.31 wrote where they were once."""
    for transform in cfg.data.get_custom_albumentations_transforms():
        name = re.split(r"[/\\]", transform["lambda_transforms_path"])[-1]
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            transform["lambda_transforms_path"] = path


def get_learner_config_from_bundle_dir(model_bundle_dir: str) -> LearnerConfig:
    """Return the config in an unpacked bundle, brought up to date.

    Raises:
        BundleError: There is none, or it cannot be read or used.
        MissingPluginError: It needs a plugin that is not installed.
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
    except MissingPluginError:
        raise
    except (NotReadableError, TypeError, RecursionError) as e:
        raise BundleError(f"The config in the bundle {model_bundle_dir} is damaged: {e}.") from e
    except (RegistryError, ValueError) as e:  # pydantic's errors are ValueErrors
        raise BundleError(f"The config in the bundle {model_bundle_dir} is not valid: {e}") from e
    if not isinstance(cfg, LearnerConfig):
        raise BundleError(f"{path} is a {type(cfg).__name__}, not the config of a learner.")
    return cfg
