"""Ground truth for chip classification: a class id per cell of a scene. Next: `rastervision.core.data.scene`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, field_validator, model_validator

from rastervision.core.box import Box
from rastervision.core.data.label.chip_classification_labels import ChipClassificationLabels
from rastervision.core.data.label_source.cell_inference import CellInference
from rastervision.core.data.label_source.label_source import LabelSourceConfig, VectorLabelSource
from rastervision.core.data.utils.features import Features
from rastervision.core.data.utils.misc import parse_array_slices_2d
from rastervision.core.data.vector_source.label_vectors import check_class_ids, check_labels, with_label_transformers
from rastervision.core.data.vector_source.vector_source import VectorSourceConfig
from rastervision.core.utils.types import PosInt
from rastervision.pipeline.config import ConfigError, register_config
from rastervision.pipeline.config_tree import own

if TYPE_CHECKING:
    from collections.abc import Iterable

    from geopandas import GeoDataFrame

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.data.vector_source.vector_source import VectorSource
    from rastervision.core.rv_pipeline import RVPipelineConfig

__all__ = [
    "ChipClassificationLabelSource",
    "ChipClassificationLabelSourceConfig",
    "default_cell_sz",
    "infer_cells",
    "read_labels",
]


@register_config("chip_classification_label_source")
class ChipClassificationLabelSourceConfig(LabelSourceConfig):
    """Configure a `ChipClassificationLabelSource`."""

    vector_source: VectorSourceConfig | None = Field(
        None,
        description="The labels: polygons that are cells, or from which cells are inferred. Steps that tell their "
        "classes and give points and lines a width of one pixel are added unless there are such steps.",
    )
    ioa_thresh: float = Field(
        0.5,
        description="Inferring: least share of a polygon's area that must lie in a cell (of the cell's area, with "
        "use_intersection_over_cell) for the polygon to count there.",
    )
    use_intersection_over_cell: bool = Field(
        False, description="Inferring: measure ioa_thresh by the area of the cell instead of that of the polygon."
    )
    pick_min_class_id: bool = Field(
        False,
        description="Inferring: of several classes in a cell take the one with the least id, not with the most area.",
    )
    background_class_id: int | None = Field(
        None, description="Inferring: class id of cells without a polygon that counts; needed with infer_cells."
    )
    infer_cells: bool = Field(
        False, description="Make a grid of cells and infer their classes, instead of taking each polygon for a cell."
    )
    cell_sz: PosInt | None = Field(
        None, description="Side of the cells of the grid in pixels; the chip size of the pipeline if not given."
    )
    lazy: bool = Field(False, description="Infer cells when they are asked for, not when the scene is built.")

    @field_validator("vector_source", mode="after")
    @classmethod
    def ensure_required_transformers(cls, v: VectorSourceConfig | None) -> VectorSourceConfig | None:
        """Add the steps without which features are no labels, to a copy."""
        return None if v is None else with_label_transformers(v)

    @model_validator(mode="after")
    def ensure_bg_class_id_if_inferring(self) -> Self:
        """Check that cells without a polygon have a class."""
        if self.infer_cells and self.background_class_id is None:
            raise ConfigError(
                "infer_cells needs background_class_id, the class id of cells without labels. Set it, or set "
                "infer_cells=False if the polygons are the cells."
            )
        return self

    def update(self, pipeline: RVPipelineConfig | None = None, scene: SceneConfig | None = None) -> None:
        """Update the vector source, and fill the size of the cells from the chip size of the pipeline."""
        vector_source = own(self, "vector_source")
        if vector_source is not None:
            vector_source.update(pipeline, scene)
        if self.cell_sz is None and pipeline is not None:
            self.cell_sz = default_cell_sz(pipeline, scene)

    def build(
        self,
        class_config: ClassConfig,
        crs_transformer: CRSTransformer,
        bbox: Box | None = None,
        tmp_dir: str | None = None,
    ) -> ChipClassificationLabelSource:
        """Build the source; ``bbox`` is the scene's, in pixels of the image."""
        if self.vector_source is None:
            raise ConfigError("vector_source of chip_classification_label_source is not set. Name the labels there.")
        if self.background_class_id is not None:
            check_class_ids([self.background_class_id], class_config, "background_class_id")
        vector_source = self.vector_source.build(class_config, crs_transformer)
        return ChipClassificationLabelSource(self, vector_source, bbox, self.lazy)


def default_cell_sz(pipeline: RVPipelineConfig, scene: SceneConfig | None) -> int:
    """Return the size of training chips if they are square and known, else that of windows to predict."""
    if pipeline.chip_options is not None and scene is not None:
        chip_sz = pipeline.chip_options.get_chip_sz(scene.id)
        if isinstance(chip_sz, int):
            return chip_sz
    return pipeline.get_predict_options().chip_sz


