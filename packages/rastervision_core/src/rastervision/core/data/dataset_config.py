"""The data of a pipeline: its classes and its scenes for training, validation and testing."""

from __future__ import annotations

from collections import Counter
from math import ceil
from typing import TYPE_CHECKING, Self

from pydantic import Field

from rastervision.core.data.class_config import ClassConfig
from rastervision.core.data.scene import SceneConfig
from rastervision.pipeline.config import Config, ConfigError, register_config

if TYPE_CHECKING:
    from rastervision.core.rv_pipeline.rv_pipeline import RVPipelineConfig

__all__ = ["DatasetConfig"]

_SPLITS = ("train_scenes", "validation_scenes", "test_scenes")


@register_config("dataset")
class DatasetConfig(Config):
    """Configure the classes and scenes of a pipeline."""

    class_config: ClassConfig = Field(description="The classes.")
    train_scenes: list[SceneConfig] = Field(description="Scenes to train on.")
    validation_scenes: list[SceneConfig] = Field(description="Scenes to validate and predict on.")
    test_scenes: list[SceneConfig] = Field([], description="Further scenes to predict and evaluate on.")
    scene_groups: dict[str, set[str]] = Field(
        {},
        description="Names for sets of scene ids, on which statistics and evaluations are made. "
        "train_scenes, "
        "validation_scenes and test_scenes are added.",
    )

    @property
    def all_scenes(self) -> list[SceneConfig]:
        """Scenes for training, validation and testing, in this order."""
        return [*self.train_scenes, *self.validation_scenes, *self.test_scenes]

    def update(self, pipeline: RVPipelineConfig | None = None) -> None:
        """Fill the scene groups of the three splits, and what the scenes take from the pipeline."""
        for scene in self.all_scenes:
            scene.update(pipeline=pipeline)
        groups = {name: {scene.id for scene in getattr(self, name)} for name in _SPLITS}
        self.scene_groups = {**self.scene_groups, **groups}

    def validate_config(self) -> None:
        """Check that scene ids are unique and that scene groups name existing scenes.

        Raises:
            ConfigError: They are not, or do not.
        """
        for what, scenes in (
            ("train_scenes", self.train_scenes),
            ("validation_scenes and test_scenes", [*self.validation_scenes, *self.test_scenes]),
        ):
            counts = Counter(scene.id for scene in scenes)
            repeated = sorted(i for i, n in counts.items() if n > 1)
            if repeated:
                raise ConfigError(f"Scene ids must be unique, but {what} has {repeated} more than once.")
        known = {scene.id for scene in self.all_scenes}
        for name, group in self.scene_groups.items():
            if group - known:
                raise ConfigError(
                    f"scene_groups[{name!r}] has ids that no scene has: {sorted(group - known)}. "
                    "Correct them, or add the scenes."
                )

    def get_split_config(self, split_ind: int, num_splits: int) -> Self:
        """Return an independent copy with a part of the scenes of each list.

        Each list is cut into consecutive parts of ceil(n / num_splits) scenes; some of the last may be empty.
        """
        parts = {}
        for name in _SPLITS:
            scenes = getattr(self, name)
            size = ceil(len(scenes) / num_splits)
            parts[name] = scenes[split_ind * size : (split_ind + 1) * size]
        # only the part is copied: a dataset may have thousands of scenes
        return self.model_copy(update=parts).copy()
