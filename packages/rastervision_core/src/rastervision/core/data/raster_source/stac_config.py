"""Images that a STAC catalog describes. Next: `stac_stack`, which shows them as one array."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from rastervision.pipeline.config import Config, ConfigError, register_config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pystac import Asset, Item, ItemCollection

    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["STACItemCollectionConfig", "STACItemConfig", "date_of", "image_uris", "is_image", "subset_assets"]

_MEDIA_TYPES = ("image/tiff", "image/x.geotiff", "image/vnd.stac.geotiff", "image/jp2")
_EXTENSIONS = (".tif", ".tiff", ".jp2", ".vrt", ".img")


class AssetError(ConfigError, KeyError):
    """An item lacks an asset."""

    __str__ = ConfigError.__str__  # KeyError shows the repr


def subset_assets(item: Item, assets: Sequence[str]) -> Item:
    """Return a copy of an item that has only some of its assets, in the order given.

    Raises:
        ConfigError: The item has no asset of such a name. It is a KeyError, too.
    """
    missing = [name for name in assets if name not in item.assets]
    if missing:
        raise AssetError(f"assets: the STAC item {item.id} has no asset {missing[0]!r}. It has {sorted(item.assets)}.")
    copy = item.clone()
    copy.assets = {name: copy.assets[name] for name in assets}
    return copy


def is_image(asset: Asset) -> bool:
    """Tell whether an asset is a georeferenced image, and not a thumbnail or metadata."""
    if asset.media_type is None:
        return asset.href.lower().split("?")[0].endswith(_EXTENSIONS)
    return asset.media_type.lower().split(";")[0].strip() in _MEDIA_TYPES


def image_uris(item: Item, assets: Sequence[str] | None = None) -> list[str]:
    """Return the URIs of the images of an item: of the assets named, or of all images.

    Raises:
        ConfigError: There are none, or not all of those named.
    """
    if assets is not None:
        item = subset_assets(item, assets)
    images = [asset for asset in item.assets.values() if assets is not None or is_image(asset)]
    if not images:
        raise ConfigError(f"assets: the STAC item {item.id} has no image among its assets {sorted(item.assets)}.")
    return [asset.get_absolute_href() or asset.href for asset in images]


def date_of(item: Item) -> datetime:
    """Return when an item was taken, or when it begins.

    Raises:
        ConfigError: The item does not tell.
    """
    when = item.datetime or item.common_metadata.start_datetime
    if when is None:
        raise ConfigError(f"stac: the STAC item {item.id} has no datetime, so that it has no place in time.")
    return when


@register_config("stac_item")
class STACItemConfig(Config):
    """Configure a STAC item."""

    uri: str = Field(description="The JSON file of the item.")
    assets: list[str] | None = Field(None, description="Names of the assets to use, in this order. None: all.")

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report the file as read; which images it names is not known without reading it."""
        io_def.add_input(self.uri)

    def build(self) -> Item:
        """Read the item, with the assets that are asked for.

        Raises:
            NotReadableError: The file is missing, or is not an item.
            ConfigError: The item has no asset of such a name.
        """
        from rastervision.core.utils.stac import read_item

        item = read_item(self.uri)
        return item if self.assets is None else subset_assets(item, self.assets)


@register_config("stac_item_collection")
class STACItemCollectionConfig(Config):
    """Configure a collection of STAC items."""

    uri: str = Field(description="The JSON file of the item collection.")
    assets: list[str] | None = Field(None, description="Names of the assets to use, in this order. None: all.")

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report the file as read; which images it names is not known without reading it."""
        io_def.add_input(self.uri)

    def build(self) -> ItemCollection:
        """Read the items, each with the assets that are asked for.

        Raises:
            NotReadableError: The file is missing, or is not an item collection.
            ConfigError: An item has no asset of such a name.
        """
        from rastervision.core.utils.stac import read_item_collection

        items = read_item_collection(self.uri)
        if self.assets is not None:
            items.items = [subset_assets(item, self.assets) for item in items]
        return items
