"""A backend without machine learning, so that a whole pipeline can run in a test."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from rastervision.core.backend.backend import Backend, BackendConfig
from rastervision.pipeline.errors import NotReadableError

if TYPE_CHECKING:
    from rastervision.core.backend.backend import SampleWriter
    from rastervision.core.data.dataset_config import DatasetConfig
    from rastervision.core.data.label.labels import Labels
    from rastervision.core.data.scene import Scene
    from rastervision.core.rv_pipeline.chip_options import ChipOptions
    from rastervision.core.rv_pipeline.rv_pipeline import PredictOptions, RVPipelineConfig

__all__ = ["StubBackend", "StubBackendConfig"]

MODEL_BUNDLE = "model-bundle.zip"


class StubBackendConfig(BackendConfig):
    """Base of the configs of backends of tests, which say how they predict; subclasses are registered.

    Example:
        >>> from rastervision.core.data import ChipClassificationLabels
        >>> from rastervision.pipeline.config import register_config
        >>> @register_config("doc.all_background")
        ... class AllBackgroundConfig(StubBackendConfig):
        ...     def predict_scene(self, scene, predict_options):
        ...         windows = scene.extent.get_windows(predict_options.chip_sz, predict_options.stride)
        ...         return ChipClassificationLabels({window: (0, None) for window in windows})
        >>> AllBackgroundConfig().filter_commands(["chip", "train", "predict"])
        ['train', 'predict']
    """

    @override
    def build(self, pipeline: RVPipelineConfig, tmp_dir: str) -> StubBackend:
        return StubBackend(self, pipeline)

    @override
    def get_bundle_filenames(self) -> list[str]:
        return [MODEL_BUNDLE]

    @override
    def filter_commands(self, commands: list[str]) -> list[str]:
        return [command for command in commands if command != "chip"]

    def predict_scene(self, scene: Scene, predict_options: PredictOptions) -> Labels:
        """Return labels in pixels of the scene's extent."""
        raise NotImplementedError


class StubBackend(Backend):
    """Predicts as its config says; its training writes a bundle without which it does not predict.

    Args:
        config: How to predict.
        pipeline: The pipeline; its ``train_uri`` is a local folder.
    """

    def __init__(self, config: StubBackendConfig, pipeline: RVPipelineConfig) -> None:
        self.config = config
        self.pipeline = pipeline
        self.is_loaded = False

    def get_sample_writer(self) -> SampleWriter:
        """Not there: no chips are written."""
        raise NotImplementedError

    def chip_dataset(self, dataset: DatasetConfig, chip_options: ChipOptions) -> None:
        """Not there: no chips are written."""
        raise NotImplementedError

    def train(self, source_bundle_uri: str | None = None) -> None:
        """Write an empty bundle."""
        folder = Path(str(self.pipeline.train_uri))
        folder.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(folder / MODEL_BUNDLE, "w") as archive:
            archive.writestr("model.txt", "nothing to learn")

    def load_model(self, uri: str | None = None) -> None:
        """Check that the bundle is there."""
        path = Path(uri or f"{self.pipeline.train_uri}/{MODEL_BUNDLE}")
        if not zipfile.is_zipfile(path):
            raise NotReadableError(f"There is no model bundle at {path}.")
        self.is_loaded = True

    def predict_scene(self, scene: Scene, predict_options: PredictOptions) -> Any:
        """Return what the config predicts."""
        assert self.is_loaded, "the model was not loaded before predicting"
        return self.config.predict_scene(scene, predict_options)
