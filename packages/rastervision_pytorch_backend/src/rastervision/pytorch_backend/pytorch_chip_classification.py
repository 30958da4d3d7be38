"""Chip classification: chips in a folder per class, and a learner that gives each chip a class."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar, cast

from pydantic import Field

from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_backend.learner_config.classification import (
    ClassificationLearnerConfig,
    ClassificationModelConfig,
)
from rastervision.pytorch_backend.pytorch_learner_backend import (
    PyTorchLearnerBackend,
    PyTorchLearnerBackendConfig,
)
from rastervision.pytorch_backend.sample_writer import PyTorchLearnerSampleWriter, encode_chip

if TYPE_CHECKING:
    from rastervision.core.data_sample import DataSample
    from rastervision.core.rv_pipeline.rv_pipeline import RVPipelineConfig
    from rastervision.pytorch_backend.sample_writer import EncodedSample

__all__ = [
    "PyTorchChipClassification",
    "PyTorchChipClassificationConfig",
    "PyTorchChipClassificationSampleWriter",
]


@register_config("pytorch_chip_classification_backend")
class PyTorchChipClassificationConfig(PyTorchLearnerBackendConfig):
    """Configure a `PyTorchChipClassification`."""

    model: ClassificationModelConfig = Field(description="The model.")

    def get_learner_config(self, pipeline: RVPipelineConfig | None) -> ClassificationLearnerConfig:
        """Return the config of the learner, which writes to the pipeline's ``train_uri``."""
        return ClassificationLearnerConfig(**self._learner_fields(pipeline))

    def build(self, pipeline: RVPipelineConfig | None, tmp_dir: str) -> PyTorchChipClassification:
        """Build the backend of a pipeline; ``tmp_dir`` is a local folder for temporary files."""
        learner = self.get_learner_config(pipeline)
        return PyTorchChipClassification(cast("RVPipelineConfig", pipeline), learner, tmp_dir)


class PyTorchChipClassification(PyTorchLearnerBackend):
    """The backend for chip classification."""

    predict_function: ClassVar[str | None] = "rastervision.pytorch_learner.predict_chips:predict_scene_cc"

    def get_sample_writer(self) -> PyTorchChipClassificationSampleWriter:
        """Return a writer of chips to the pipeline's ``chip_uri``."""
        return self._make_writer(PyTorchChipClassificationSampleWriter)


class PyTorchChipClassificationSampleWriter(PyTorchLearnerSampleWriter):
    """Writes ``<split>/<class name>/<name>.png`` (or npy) for each sample."""

    def get_image_path(self, sample: DataSample) -> str:
        """Return where the chip of a sample goes, below ``sample_dir``.

        Raises:
            ConfigError: The label is not the id of a class.
        """
        names = self.class_config.names
        class_id = sample.label
        if class_id is None or not 0 <= int(class_id) < len(names):
            where = f"scene {sample.scene_id!r}"
            where += f", window {tuple(sample.window)}" if sample.window is not None else ""
            raise ConfigError(
                f"{where}: the label is {class_id}, but class_config has {len(names)} classes (0 to "
                f"{len(names) - 1}). Correct the labels, or add the class."
            )
        name = f"{self.get_stem(sample)}.{self.get_image_ext(sample.chip)}"
        return os.path.join(self.sample_dir, sample.split or "", names[int(class_id)], name)

    def encode_sample(self, sample: DataSample) -> EncodedSample:
        """Return the image file of a sample; may be called from several threads.

        Raises:
            ConfigError: The label is not the id of a class.
        """
        self._check_split(sample)
        path = self.get_image_path(sample)
        return [(self._member(path), encode_chip(sample.chip, path.rpartition(".")[2]))]
