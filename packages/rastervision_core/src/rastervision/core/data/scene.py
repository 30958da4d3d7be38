"""A scene: imagery with its labels, the place of its predictions, and its areas of interest.

Next: `rastervision.pytorch_learner.dataset`.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import shapely
from pydantic import Field

from rastervision.core.data.label_source.label_source import LabelSourceConfig
from rastervision.core.data.label_store.label_store import LabelStoreConfig
from rastervision.core.data.raster_source.raster_source import RasterSourceConfig
from rastervision.core.data.utils.misc import match_bboxes
from rastervision.pipeline.config import Config, ConfigError, register_config
from rastervision.pipeline.config_tree import pass_on
from rastervision.pipeline.errors import NotReadableError, RasterVisionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shapely.geometry.base import BaseGeometry

    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.label_source.label_source import LabelSource
    from rastervision.core.data.label_store.label_store import LabelStore
    from rastervision.core.data.raster_source.raster_source import RasterSource
    from rastervision.core.data.scene_part import ScenePart
    from rastervision.core.rv_pipeline.rv_pipeline import RVPipelineConfig
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["Scene", "SceneConfig", "naming_scene", "read_aois"]

log = logging.getLogger(__name__)


@register_config("scene")
class SceneConfig(Config):
    """Configure a `Scene`."""

    id: str = Field(description="Name of the scene, unique in its data set.")
    raster_source: RasterSourceConfig = Field(description="The imagery.")
    label_source: LabelSourceConfig | None = Field(None, description="The true labels, if there are any.")
    label_store: LabelStoreConfig | None = Field(
        None, description="Where predictions are stored; the pipeline has a default."
    )
    aoi_uris: list[str] | None = Field(
        None,
        description="GeoJSON or other vector files with polygons: the parts of the scene that are labelled or of "
        "interest.",
    )

    def update(self, pipeline: RVPipelineConfig | None = None) -> None:
        """Fill what the scene takes from the pipeline, such as the default label store."""
        if self.label_store is None and pipeline is not None:
            self.label_store = pipeline.get_default_label_store(scene=self)
        pass_on(self, "update", pipeline, self)

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report imagery, labels and AOIs as read; the stored prediction as written by predict and read by eval."""
        self.report_child_io(command, io_def, only=("raster_source", "label_source"))
        io_def.add_inputs(self.aoi_uris or ())
        if command in ("predict", "eval"):
            if self.label_store is None:
                io_def.add_missing(f"Scene {self.id!r} has no label_store for its prediction. Give it one.")
            else:
                self.label_store.report_io(command, io_def)

    def build(self, class_config: ClassConfig, tmp_dir: str | None = None, use_transformers: bool = True) -> Scene:
        """Build the scene.

        Args:
            class_config: Classes of the labels.
            tmp_dir: Local folder for temporary files.
            use_transformers: Whether the imagery passes through its raster transformers.

        Raises:
            RasterVisionError: A part cannot be built; names the scene and the field.
        """
        with naming_scene(self.id, "raster_source"):
            raster_source = self.raster_source.build(tmp_dir, use_transformers=use_transformers)
        crs_transformer, bbox = raster_source.crs_transformer, raster_source.bbox
        label_source: LabelSource | None = None
        label_store: LabelStore | None = None
        if self.label_source is not None:
            with naming_scene(self.id, "label_source"):
                label_source = self.label_source.build(class_config, crs_transformer, bbox, tmp_dir)
        if self.label_store is not None:
            with naming_scene(self.id, "label_store"):
                label_store = self.label_store.build(class_config, crs_transformer, bbox, tmp_dir)
        aoi_polygons = None
        if self.aoi_uris:
            with naming_scene(self.id, "aoi_uris"):
                aoi_polygons = read_aois(self.aoi_uris, crs_transformer, bbox)
        return Scene(self.id, raster_source, label_source, label_store, aoi_polygons)


