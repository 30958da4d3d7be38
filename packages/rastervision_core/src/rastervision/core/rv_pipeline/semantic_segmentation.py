"""Semantic segmentation: give each pixel a class."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from rastervision.core.data.label_store.semantic_segmentation_label_store import (
    SemanticSegmentationLabelStoreConfig,
)
from rastervision.core.rv_pipeline.chip_options import ChipOptions
from rastervision.core.rv_pipeline.rv_pipeline import PredictOptions, RVPipeline, RVPipelineConfig
from rastervision.core.utils.types import NonNegInt, Proportion
from rastervision.pipeline.config import ConfigError, register_config
from rastervision.pipeline.config_tree import own

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rastervision.core.data.dataset_config import DatasetConfig
    from rastervision.core.data.label.labels import Labels
    from rastervision.core.data.scene import Scene
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = [
    "SemanticSegmentation",
    "SemanticSegmentationChipOptions",
    "SemanticSegmentationConfig",
    "SemanticSegmentationPredictOptions",
]

log = logging.getLogger(__name__)


@register_config("semantic_segmentation_chip_options")
class SemanticSegmentationChipOptions(ChipOptions):
    """Configure which chips are written for semantic segmentation."""

    target_class_ids: list[int] | None = Field(
        None, description="Classes of interest: chips with too few of their pixels may be left out."
    )
    negative_survival_prob: Proportion = Field(
        1.0, description="Probability of keeping a chip with too few pixels of the target classes."
    )
    target_count_threshold: NonNegInt = Field(
        1000, description="Number of pixels of the target classes from which a chip is always kept."
    )

    def keep_chip(self, chip: NDArray[Any], label: NDArray[Any], rng: np.random.Generator | None = None) -> bool:
        """Return whether a chip is written: enough data, and enough target pixels or a lucky draw."""
        if not super().keep_chip(chip, label, rng):
            return False
        if self.target_class_ids is None or self.enough_target_pixels(label):
            return True
        rng = np.random.default_rng() if rng is None else rng
        return bool(rng.random() < self.negative_survival_prob)

    def enough_target_pixels(self, label_arr: NDArray[Any]) -> bool:
        """Return whether the labels have at least ``target_count_threshold`` pixels of the target classes."""
        return bool(np.isin(label_arr, self.target_class_ids or []).sum() >= self.target_count_threshold)


@register_config("semantic_segmentation_predict_options")
class SemanticSegmentationPredictOptions(PredictOptions):
    """Configure how a scene is predicted."""

    crop_sz: NonNegInt | Literal["auto"] | None = Field(
        None,
        description="Pixels at the edges of each window whose prediction is not used; the scene is padded "
        "to make up "
        'for it. "auto" is half of the overlap, (chip_sz - stride) // 2.',
    )
    mask_nodata: bool = Field(True, description="Whether pixels where the imagery has no data get the null class.")

    @model_validator(mode="after")
    def set_auto_crop_sz(self) -> Self:
        """Replace "auto" by the number, and check that something is left of the windows."""
        stride = self.stride if self.stride is not None else self.chip_sz
        if self.crop_sz == "auto":
            if (self.chip_sz - stride) % 2 == 1:
                log.warning(
                    "crop_sz='auto' with an odd overlap (chip_sz=%d, stride=%d): a row and a column of "
                    "pixels still "
                    "overlap after cropping",
                    self.chip_sz,
                    stride,
                )
            self.__dict__["crop_sz"] = (self.chip_sz - stride) // 2
        crop_sz = self.crop_sz or 0
        if isinstance(crop_sz, int) and self.chip_sz - 2 * crop_sz < stride:
            raise ConfigError(
                f"crop_sz={crop_sz} leaves {max(self.chip_sz - 2 * crop_sz, 0)} of chip_sz={self.chip_sz} "
                "pixels, less "
                f'than stride={stride}: pixels between windows would have no prediction. Use crop_sz="auto".'
            )
        return self


@register_config("semantic_segmentation")
class SemanticSegmentationConfig(RVPipelineConfig):
    """Configure a `SemanticSegmentation` pipeline."""

    chip_options: SemanticSegmentationChipOptions | None = Field(
        None, description="Which chips are written for training."
    )
    predict_options: SemanticSegmentationPredictOptions | None = Field(None, description="How scenes are predicted.")

    def build(self, tmp_dir: str) -> SemanticSegmentation:
        """Build the pipeline; ``tmp_dir`` is a local folder for temporary files."""
        return SemanticSegmentation(self, tmp_dir)

    def update_dataset(self, dataset: DatasetConfig) -> None:
        """Give the dataset a null class for pixels without label, and what scenes take from the pipeline."""
        own(dataset, "class_config").ensure_null_class()
        super().update_dataset(dataset)
        self._check_vector_outputs(dataset)

    def validate_config(self) -> None:
        """Check that there is a null class and that class ids in options exist.

        Raises:
            ConfigError: They do not.
        """
        super().validate_config()
        class_config = self.dataset.class_config
        if class_config.null_class is None:
            raise ConfigError(
                'Semantic segmentation needs a null class for pixels without label. Name a class "null", set '
                "dataset.class_config.null_class, or call update() on the pipeline."
            )
        targets = self.chip_options.target_class_ids if self.chip_options is not None else None
        unknown = [i for i in targets or [] if not 0 <= i < len(class_config)]
        if unknown:
            raise ConfigError(
                f"chip_options.target_class_ids has {unknown}, but the class ids are 0 to {len(class_config) - 1}."
            )

    @staticmethod
    def _check_vector_outputs(dataset: DatasetConfig) -> None:
        num_classes = len(dataset.class_config)
        for scene in dataset.all_scenes:
            for output in getattr(scene.label_store, "vector_output", ()):
                if not 0 <= output.class_id < num_classes:
                    raise ConfigError(
                        f"Scene {scene.id!r}: label_store.vector_output has the class id {output.class_id}, but they "
                        f"are 0 to {num_classes - 1}."
                    )

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report what a command reads and writes, with the polygons of predictions."""
        super().report_io(command, io_def)
        if command == "predict":
            for scene in self.dataset.get_command_scenes(command):
                if isinstance(scene.label_store, SemanticSegmentationLabelStoreConfig):
                    io_def.add_outputs(scene.label_store.get_vector_uris(self.dataset.class_config))

    def get_predict_options(self) -> SemanticSegmentationPredictOptions:
        """Return ``predict_options``, or the defaults."""
        return self.predict_options or SemanticSegmentationPredictOptions()


class SemanticSegmentation(RVPipeline):
    """The pipeline of semantic segmentation."""

    config: SemanticSegmentationConfig

    def post_process_predictions(self, labels: Labels, scene: Scene) -> Labels:
        """Set pixels outside the scene's AOIs, if it has any, to the null class."""
        if not scene.aoi_polygons:
            return labels
        null = self.config.dataset.class_config.null_class_id
        return labels.filter_by_aoi(scene.aoi_polygons_bbox_coords, null_class_id=null)
