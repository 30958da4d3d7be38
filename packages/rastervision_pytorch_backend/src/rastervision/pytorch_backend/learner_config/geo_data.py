"""Training data read from the scenes themselves, without chips on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from rastervision.core.data.dataset_config import DatasetConfig
from rastervision.core.rv_pipeline.chip_options import WindowSamplingConfig
from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.lazy import load_object
from rastervision.pytorch_backend.learner_config.data import DATA_MODULE, DataConfig
from rastervision.pytorch_backend.learner_config.model import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rastervision.core.data.scene import Scene, SceneConfig

__all__ = ["GeoDataConfig"]


@register_config("geo_data", plugin=PLUGIN)
class GeoDataConfig(DataConfig):
    """Configure data sets that read windows of scenes."""

    scene_dataset: DatasetConfig | None = Field(
        None, description="Scenes of each split; those of the pipeline if not given."
    )
    sampling: WindowSamplingConfig | dict[str, WindowSamplingConfig] = Field(
        {},
        description="Which windows are read: one config for all scenes, or one per scene id. "
        "That of the pipeline's chip_options if not given.",
    )

    @model_validator(mode="after")
    def _classes_of_the_scenes(self) -> Self:
        if self.class_config is None and self.scene_dataset is not None:
            # not an assignment: that would run this validator again
            self.__dict__["class_config"] = self.scene_dataset.class_config
        return self

    @model_validator(mode="after")
    def _sampling_for_every_scene(self) -> Self:
        if isinstance(self.sampling, dict) and self.sampling and self.scene_dataset is not None:
            for scene in self.scene_dataset.all_scenes:
                if scene.id not in self.sampling:
                    raise ConfigError(
                        f"sampling has no entry for scene {scene.id!r}. Add one, or give one config for all scenes."
                    )
        return self

    def validate_config(self) -> None:
        """Check that there is something to sample from."""
        super().validate_config()
        if self.scene_dataset is not None and not self.sampling:
            raise ConfigError("data.sampling is empty. Set it to a WindowSamplingConfig, or to one per scene id.")

    def get_sampling(self, scene_id: str) -> WindowSamplingConfig:
        """Return which windows of a scene are read.

        Raises:
            ConfigError: ``sampling`` has no entry for the scene.
        """
        if isinstance(self.sampling, WindowSamplingConfig):
            return self.sampling
        if scene_id not in self.sampling:
            raise ConfigError(f"data.sampling has no entry for scene {scene_id!r}. Add one for this id.")
        return self.sampling[scene_id]

    def build_scenes(self, scene_configs: Iterable[SceneConfig], tmp_dir: str | None = None) -> list[Scene]:
        """Build scenes with the classes of this config."""
        class_config = self._needed_class_config()
        return [scene_config.build(class_config, tmp_dir) for scene_config in scene_configs]

    def build(self, tmp_dir: str | None = None, for_chipping: bool = False) -> tuple[Any, Any, Any]:
        """Build the training, validation and test data sets.

        Args:
            tmp_dir: Local folder for temporary files.
            for_chipping: Give chips as they are in the source: not augmented and not normalised.
        """
        return load_object(f"{DATA_MODULE}:build_datasets")(self, tmp_dir, for_chipping=for_chipping)

    def scene_to_dataset(self, scene: Scene, transform: Any = None, for_chipping: bool = False) -> Any:
        """Build the data set of one scene."""
        build = load_object(f"{DATA_MODULE}:scene_to_dataset")
        return build(self, scene, transform=transform, for_chipping=for_chipping)
