"""A raster source of images that a STAC catalog describes, as one cube of pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Discriminator, Field, Tag

from rastervision.core.data.raster_source.raster_source import RasterSourceConfig
from rastervision.core.data.raster_source.stac_config import STACItemCollectionConfig, STACItemConfig
from rastervision.pipeline.config import ConfigError, register_config

if TYPE_CHECKING:
    from rastervision.core.data.raster_source.raster_source import RasterSource

__all__ = ["XarraySourceConfig"]


def _kind(value: Any) -> str:
    """Tell which of the two configs a value is, so that errors are of that one only."""
    hint = value.get("type_hint") if isinstance(value, dict) else getattr(value, "type_hint", None)
    return "stac_item_collection" if hint == "stac_item_collection" else "stac_item"


_AnySTACConfig = Annotated[
    Annotated[STACItemConfig, Tag("stac_item")] | Annotated[STACItemCollectionConfig, Tag("stac_item_collection")],
    Discriminator(_kind),
]


@register_config("xarray_source")
class XarraySourceConfig(RasterSourceConfig):
    """Configure a source of the images of a STAC item or of a collection of items."""

    stac: _AnySTACConfig = Field(description="The item, or the items, with the images.")
    allow_streaming: bool = Field(
        True, description="Read parts of the images as they are needed instead of loading all of them at once."
    )
    bbox_map_coords: tuple[float, float, float, float] | None = Field(
        None,
        description="Part of the images to use, as (ymin, xmin, ymax, xmax) in longitude and latitude; not together "
        "with bbox.",
    )
    temporal: bool = Field(False, description="Whether the items are a time series: chips are (T, H, W, C) then.")
    stackstac_args: dict[str, Any] = Field({}, description="More arguments for stackstac.stack().")

    def build(self, tmp_dir: str | None = None, use_transformers: bool = True) -> RasterSource:
        """Raise `ConfigError`: this release has no such raster source."""
        raise ConfigError(
            f"The images of {self.stac.uri} cannot be read: this release has no xarray_source yet. Use a "
            "rasterio_source with the URIs of the images."
        )
