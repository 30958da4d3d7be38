"""Class ids of vector labels, as a raster that is made window by window.

Next: `rastervision.core.data.label_source.semantic_segmentation_label_source`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from rastervision.core.box import Box
from rastervision.core.data.raster_source.raster_source import RasterSource
from rastervision.core.data.utils.raster import fill_overflow
from rastervision.core.data.utils.rasterize import PolygonTiles, rasterize
from rastervision.core.data.vector_source.label_vectors import check_labels, with_label_transformers
from rastervision.core.data.vector_source.vector_source import VectorSourceConfig
from rastervision.pipeline.config import Config, ConfigError, register_config
from rastervision.pipeline.config_tree import pass_on, passes_on

if TYPE_CHECKING:
    from collections.abc import Sequence

    from geopandas import GeoDataFrame
    from numpy.typing import DTypeLike, NDArray

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.raster_transformer import RasterTransformer
    from rastervision.core.data.vector_source import VectorSource

__all__ = ["RasterizedSource", "RasterizedSourceConfig", "RasterizerConfig", "geoms_to_raster"]


@register_config("rasterizer")
class RasterizerConfig(Config):
    """Configure how polygons become pixels."""

    background_class_id: int = Field(description="Class id of pixels that no polygon covers.")
    all_touched: bool = Field(
        False, description="Whether a polygon covers all pixels it touches, or only those whose centre it covers."
    )


@register_config("rasterized_source")
class RasterizedSourceConfig(Config):
    """Configure a `RasterizedSource`."""

    vector_source: VectorSourceConfig = Field(
        description="The labels. Steps that tell their classes and give points and lines a width of one pixel are "
        "added unless there are such steps."
    )
    rasterizer_config: RasterizerConfig = Field(description="How polygons become pixels.")

    @field_validator("vector_source", mode="after")
    @classmethod
    def ensure_required_transformers(cls, v: VectorSourceConfig) -> VectorSourceConfig:
        """Add the steps without which labels cannot be rasterised, to a copy."""
        return with_label_transformers(v)

    @passes_on
    def update(self, pipeline: Any = None, scene: Any = None) -> None:
        """Update the vector source."""
        pass_on(self, "update", pipeline, scene)

    def build(
        self, class_config: ClassConfig, crs_transformer: CRSTransformer, bbox: Box | None = None
    ) -> RasterizedSource:
        """Build the source; ``bbox`` is the scene's, in pixels of the image."""
        background = self.rasterizer_config.background_class_id
        if not 0 <= background < len(class_config):
            raise ConfigError(
                f"rasterizer_config.background_class_id is {background}, but there are {len(class_config)} classes, "
                f"0 to {len(class_config) - 1}: {class_config.names}. Use the id of one of them."
            )
        vector_source = self.vector_source.build(class_config, crs_transformer)
        all_touched = self.rasterizer_config.all_touched
        dtype = np.min_scalar_type(len(class_config) - 1)
        return RasterizedSource(vector_source, background, bbox=bbox, all_touched=all_touched, dtype=dtype)


