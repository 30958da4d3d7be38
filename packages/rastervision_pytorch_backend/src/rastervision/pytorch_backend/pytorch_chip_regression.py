"""Chip regression: chips with a table of targets, and a learner that gives each chip numbers."""

from __future__ import annotations

import csv
import io
import math
import os
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
from pydantic import Field

from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_backend.learner_config.regression import RegressionLearnerConfig, RegressionModelConfig
from rastervision.pytorch_backend.pytorch_learner_backend import (
    PyTorchLearnerBackend,
    PyTorchLearnerBackendConfig,
)
from rastervision.pytorch_backend.sample_writer import PyTorchLearnerSampleWriter, encode_chip

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data_sample import DataSample
    from rastervision.core.rv_pipeline.rv_pipeline import RVPipelineConfig
    from rastervision.pytorch_backend.sample_writer import EncodedSample

__all__ = ["PyTorchChipRegression", "PyTorchChipRegressionConfig", "PyTorchChipRegressionSampleWriter"]

_LABELS = "labels.csv"


@register_config("pytorch_chip_regression_backend")
class PyTorchChipRegressionConfig(PyTorchLearnerBackendConfig):
    """Configure a `PyTorchChipRegression`."""

    model: RegressionModelConfig = Field(description="The model.")

    def get_learner_config(self, pipeline: RVPipelineConfig | None) -> RegressionLearnerConfig:
        """Return the config of the learner, which writes to the pipeline's ``train_uri``."""
        return RegressionLearnerConfig(**self._learner_fields(pipeline))

    def build(self, pipeline: RVPipelineConfig | None, tmp_dir: str) -> PyTorchChipRegression:
        """Build the backend of a pipeline; ``tmp_dir`` is a local folder for temporary files."""
        learner = self.get_learner_config(pipeline)
        return PyTorchChipRegression(cast("RVPipelineConfig", pipeline), learner, tmp_dir)


class PyTorchChipRegression(PyTorchLearnerBackend):
    """The backend for chip regression."""

    predict_function: ClassVar[str | None] = "rastervision.pytorch_learner.predict_chips:predict_scene_regression"

    def get_sample_writer(self) -> PyTorchChipRegressionSampleWriter:
        """Return a writer of chips to the pipeline's ``chip_uri``."""
        return self._make_writer(PyTorchChipRegressionSampleWriter)


class PyTorchChipRegressionSampleWriter(PyTorchLearnerSampleWriter):
    """Writes ``<split>/img/<name>.png`` (or npy) for each sample, and ``<split>/labels.csv`` with their targets.

    Attributes:
        rows: Rows of the table of each split: name of the image, and its targets.
    """

    def __init__(self, output_uri: str, class_config: ClassConfig, tmp_dir: str) -> None:
        super().__init__(output_uri, class_config, tmp_dir)
        self.rows: dict[str, list[list[str]]] = {}

    def encode_sample(self, sample: DataSample) -> EncodedSample:
        """Return the image file of a sample, and its part of the table; may be called from several threads.

        Raises:
            ConfigError: There is not a number for each target.
        """
        self._check_split(sample)
        names = self.class_config.names
        values = np.ravel(np.asarray(np.nan if sample.label is None else sample.label, np.float64)).tolist()
        if len(values) != len(names):
            where = f"scene {sample.scene_id!r}"
            where += f", window {tuple(sample.window)}" if sample.window is not None else ""
            raise ConfigError(
                f"{where}: the label has {len(values)} numbers, but class_config names {len(names)} targets "
                f"({', '.join(names)}). Use a label source for chip regression, or correct the class config."
            )
        path = self.get_image_path(sample)
        cells = ["" if math.isnan(value) else repr(value) for value in values]
        image = encode_chip(sample.chip, path.rpartition(".")[2])
        return [(self._member(path), image), (f"{sample.split}/{_LABELS}", _to_csv([cells]))]

    def add_sample(self, files: EncodedSample, scene_id: str | None = None) -> list[str]:
        """Add the image of a sample, and its targets to the table of the split."""
        image, (labels_path, cells) = files
        paths = super().add_sample([image], scene_id)
        row = next(csv.reader(io.StringIO(cells.decode())))
        self.rows.setdefault(labels_path.partition("/")[0], []).append([os.path.basename(paths[0]), *row])
        return paths

    def _finish(self) -> None:
        for split, rows in self.rows.items():
            folder = os.path.join(self.sample_dir, split)
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, _LABELS), "wb") as f:
                f.write(_to_csv([["file", *self.class_config.names], *rows]))
        super()._finish()


def _to_csv(rows: Iterable[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
