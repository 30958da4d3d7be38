"""Read STAC catalogs, items and item collections through Raster Vision's file systems."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import ExitStack
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from rastervision.pipeline.errors import ConfigError, MissingPackageError, NotReadableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pystac import Asset, Item, ItemCollection
    from shapely.geometry.base import BaseGeometry

__all__ = [
    "get_linked_image_item",
    "is_label_item",
    "parse_stac",
    "read_item",
    "read_item_collection",
    "read_stac",
    "setup_stac_io",
]

log = logging.getLogger(__name__)

PIP_LINE = 'pip install "rastervision_core[stac]"'
# pages of a STAC API to follow, so that a broken server ends in an error
_MAX_PAGES = 1000


def read_item(uri: str) -> Item:
    """Read a STAC item.

    Raises:
        NotReadableError: The file is missing, or is not an item.
        MissingPackageError: pystac is not installed.
    """
    pystac = _pystac()
    try:
        item: Item = pystac.Item.from_file(uri, _stac_io_class()())
    except _errors() as e:
        raise NotReadableError(f"{uri} is not a STAC item ({e}). Name the JSON file of one item.") from e
    return item


def read_item_collection(uri: str) -> ItemCollection:
    """Read a STAC item collection: a file, or the pages of an answer of a STAC API.

    Raises:
        NotReadableError: The file is missing, or is not an item collection.
        MissingPackageError: pystac is not installed.
    """
    pystac = _pystac()
    try:
        items = [item for page, at in _pages(uri) for item in _items_of(page, at)]
        collection: ItemCollection = pystac.ItemCollection(items, clone_items=False)
    except _errors() as e:
        raise NotReadableError(
            f"{uri} is not a STAC item collection ({e}). Name a JSON file with a FeatureCollection of items."
        ) from e
    return collection


def _pages(uri: str) -> Iterator[tuple[dict[str, Any], str]]:
    stac_io = _stac_io_class()()
    next_uri: str | None = uri
    for _ in range(_MAX_PAGES):
        page = stac_io.read_json(next_uri)
        if page.get("type") != "FeatureCollection":
            raise ValueError(f"its type is {page.get('type')!r}, not 'FeatureCollection'")
        yield page, str(next_uri)
        links = [link for link in page.get("links", ()) if link.get("rel") == "next"]
        if not links:
            return
        if links[0].get("method", "GET") != "GET":
            raise ValueError(
                "it has more pages, which can only be had by POST; save the result of the search to a file"
            )
        next_uri = urljoin(str(next_uri), links[0]["href"])
    raise ValueError(f"it has more than {_MAX_PAGES} pages")


def _items_of(page: dict[str, Any], uri: str) -> Iterator[Item]:
    for item in _pystac().ItemCollection.from_dict(page, preserve_dict=False):
        if item.get_self_href() is None:
            for asset in item.assets.values():
                asset.href = urljoin(uri, asset.href) if "://" in uri else _beside(uri, asset.href)
        yield item


def _beside(path: str, href: str) -> str:
    is_absolute = "://" in href or href.startswith("/vsi") or os.path.isabs(href)
    return href if is_absolute else os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(path)), href))


def setup_stac_io() -> None:
    """Make pystac read and write by Raster Vision's file systems (S3 and others) wherever no other way is given."""
    _pystac().StacIO.set_default(_stac_io_class())


def read_stac(uri: str, extract_dir: str | None = None, **kwargs: Any) -> list[dict[str, Any]]:
    """Read a catalog of labels and the images they belong to, from a JSON file or a zip file with a catalog.json.

    Args:
        uri: The catalog.
        extract_dir: Folder to unpack a zip file into; a temporary one, removed afterwards, if None.
        **kwargs: More arguments of `parse_stac`.

    Raises:
        NotReadableError: The zip file holds no catalog.json, or more than one.
    """
    from rastervision.pipeline.file_system.utils import download_if_needed, unzip

    if not uri.lower().endswith(".zip"):
        return parse_stac(uri, **kwargs)
    with ExitStack() as stack:
        folder = extract_dir or stack.enter_context(tempfile.TemporaryDirectory())
        unzip(download_if_needed(uri), folder)
        found = sorted(os.path.join(at, "catalog.json") for at, _, names in os.walk(folder) if "catalog.json" in names)
        # the catalogs inside a catalog have the same name
        top = [path for path in found if path.count(os.sep) == min(p.count(os.sep) for p in found)]
        if len(top) != 1:
            raise NotReadableError(
                f"{uri} holds {len(top) or 'no'} files catalog.json at its top, so there is no telling which is meant: "
                f"{[os.path.relpath(path, folder) for path in top]}. Unpack it and name the catalog."
            )
        return parse_stac(top[0], **kwargs)