def read_aois(uris: list[str], crs_transformer: CRSTransformer, bbox: Box) -> list[BaseGeometry]:
    """Read the AOIs of a scene; without any, all of the scene would be taken for its AOI."""
    from rastervision.core.data.utils.geojson import get_polygons_from_uris

    polygons = get_polygons_from_uris(uris, crs_transformer)
    names = ", ".join(uris)
    if not polygons:
        raise ConfigError(
            f"{names} has no polygon that is as large as a pixel, so there is no area of interest. Correct the file, "
            "or leave aoi_uris out to use the whole scene."
        )
    if not shapely.intersects(polygons, bbox.to_shapely()).any():
        raise ConfigError(
            f"none of the {len(polygons)} polygons in {names} meets the scene. Check the CRS of the file, which must "
            "be longitude and latitude unless the file says otherwise."
        )
    return polygons


@contextmanager
def naming_scene(scene_id: str, field: str | None = None) -> Iterator[None]:
    """Say in errors which scene they are about and, when its parts are made, in which field they are described."""
    where = f"Scene {scene_id!r}" + (f", {field}" if field else "")
    try:
        yield
    except RasterVisionError as e:
        if f"cene {scene_id!r}" not in str(e):
            e.args = (f"{where}: {e}",)  # classes may have constructors of their own
        raise
    except OSError as e:
        if field is None:
            raise  # it may be about a file that is written
        raise NotReadableError(f"{where}: {e}") from e


class Scene:
    """Imagery with its labels, its predictions and its areas of interest.

    Args:
        id: Name of the scene.
        raster_source: The imagery; its bbox is the scene.
        label_source: True labels; its bbox is set to that of the imagery.
        label_store: Where predictions are stored; its bbox is set likewise.
        aoi_polygons: Polygons or multipolygons in pixel coordinates of the imagery; those outside the bbox are left
            out, and those that cross themselves become the area they cover.

    Attributes:
        aoi_polygons: In pixel coordinates of the whole image.
        aoi_polygons_bbox_coords: In pixel coordinates of the bbox, as windows are.
        part: The part of the scene that is predicted; all of it if None.

    Raises:
        ConfigError: An AOI is not a polygon, or there are AOIs but none of them meets the bbox.
    """

    def __init__(
        self,
        id: str,
        raster_source: RasterSource,
        label_source: LabelSource | None = None,
        label_store: LabelStore | None = None,
        aoi_polygons: Sequence[BaseGeometry] | None = None,
    ) -> None:
        self.id = id
        self.raster_source = raster_source
        self.label_source = label_source
        self.label_store = label_store
        self.part: ScenePart | None = None
        for other in (label_source, label_store):
            if other is not None:
                match_bboxes(raster_source, other)
        self.aoi_polygons = self._aois_in_bbox(aoi_polygons or [])
        dy, dx = self.bbox.ymin, self.bbox.xmin
        self.aoi_polygons_bbox_coords: list[BaseGeometry] = [
            shapely.transform(p, lambda xy: xy - (dx, dy)) for p in self.aoi_polygons
        ]

    def _aois_in_bbox(self, polygons: Sequence[BaseGeometry]) -> list[BaseGeometry]:
        for p in polygons:
            if p.geom_type not in ("Polygon", "MultiPolygon"):
                raise ConfigError(
                    f"Scene {self.id!r}: an AOI is a {p.geom_type}, but only polygons enclose an area. "
                    "Remove it from the AOI file, or buffer it into a polygon."
                )
        valid = [p if p.is_valid else shapely.make_valid(p, method="structure", keep_collapsed=False) for p in polygons]
        bbox = self.bbox.to_shapely()
        inside = [p for p in valid if p.intersection(bbox).area > 0]
        if polygons and not inside:
            raise ConfigError(
                f"Scene {self.id!r}: none of its {len(polygons)} AOI polygons meets the scene. Check the CRS of the "
                "AOI file, which must be longitude and latitude unless the file says otherwise."
            )
        return inside

    @property
    def bbox(self) -> Box:
        """The part of the image that the scene is, in pixels."""
        return self.raster_source.bbox

    @property
    def extent(self) -> Box:
        """The scene in its own pixels: from (0, 0) to its height and width."""
        return self.raster_source.extent

    def __getitem__(self, key: Any) -> tuple[Any, Any]:
        """Return the chip and the label (None without a label source) of a window or of array slices."""
        x = self.raster_source[key]
        y = self.label_source[key] if self.label_source is not None else None
        return x, y
