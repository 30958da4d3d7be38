"""Backends do what depends on a machine learning library: write chips, train, predict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

from rastervision.pipeline.config import Config, register_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.core.data.dataset_config import DatasetConfig
    from rastervision.core.data.label.labels import Labels
    from rastervision.core.data.scene import Scene
    from rastervision.core.data_sample import DataSample
    from rastervision.core.rv_pipeline.chip_options import ChipOptions
    from rastervision.core.rv_pipeline.rv_pipeline import PredictOptions, RVPipelineConfig

__all__ = ["Backend", "BackendConfig", "SampleWriter"]


@register_config("backend")
class BackendConfig(Config):
    """Configure a `Backend`."""

    #: Whether the backend heeds `Scene.part`, so that a scene is worth being predicted in parts.
    predicts_parts: ClassVar[bool] = False

    def command_config(self, command: str) -> Any:
        """Return the part of this config that a command depends on, as JSON-compatible values; here all of it."""
        return self.json()

    def build(self, pipeline: RVPipelineConfig, tmp_dir: str) -> Backend:
        """Build the backend of a pipeline; ``tmp_dir`` is a local folder for temporary files."""
        raise NotImplementedError

    def get_bundle_filenames(self) -> list[str]:
        """Return the names of the files in ``train_uri`` that the model bundle needs."""
        raise NotImplementedError

    def filter_commands(self, commands: list[str]) -> list[str]:
        """Return the commands of a pipeline that this backend needs, in order."""
        return commands

    def update(self, pipeline: RVPipelineConfig | None = None) -> None:
        """Fill the fields that depend on the pipeline."""


class SampleWriter(AbstractContextManager["SampleWriter"], ABC):
    """Writes training chips to a file or folder; a context manager."""

    @abstractmethod
    def write_sample(self, sample: DataSample) -> None:
        """Write one chip with its label."""


class Backend(ABC):
    """What a pipeline needs of a machine learning library."""

    @abstractmethod
    def get_sample_writer(self) -> SampleWriter:
        """Return a writer of training chips."""

    @abstractmethod
    def chip_dataset(self, dataset: DatasetConfig, chip_options: ChipOptions) -> Sequence[str] | None:
        """Write training chips of the scenes of a dataset; return the URIs of the files, or None."""

    @abstractmethod
    def train(self, source_bundle_uri: str | None = None) -> None:
        """Train a model and save it; start from the weights of a bundle if one is given."""

    @abstractmethod
    def load_model(self, uri: str | None = None) -> None:
        """Load the trained model, from a bundle at ``uri`` or from where training saved it."""

    @abstractmethod
    def predict_scene(self, scene: Scene, predict_options: PredictOptions) -> Labels:
        """Return the predicted labels of a scene; those of ``scene.part`` suffice if that is set."""