class RasterizedSource(RasterSource):
    """Gives chips (H, W, 1) of class ids; where polygons overlap, the later one in the file counts.

    Args:
        vector_source: Polygons with a property ``class_id``.
        background_class_id: Class id where there is no polygon, and outside the bbox.
        bbox: Part of the image, in its pixels; polygons elsewhere are not read if the vector source can do that.
            None: the extent of the polygons.
        all_touched: Whether a polygon covers all pixels it touches, or only those whose centre it covers.
        raster_transformers: Applied to chips in this order.
        dtype: Of the class ids.
    """

    def __init__(
        self,
        vector_source: VectorSource,
        background_class_id: int,
        bbox: Box | None = None,
        all_touched: bool = False,
        raster_transformers: Sequence[RasterTransformer] = (),
        dtype: DTypeLike = np.uint8,
    ) -> None:
        self.vector_source = vector_source
        self.background_class_id = background_class_id
        self.all_touched = all_touched
        self._polygons: PolygonTiles | None = None
        super().__init__(
            channel_order=[0],
            num_channels_raw=1,
            dtype_raw=dtype,
            bbox=bbox,  # type: ignore[arg-type]
            raster_transformers=raster_transformers,
        )

    @property
    def crs_transformer(self) -> CRSTransformer:
        """Between pixels of the image and map coordinates."""
        return self.vector_source.crs_transformer

    @property
    def bbox(self) -> Box:
        """Part of the image that is used, in its pixels."""
        return self.vector_source.extent if self._bbox is None else self._bbox

    def set_bbox(self, bbox: Box) -> None:
        """Use another part of the image."""
        if self._bbox is None or bbox not in self._bbox:
            self._polygons = None
        self._bbox = bbox

    @property
    def is_pixelwise(self) -> bool:
        """Whether a chip of a part of a window equals the part of the window's chip."""
        return all(t.pixelwise for t in self.raster_transformers)

    @property
    def df(self) -> GeoDataFrame:
        """The polygons and their properties."""
        return self.vector_source.get_dataframe()

    def validate_labels(self, df: GeoDataFrame) -> None:
        """Raise `ConfigError` if features are not polygons or have no class id."""
        class_ids = df["class_id"].tolist() if "class_id" in df.columns else [None] * len(df)
        self._validate(df.geometry.to_numpy(), class_ids)

    def _validate(self, geoms: NDArray[np.object_], class_ids: list[Any]) -> None:
        where = self.vector_source._describe()
        check_labels(geoms, class_ids, where)
        greatest = np.iinfo(self.dtype_raw).max
        wrong = sorted({i for i in class_ids if not 0 <= i <= greatest})
        if wrong:
            raise ConfigError(
                f"{where} has class_id {wrong[0]}, but ids of type {self.dtype_raw} must be 0 to {greatest}. Correct "
                "the labels, or give the RasterizedSource another dtype."
            )

    def prepare(self) -> None:
        """Read the polygons now instead of with the first window; burn them, unless the scene is very large."""
        self._load().keep(self.bbox)

    def _load(self) -> PolygonTiles:
        if self._polygons is None:
            features = self.vector_source.get_features(self._bbox)
            class_ids = features.values("class_id")
            self._validate(features.geoms, class_ids)
            ids = np.array(class_ids, dtype=self.dtype_raw)
            self._polygons = PolygonTiles(features.geoms, ids, self.background_class_id, self.all_touched)
        return self._polygons

    def get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> NDArray[Any]:
        """Return the (H, W, 1) class ids of a window, transformed; see `RasterSource.get_chip`."""
        return self._transform(self._get_chip(window, out_shape))  # one channel: none to choose, which would copy

    def _get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> NDArray[Any]:
        """Burn the polygons of a window."""
        bbox = self.bbox
        window = window.to_global_coords(bbox).to_int()
        label_arr = self._load().read(window)
        label_arr = fill_overflow(bbox, window, label_arr, self.background_class_id)
        if out_shape is not None:
            label_arr = _resize_nearest(label_arr, out_shape)
        return label_arr[..., np.newaxis]


def geoms_to_raster(df: GeoDataFrame, window: Box, background_class_id: int, all_touched: bool) -> NDArray[np.uint8]:
    """Return the (H, W) class ids of a window.

    Args:
        df: Polygons with a column ``class_id``; later rows cover earlier ones.
        window: In the coordinates of the polygons.
        background_class_id: Class id where there is no polygon.
        all_touched: Whether a polygon covers all pixels it touches, or only those whose centre it covers.
    """
    class_ids = df["class_id"].to_numpy() if len(df) else []
    return rasterize(df.geometry.to_numpy(), class_ids, window, background_class_id, all_touched)


def _resize_nearest(arr: NDArray[Any], out_shape: tuple[int, int]) -> NDArray[Any]:
    """Resample class ids: those at the centres of the new pixels."""
    rows, cols = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64) for old, new in zip(arr.shape, out_shape, strict=True)
    )
    return arr[np.ix_(rows, cols)]
