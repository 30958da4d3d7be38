"""Semantic segmentation: pairs of chip and label array, and a learner that gives each pixel a class."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from pydantic import Field

from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_backend.learner_config.semantic_segmentation import (
    SemanticSegmentationLearnerConfig,
    SemanticSegmentationModelConfig,
)
from rastervision.pytorch_backend.pytorch_learner_backend import (
    PyTorchLearnerBackend,
    PyTorchLearnerBackendConfig,
)
from rastervision.pytorch_backend.sample_writer import PyTorchLearnerSampleWriter, encode_chip

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rastervision.core.data_sample import DataSample
    from rastervision.core.rv_pipeline.rv_pipeline import RVPipelineConfig
    from rastervision.pytorch_backend.sample_writer import EncodedSample

__all__ = [
    "PyTorchSemanticSegmentation",
    "PyTorchSemanticSegmentationConfig",
    "PyTorchSemanticSegmentationSampleWriter",
]

_MAX_CLASSES = 2**16


@register_config("pytorch_semantic_segmentation_backend")
class PyTorchSemanticSegmentationConfig(PyTorchLearnerBackendConfig):
    """Configure a `PyTorchSemanticSegmentation`."""

    model: SemanticSegmentationModelConfig = Field(description="The model.")

    def get_learner_config(self, pipeline: RVPipelineConfig | None) -> SemanticSegmentationLearnerConfig:
        """Return the config of the learner, which writes to the pipeline's ``train_uri``."""
        return SemanticSegmentationLearnerConfig(**self._learner_fields(pipeline))

    def build(self, pipeline: RVPipelineConfig | None, tmp_dir: str) -> PyTorchSemanticSegmentation:
        """Build the backend of a pipeline; ``tmp_dir`` is a local folder for temporary files."""
        learner = self.get_learner_config(pipeline)
        return PyTorchSemanticSegmentation(cast("RVPipelineConfig", pipeline), learner, tmp_dir)


class PyTorchSemanticSegmentation(PyTorchLearnerBackend):
    """The backend for semantic segmentation."""

    predict_function: ClassVar[str | None] = "rastervision.pytorch_learner.predict:predict_scene_ss"

    def get_sample_writer(self) -> PyTorchSemanticSegmentationSampleWriter:
        """Return a writer of chips to the pipeline's ``chip_uri``."""
        return self._make_writer(PyTorchSemanticSegmentationSampleWriter)


class PyTorchSemanticSegmentationSampleWriter(PyTorchLearnerSampleWriter):
    """Writes ``<split>/img/<name>.png`` (or npy) and ``<split>/labels/<name>.png`` for each sample.

    Labels are 8-bit grey, or 16-bit grey if there are more than 256 classes.
    """

    def get_label_path(self, sample: DataSample, label_arr: NDArray[Any]) -> str:
        """Return where the label of a sample goes, below ``sample_dir``."""
        name = f"{self.get_stem(sample)}.{self.get_image_ext(label_arr)}"
        return os.path.join(self.sample_dir, sample.split or "", "labels", name)

    def encode_sample(self, sample: DataSample) -> EncodedSample:
        """Return the image file and the label file of a sample; may be called from several threads.

        Raises:
            ConfigError: The label does not fit the chip or the classes.
        """
        self._check_split(sample)
        label_arr = self._checked_label(sample)
        files = []
        for path, arr in (
            (self.get_image_path(sample), sample.chip),
            (self.get_label_path(sample, label_arr), label_arr),
        ):
            files.append((self._member(path), encode_chip(arr, path.rpartition(".")[2])))
        return files

    def _checked_label(self, sample: DataSample) -> NDArray[np.uint8 | np.uint16]:
        label = np.asarray(sample.label)
        where = f"scene {sample.scene_id!r}" + (f", window {tuple(sample.window)}" if sample.window is not None else "")
        if label.shape != sample.chip.shape[-3:-1]:
            raise ConfigError(
                f"{where}: the label array is {label.shape} but the chip is {sample.chip.shape[-3:-1]}. "
                "A label source for semantic segmentation gives a class id for each pixel."
            )
        names = self.class_config.names
        lowest, highest = int(label.min()), int(label.max())
        if lowest < 0 or highest >= min(len(names), _MAX_CLASSES):
            bad = lowest if lowest < 0 else highest
            raise ConfigError(
                f"{where}: the labels have the class id {bad}, but class_config has {len(names)} classes "
                f"(0 to {len(names) - 1}). Correct the labels, or add the class."
            )
        return label.astype(np.uint8 if len(names) <= 2**8 else np.uint16, copy=False)
