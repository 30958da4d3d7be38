"""Images that a STAC catalog describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from rastervision.pipeline.config import Config, ConfigError, register_config

if TYPE_CHECKING:
    from pystac import Item, ItemCollection

    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["STACItemCollectionConfig", "STACItemConfig"]


@register_config("stac_item")
class STACItemConfig(Config):
    """Configure a STAC item."""

    uri: str = Field(description="The JSON file of the item.")
    assets: list[str] | None = Field(None, description="Names of the assets to use, in this order. None: all.")

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report the file as read; which images it names is not known without reading it."""
        io_def.add_input(self.uri)

    def build(self) -> Item:
        """Raise `ConfigError`: this release reads no STAC items."""
        raise ConfigError(f"The STAC item {self.uri} cannot be read: this release does not read STAC items yet.")


@register_config("stac_item_collection")
class STACItemCollectionConfig(Config):
    """Configure a collection of STAC items."""

    uri: str = Field(description="The JSON file of the item collection.")
    assets: list[str] | None = Field(None, description="Names of the assets to use, in this order. None: all.")

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report the file as read; which images it names is not known without reading it."""
        io_def.add_input(self.uri)

    def build(self) -> ItemCollection:
        """Raise `ConfigError`: this release reads no STAC items."""
        raise ConfigError(
            f"The STAC item collection {self.uri} cannot be read: this release does not read STAC items yet."
        )
