"""The data of a pipeline: its classes and its scenes for training, validation and testing."""

from __future__ import annotations

from collections import Counter
from math import ceil
from typing import TYPE_CHECKING, Self

from pydantic import Field, field_serializer

from rastervision.core.data.class_config import ClassConfig
from rastervision.core.data.scene import SceneConfig
from rastervision.pipeline.config import Config, ConfigError, register_config
from rastervision.pipeline.config_tree import own

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rastervision.core.rv_pipeline.rv_pipeline import RVPipelineConfig
    from rastervision.pipeline.io_report import CommandIODefinition

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

    @field_serializer("scene_groups", when_used="json")
    def _sorted_groups(self, groups: dict[str, set[str]]) -> dict[str, list[str]]:
        """Save groups in an order that does not change from one process to the next."""
        return {name: sorted(ids) for name, ids in groups.items()}

    @property
    def all_scenes(self) -> list[SceneConfig]:
        """Scenes for training, validation and testing, in this order."""
        return [*self.train_scenes, *self.validation_scenes, *self.test_scenes]

    def update(self, pipeline: RVPipelineConfig | None = None) -> None:
        """Fill the scene groups of the three splits, and what the scenes take from the pipeline."""
        for name in _SPLITS:
            for scene in own(self, name):
                scene.update(pipeline=pipeline)
        groups = {name: {scene.id for scene in getattr(self, name)} for name in _SPLITS}
        self.__dict__["scene_groups"] = {**self.scene_groups, **groups}  # an assignment would look at each id

    def validate_config(self) -> None:
        """Check that scene ids are unique and that scene groups name existing scenes.

        Raises:
            ConfigError: They are not, or do not.
        """
        known = _unique_ids("train_scenes", self.train_scenes)
        # training scenes may be predicted on too, under the same id
        known |= _unique_ids("validation_scenes and test_scenes", [*self.validation_scenes, *self.test_scenes])
        for name, group in self.scene_groups.items():
            if not group <= known:
                raise ConfigError(
                    f"scene_groups[{name!r}] has ids that no scene has: {sorted(group - known)}. "
                    "Correct them, or add the scenes."
                )

    def validate_loaded(self) -> None:
        """Check that no list of scenes has an id twice.

        Raises:
            ConfigError: One has.
        """
        for name in _SPLITS:
            _unique_ids(name, getattr(self, name))

    def get_groups(self) -> Iterator[tuple[str, list[SceneConfig]]]:
        """Yield name and scenes of each scene group that has any, in the order of the dataset."""
        for name in self.scene_groups:
            # one id may name a training and a validation scene: the group of a split means the scene of that split
            scenes = self._group(name, getattr(self, name) if name in _SPLITS else self.all_scenes)
            if scenes:
                yield name, scenes

    def get_evaluated_groups(self) -> Iterator[tuple[str, list[SceneConfig]]]:
        """Yield name and scenes of each group that is evaluated: scenes that are predicted and have labels."""
        predicted = self.get_command_scenes("predict")
        for name in self.scene_groups:
            if name == "train_scenes":
                continue
            scenes = self._group(name, getattr(self, name) if name in _SPLITS else predicted)
            labelled = [s for s in scenes if s.label_source is not None]
            if labelled:
                yield name, labelled

    def _group(self, name: str, scenes: Sequence[SceneConfig]) -> list[SceneConfig]:
        ids = self.scene_groups[name]
        unique = {s.id: s for s in reversed(scenes) if s.id in ids}
        return list(reversed(unique.values()))

    def get_command_scenes(self, command: str) -> list[SceneConfig]:
        """Return the scenes that a command of a pipeline reads; all of them for commands of plugins."""
        if command == "analyze":
            grouped = set().union(*self.scene_groups.values())
            return [s for s in self.all_scenes if s.id in grouped]
        if command == "chip":
            labelled = (s for s in self.test_scenes if s.label_source is not None)
            return [*self.train_scenes, *self.validation_scenes, *labelled]
        if command == "predict":
            return [*self.validation_scenes, *self.test_scenes]
        if command == "eval":
            # by identity: the ids of a dataset that is not validated yet may repeat
            found = {id(s): s for _, scenes in self.get_evaluated_groups() for s in scenes}
            return list(found.values())
        return [] if command == "bundle" else self.all_scenes

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report the files of the scenes that take part in a command."""
        for scene in self.get_command_scenes(command):
            scene.report_io(command, io_def)

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


def _unique_ids(what: str, scenes: Sequence[SceneConfig]) -> set[str]:
    ids = {scene.id for scene in scenes}
    if len(ids) < len(scenes):
        counts = Counter(scene.id for scene in scenes)
        repeated = sorted(i for i, n in counts.items() if n > 1)
        raise ConfigError(f"Scene ids must be unique, but {what} has {repeated} more than once.")
    return ids
