"""Ground truth for chip regression: numbers per cell of a scene. Next: `rastervision.core.data.scene`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from rastervision.core.box import Box
from rastervision.core.data.label.chip_regression_labels import ChipRegressionLabels
from rastervision.core.data.label_source.cell_values import (
    Aggregation,
    RasterCellValues,
    VectorCellValues,
    VectorTarget,
)
from rastervision.core.data.label_source.chip_classification_label_source import default_cell_sz
from rastervision.core.data.label_source.label_source import LabelSource, LabelSourceConfig
from rastervision.core.data.raster_source.raster_source import RasterSourceConfig
from rastervision.core.data.utils.misc import parse_array_slices_2d
from rastervision.core.data.vector_source.label_vectors import check_labels, with_widths
from rastervision.core.data.vector_source.vector_source import VectorSourceConfig
from rastervision.core.utils.types import PosInt
from rastervision.pipeline.config import ConfigError, register_config
from rastervision.pipeline.config_tree import pass_on

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.rv_pipeline import RVPipelineConfig

__all__ = ["ChipRegressionLabelSource", "ChipRegressionLabelSourceConfig"]


@register_config("chip_regression_label_source")
class ChipRegressionLabelSourceConfig(LabelSourceConfig):
    """Configure a `ChipRegressionLabelSource`; the names of the classes are those of the targets."""

    vector_source: VectorSourceConfig | None = Field(
        None,
        description="Features from which the targets are told. Steps that give points and lines a width of one pixel "
        "are added unless there are such steps.",
    )
    raster_source: RasterSourceConfig | None = Field(
        None, description="Instead of features: a raster with a channel per target, whose mean in a cell is the target."
    )
    aggregations: Aggregation | dict[str, Aggregation] = Field(
        "mean",
        description="Features: how a target is told from those in a cell, for all targets or by name. mean of a "
        "property, weighted by area; sum of a property or count, with the share of each feature in the cell; or "
        "coverage, the covered share of the cell.",
    )
    properties: dict[str, str] = Field(
        {}, description="Features: property of a target that has not the same name as the target."
    )
    missing_value: float | None = Field(
        None,
        description="Target of cells without features (mean) or without pixels that have data. If not given, it is "
        "not known there, and does not count.",
    )
    cell_sz: PosInt | None = Field(
        None, description="Side of the cells of the scene in pixels; the chip size of the pipeline if not given."
    )

    @field_validator("vector_source", mode="after")
    @classmethod
    def _with_widths(cls, v: VectorSourceConfig | None) -> VectorSourceConfig | None:
        return None if v is None else with_widths(v)

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.vector_source is None) == (self.raster_source is None):
            raise ConfigError("chip_regression_label_source needs vector_source or raster_source. Give one of them.")
        return self

    def update(self, pipeline: RVPipelineConfig | None = None, scene: SceneConfig | None = None) -> None:
        """Update the sources, and fill the size of the cells from the chip size of the pipeline."""
        pass_on(self, "update", pipeline, scene)
        if self.cell_sz is None and pipeline is not None:
            self.cell_sz = default_cell_sz(pipeline, scene)

    def build(
        self,
        class_config: ClassConfig,
        crs_transformer: CRSTransformer,
        bbox: Box | None = None,
        tmp_dir: str | None = None,
    ) -> ChipRegressionLabelSource:
        """Build the source; ``bbox`` is the scene's, in pixels of the image."""
        values: VectorCellValues | RasterCellValues
        if self.vector_source is not None:
            vectors = self.vector_source.build(class_config, crs_transformer)
            features = vectors.get_features()
            check_labels(features.geoms, [0] * len(features), vectors._describe())
            values = VectorCellValues(features, self._targets(class_config), vectors._describe())
        else:
            assert self.raster_source is not None
            raster = self.raster_source.build(tmp_dir)
            if raster.num_channels != len(class_config):
                raise ConfigError(
                    f"raster_source of chip_regression_label_source has {raster.num_channels} channels, but there are "
                    f"{len(class_config)} targets ({', '.join(class_config.names)}). Set its channel_order to one "
                    "channel per target."
                )
            values = RasterCellValues(raster, crs_transformer, bbox)
        return ChipRegressionLabelSource(values, crs_transformer, bbox, self.cell_sz, self.missing_value)

    def _targets(self, class_config: ClassConfig) -> list[VectorTarget]:
        given = self.aggregations
        named = [*self.properties, *(given if isinstance(given, dict) else ())]
        unknown = sorted(set(named) - set(class_config.names))
        if unknown:
            raise ConfigError(
                f"chip_regression_label_source names the target {unknown[0]!r}, but the class config has "
                f"{class_config.names}. Correct aggregations or properties."
            )
        how = given if isinstance(given, dict) else dict.fromkeys(class_config.names, given)
        return [VectorTarget(how.get(name, "mean"), self.properties.get(name, name)) for name in class_config.names]


class ChipRegressionLabelSource(LabelSource):
    """Gives the numbers of cells, which are told from features or a raster when they are asked for.

    Args:
        values: Tells the numbers of cells in pixels of the image.
        crs_transformer: Of the image.
        bbox: Part of the image that the scene is, in its pixels; a `Scene` sets it.
        cell_sz: Side of the cells of the scene.
        missing_value: Number where none is known; NaN if None.
    """

    def __init__(
        self,
        values: VectorCellValues | RasterCellValues,
        crs_transformer: CRSTransformer,
        bbox: Box | None = None,
        cell_sz: int | None = None,
        missing_value: float | None = None,
    ) -> None:
        self.values = values
        self._crs_transformer = crs_transformer
        self._bbox = bbox
        self.cell_sz = cell_sz
        self.missing_value = np.nan if missing_value is None else missing_value

    @property
    def crs_transformer(self) -> CRSTransformer:
        """Between pixels of the image and map coordinates."""
        return self._crs_transformer

    @property
    def bbox(self) -> Box:
        """Part of the image that the scene is, in its pixels; empty as long as it is not known."""
        return Box(0, 0, 0, 0) if self._bbox is None else self._bbox

    def set_bbox(self, bbox: Box) -> None:
        """Set the part of the image that the scene is, in its pixels."""
        self._bbox = bbox

    def infer_cells(self, cells: Iterable[Box]) -> ChipRegressionLabels:
        """Return the numbers of cells in pixels of the image."""
        cells = list(cells)
        values = self.values.infer(cells)
        return ChipRegressionLabels.from_predictions(cells, np.where(np.isfinite(values), values, self.missing_value))

    def get_labels(self, window: Box | None = None) -> ChipRegressionLabels:
        """Return the numbers of a window, or of all cells of the scene.

        Args:
            window: In pixels of the extent. The labels are in pixels of the image.

        Raises:
            ConfigError: The size of the cells is not known.
        """
        if window is not None:
            return self.infer_cells([window.to_global_coords(self.bbox)])
        if self.cell_sz is None:
            raise ConfigError(
                "cell_sz of chip_regression_label_source is not set. Set it, or run update() on the pipeline config, "
                "which takes the chip size."
            )
        return self.infer_cells(self.bbox.get_windows(self.cell_sz, self.cell_sz))

    def __getitem__(self, key: Any) -> NDArray[np.float64]:
        """Return (K,) the numbers of a window (`Box`) or of slices of rows and columns."""
        window = key if isinstance(key, Box) else parse_array_slices_2d(key, self.extent)[0]
        values: NDArray[np.float64] = self.get_labels(window).get_values()[0]
        return values