def parse_stac(stac_uri: str, item_limit: int | None = None) -> list[dict[str, Any]]:
    """Find the labels in a catalog and the images they belong to.

    Args:
        stac_uri: The JSON file of the catalog.
        item_limit: Largest number of label items to return. None: all.

    Returns:
        One dict per label item: ``label_uri`` (None if it has none), ``image_uris`` (the assets that the labels name,
        or else all that are not thumbnails or metadata), ``label_bbox`` and ``image_bbox`` (shapely geometries in
        longitude and latitude, in two parts over the antimeridian, or None), ``bboxes_intersect``, and
        ``aoi_geometry`` (the label item's GeoJSON geometry).
    """
    pystac = _pystac()
    try:
        catalog = pystac.Catalog.from_file(stac_uri, _stac_io_class()())
    except _errors() as e:
        raise NotReadableError(f"{stac_uri} is not a STAC catalog ({e}).") from e
    out: list[dict[str, Any]] = []
    for item in catalog.get_items(recursive=True):
        if item_limit is not None and len(out) >= item_limit:
            break
        if is_label_item(item):
            out.append(_describe_labels(item))
    return out


def _describe_labels(item: Item) -> dict[str, Any]:
    image = get_linked_image_item(item)
    labels = [a for key, a in item.assets.items() if "labels" in (a.roles or ()) or key == "labels"]
    label_bbox = _bbox_geometry(item.bbox)
    image_bbox = None if image is None else _bbox_geometry(image.bbox)
    intersect = label_bbox is not None and image_bbox is not None and label_bbox.intersects(image_bbox)
    return {
        "label_uri": _href(labels[0]) if labels else None,
        "image_uris": [] if image is None else _image_uris(item, image),
        "label_bbox": label_bbox,
        "image_bbox": image_bbox,
        "bboxes_intersect": intersect,
        "aoi_geometry": item.geometry,
    }


def _image_uris(item: Item, image: Item) -> list[str]:
    (source,) = item.get_links("source")
    named = source.extra_fields.get("label:assets") or ()
    assets = [image.assets[key] for key in named if key in image.assets] or [
        a for a in image.assets.values() if not {"thumbnail", "overview", "metadata"} & set(a.roles or ())
    ]
    return [_href(asset) for asset in assets]


def _href(asset: Asset) -> str:
    return asset.get_absolute_href() or asset.href


def _bbox_geometry(bbox: list[float] | None) -> BaseGeometry | None:
    """Return the box of (west, south, [bottom], east, north, [top]) in longitude and latitude."""
    import shapely

    if bbox is None:
        return None
    west, south, east, north = (bbox[0], bbox[1], bbox[3], bbox[4]) if len(bbox) == 6 else bbox
    if west <= east:
        return shapely.box(west, south, east, north)
    return shapely.union(shapely.box(west, south, 180, north), shapely.box(-180, south, east, north))


def is_label_item(item: Item) -> bool:
    """Tell whether an item describes labels, that is, has STAC's label extension."""
    return any("/label/" in uri or uri == "label" for uri in item.stac_extensions)


def get_linked_image_item(label_item: Item) -> Item | None:
    """Return the item with the image that labels belong to; None if the labels do not tell.

    Raises:
        ConfigError: There are several.
    """
    links = label_item.get_links("source")
    if len(links) > 1:
        raise ConfigError(
            f"The label item {label_item.id} is linked to {len(links)} images, so there is no telling which is meant."
        )
    if not links:
        return None
    target: Any = links[0].resolve_stac_object(label_item.get_root()).target
    return target


def _pystac() -> Any:
    try:
        import pystac
        import pystac.errors
    except ImportError as e:
        raise MissingPackageError(f"STAC needs the package pystac. Run: {PIP_LINE}", name="pystac") from e
    return pystac


def _errors() -> tuple[type[Exception], ...]:
    """Return what pystac raises for JSON that is not what it should be."""
    from pystac.errors import STACError, STACTypeError

    return STACError, STACTypeError, AttributeError, KeyError, TypeError, ValueError


@lru_cache(maxsize=1)
def _stac_io_class() -> type[Any]:
    """Return pystac's input and output by Raster Vision's file systems."""
    _pystac()
    from pystac.stac_io import DefaultStacIO

    from rastervision.pipeline.file_system.utils import file_to_str, str_to_file

    class RasterVisionStacIO(DefaultStacIO):
        def read_text(self, source: Any, *args: Any, **kwargs: Any) -> str:
            return file_to_str(os.fspath(source))

        def write_text(self, dest: Any, txt: str, *args: Any, **kwargs: Any) -> None:
            str_to_file(txt, os.fspath(dest))

    return RasterVisionStacIO