class ChipClassificationLabelSource(VectorLabelSource):
    """Gives the class of cells: of polygons that are cells, or inferred from the polygons in them.

    Args:
        label_source_config: How cells come about.
        vector_source: Polygons with a property ``class_id``.
        bbox: Part of the image that the scene is, in its pixels. None: the extent of the features.
        lazy: Make the cells of the scene when they are asked for, instead of now.

    Attributes:
        labels: The cells that are known, in pixels of the image. The class of other windows is inferred each time.
    """

    def __init__(
        self,
        label_source_config: ChipClassificationLabelSourceConfig,
        vector_source: VectorSource,
        bbox: Box | None = None,
        lazy: bool = False,
    ) -> None:
        super().__init__(vector_source, bbox)
        self.cfg = label_source_config
        self.lazy = lazy
        self._features = self._get_features()
        self._inference = CellInference(
            self._features,
            self.cfg.ioa_thresh,
            self.cfg.use_intersection_over_cell,
            self.cfg.pick_min_class_id,
            self.cfg.background_class_id,
        )
        self._populated = False
        self.labels = ChipClassificationLabels.make_empty()
        if not lazy:
            self.populate_labels()

    @property
    def labels_df(self) -> GeoDataFrame:
        """The polygons, in pixels of the image, and their properties."""
        return self._features.to_dataframe()

    def validate_labels(self, df: GeoDataFrame) -> None:
        """Raise `ConfigError` if features are not polygons or have no class id."""
        class_ids = df["class_id"].tolist() if "class_id" in df.columns else [None] * len(df)
        check_labels(df.geometry, class_ids, self.vector_source._describe())

    def set_bbox(self, bbox: Box) -> None:
        """Set the part of the image that the scene is, in its pixels."""
        if self._bbox is not None and tuple(bbox) == tuple(self._bbox):
            return
        super().set_bbox(bbox)
        self.labels = ChipClassificationLabels.make_empty()
        if self._populated:
            self.populate_labels()

    def populate_labels(self, cells: Iterable[Box] | None = None) -> None:
        """Make the cells known: those given, in pixels of the image, or all of the scene."""
        if cells is None:
            self._populated = True
        if cells is not None or self.cfg.infer_cells:
            self.labels.extend(self.infer_cells(cells))
        else:
            self.labels.extend(ChipClassificationLabels.from_features(self._features, self.bbox))

    def infer_cells(self, cells: Iterable[Box] | None = None) -> ChipClassificationLabels:
        """Return the classes of cells.

        Args:
            cells: In pixels of the image; a grid over the scene if None.

        Raises:
            ConfigError: The grid has no cell size, or a cell is without labels and there is no background class.
        """
        cells = self._grid() if cells is None else list(cells)
        return ChipClassificationLabels.from_class_ids(cells, self._inference.infer(cells))

    def _grid(self) -> list[Box]:
        if self.cfg.cell_sz is None:
            raise ConfigError(
                "cell_sz of chip_classification_label_source is not set. Set it, or run update() on the pipeline "
                "config, which takes the chip size."
            )
        return self.bbox.get_windows(self.cfg.cell_sz, self.cfg.cell_sz)

    def get_labels(self, window: Box | None = None) -> ChipClassificationLabels:
        """Return the label of a window, which is inferred if it is no cell that is known, or all cells of the scene.

        Args:
            window: In pixels of the extent. The labels are in pixels of the image.
        """
        if window is None:
            if not self._populated:
                self.populate_labels()
            return self.labels
        cell = window.to_global_coords(self.bbox)
        return self.labels.get_singleton_labels(cell) if cell in self.labels else self.infer_cells([cell])

    def __getitem__(self, key: Any) -> int:
        """Return the class id of a window (`Box`) or of slices of rows and columns."""
        window = key if isinstance(key, Box) else parse_array_slices_2d(key, self.extent)[0]
        cell = window.to_global_coords(self.bbox)
        class_id = self.labels.get_cell_class_id(cell)
        return int(self._inference.infer([cell])[0]) if class_id is None else class_id


def read_labels(labels_df: GeoDataFrame, bbox: Box | None = None) -> ChipClassificationLabels:
    """Return the bounding boxes of polygons as cells.

    Args:
        labels_df: Polygons in pixels of the image, with the columns ``class_id`` and, perhaps, ``scores``.
        bbox: If given, only cells that intersect or touch it.
    """
    return ChipClassificationLabels.from_features(_features_of(labels_df), bbox)


def infer_cells(
    cells: list[Box],
    labels_df: GeoDataFrame,
    ioa_thresh: float,
    use_intersection_over_cell: bool,
    pick_min_class_id: bool,
    background_class_id: int | None,
) -> ChipClassificationLabels:
    """Return the classes of cells, from the polygons in them.

    Args:
        cells: Cells, in the coordinates of the polygons.
        labels_df: Polygons with a column ``class_id``.
        ioa_thresh: Least share of a polygon's area that must lie in a cell for the polygon to count there.
        use_intersection_over_cell: Whether the share is of the cell's area instead.
        pick_min_class_id: Whether of several classes the one with the least id counts, that of the background
            included, instead of that of the polygon with the greatest share.
        background_class_id: Class of polygons that do not count, and of cells without any.

    Raises:
        ConfigError: A cell needs a background class, and there is none.
    """
    features = _features_of(labels_df)
    inference = CellInference(features, ioa_thresh, use_intersection_over_cell, pick_min_class_id, background_class_id)
    return ChipClassificationLabels.from_class_ids(cells, inference.infer(cells))


def _features_of(df: GeoDataFrame) -> Features:
    members = [{"properties": row} for row in df.drop(columns="geometry").to_dict("records")]
    return Features(df.geometry.to_numpy(), members)
