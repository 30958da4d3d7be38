"""Show the images of STAC items as one xarray array (time, band, y, x), of which only what is asked for is read.

Next: `stac_grid`, which chooses the pixels of the array, and `image_stack`, which reads them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.data.raster_source.image_stack import ImageStack, Layer
from rastervision.core.data.raster_source.stac_config import date_of, is_image
from rastervision.core.data.raster_source.stac_grid import Georeference, choose_grid
from rastervision.core.data.utils.dataset_pool import DatasetPool, get_store_session, open_image
from rastervision.core.data.utils.rasterio import get_channel_order_from_dataset, is_masked, is_read_in_place
from rastervision.pipeline.errors import ConfigError, MissingPackageError, NotReadableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pystac import Asset, Item
    from xarray import DataArray

    from rastervision.core.data.raster_source.stac_options import StackOptions

__all__ = ["stack_items"]

# how many headers of remote files are read at once
_HEADER_THREADS = 8


def stack_items(
    items: Sequence[Item], options: StackOptions, download: bool = False, download_dir: str | None = None
) -> DataArray:
    """Show the images of items as one array.

    Args:
        items: One per step in time.
        options: Which images, and how they are shown.
        download: Whether remote files are downloaded first, instead of reading them where they are.
        download_dir: Where to; the cache if None.

    Returns:
        (time, band, y, x); pixels are read when they are asked for. ``attrs`` has ``crs``, ``transform``,
        ``nodata`` (None if all pixels have data) and ``alpha``, the indices of alpha bands.

    Raises:
        ConfigError: The items have no images, or these do not fit together.
        NotReadableError: An image cannot be read.
    """
    if not items:
        raise ConfigError("stac: there are no STAC items to read. Check the URI, or what was searched for.")
    items = _in_order(items, options.newest_first)
    assets = [_choose_assets(item, options.assets) for item in items]
    if not any(assets):
        raise ConfigError(
            f"stac: the STAC item {items[0].id} has no {'image' if options.assets is None else list(options.assets)} "
            f"among its assets {sorted(items[0].assets)}. Name the assets to use."
        )
    files = [
        {name: _File(item, name, _local_uri(item.assets[name], download, download_dir)) for name in names}
        for item, names in zip(items, assets, strict=True)
    ]
    # the first file of each asset tells what the others are like; their metadata do, where they are complete
    first = {name: file for row in reversed(files) for name, file in row.items()}
    first = {name: first[name] for row in files for name in row}
    to_open = [f for row in files for f in row.values() if f.told is None or f is first[f.asset]]
    with ThreadPoolExecutor(_HEADER_THREADS) as pool:
        headers = dict(zip(to_open, pool.map(_read_header, to_open), strict=True))
    kinds = {name: headers[file] for name, file in first.items()}
    places = {str(f): _place_of(f, headers.get(f)) for row in files for f in row.values()}
    layers = [[_layer(row[n], kind) if n in row else None for n, kind in kinds.items()] for row in files]
    stack = ImageStack(layers, [kind.count for kind in kinds.values()], choose_grid(places, options), options)
    array = _as_data_array(stack, items, kinds)
    if _is_complete(stack, places, kinds):
        array.attrs["nodata"] = None
    return array


def _place_of(file: _File, header: _Header | None) -> Georeference:
    place = file.told if header is None else header.place
    if place is None:
        raise ConfigError(f"stac: {file} has no CRS, neither in the file nor in the item (proj:code).")
    return place


def _is_complete(stack: ImageStack, places: dict[str, Georeference], kinds: dict[str, _Header]) -> bool:
    """Whether all pixels have data, as all images cover the grid and none marks pixels as missing."""
    if any(kind.is_masked for kind in kinds.values()):
        return False
    for place in places.values():
        if place.shape != stack.grid.shape or stack.grid.offset_of(place.shifted_to(stack.grid)) != (0, 0):
            return False
    layers = [layer for row in stack.layers for layer in row]
    return all(layer is not None and all(v is None for v in layer.nodata) for layer in layers)


def _in_order(items: Sequence[Item], newest_first: bool | None) -> list[Item]:
    if newest_first is None:
        return list(items)
    return sorted(items, key=date_of, reverse=newest_first)


def _choose_assets(item: Item, wanted: tuple[str, ...] | None) -> list[str]:
    """Return the names of the assets to use: those of names or media types, or all images."""
    if wanted is None:
        return [name for name, asset in item.assets.items() if is_image(asset)]
    names = [n for want in wanted for n, asset in item.assets.items() if want in (n, asset.media_type)]
    return list(dict.fromkeys(names))


def _local_uri(asset: Asset, download: bool, download_dir: str | None) -> str:
    from rastervision.pipeline.file_system.utils import download_if_needed

    uri = asset.get_absolute_href() or asset.href
    if is_read_in_place(uri, stream=not download):
        return uri.removeprefix("file://")
    return download_if_needed(uri, download_dir)


@dataclass(frozen=True, eq=False)
class _File:
    """The file of an asset."""

    item: Item
    asset: str
    uri: str

    def __str__(self) -> str:
        return f"the asset {self.asset!r} of the STAC item {self.item.id} ({self.uri})"

    @cached_property
    def told(self) -> Georeference | None:
        """Where the metadata place it; None if they are not complete."""
        return _told_georeference(self.item, self.item.assets[self.asset])


@dataclass(frozen=True)
class _Header:
    """What the file itself tells."""

    place: Georeference | None
    count: int
    nodata: float | None
    is_masked: bool
    alpha: tuple[int, ...]
    block_shape: tuple[int, int]


def _read_header(file: _File) -> _Header:
    try:
        with open_image(file.uri) as dataset:
            place = file.told if dataset.crs is None else Georeference.of_dataset(dataset)
            alpha = set(range(dataset.count)) - set(get_channel_order_from_dataset(dataset))
            masked, block = is_masked(dataset), dataset.block_shapes[0]
            return _Header(place, dataset.count, dataset.nodata, masked, tuple(sorted(alpha)), block)
    except NotReadableError as e:
        raise NotReadableError(f"stac: {file}: {e}") from e


def _told_georeference(item: Item, asset: Asset) -> Georeference | None:
    """Return the georeference that the projection extension tells; None if it is not complete.

    ``proj:epsg`` became ``proj:code`` in version 2 of the extension, and pystac from 1.12 on rewrites what it reads.
    """

    def get(name: str) -> Any:
        value = asset.extra_fields.get(name)
        return item.properties.get(name) if value is None else value

    epsg = get("proj:epsg")
    crs = get("proj:code") or (f"EPSG:{epsg}" if epsg else None) or get("proj:wkt2")
    transform, shape = get("proj:transform"), get("proj:shape")
    if crs is None or transform is None or shape is None:
        return None
    return Georeference(crs, tuple(float(v) for v in transform[:6]), (int(shape[0]), int(shape[1])))


def _band_values(asset: Asset, name: str, count: int, default: float | None) -> tuple[float | None, ...]:
    """Return what the metadata tell of each band: ``nodata``, ``scale`` or ``offset``."""
    bands = [b for key in ("raster:bands", "bands") for b in asset.extra_fields.get(key) or ()]
    whole = asset.extra_fields.get(name, asset.extra_fields.get(f"raster:{name}"))
    told = [b.get(name, b.get(f"raster:{name}", whole)) for b in bands] or [whole]
    told = told[:count] if len(told) >= count else told[:1] * count
    return tuple(default if v is None else float(v) for v in told)


def _layer(file: _File, header: _Header) -> Layer:
    asset, count = file.item.assets[file.asset], header.count
    nodata = _band_values(asset, "nodata", count, None)
    return Layer(
        name=str(file),
        pool=DatasetPool(file.uri, get_store_session([file.uri])),
        nodata=nodata if header.nodata is None else (None,) * count,  # what the file says counts more
        scale=tuple(v or 1.0 for v in _band_values(asset, "scale", count, 1.0)),
        offset=tuple(v or 0.0 for v in _band_values(asset, "offset", count, 0.0)),
        told=file.told,
    )


def _as_data_array(stack: ImageStack, items: Sequence[Item], kinds: dict[str, _Header]) -> DataArray:
    try:
        import xarray
    except ImportError as e:
        from rastervision.core.utils.stac import PIP_LINE

        raise MissingPackageError(f"STAC items are shown by the package xarray. Run: {PIP_LINE}", name="xarray") from e
    from pyproj import CRS

    from rastervision.core.data.raster_source.lazy_array import lazily_indexed

    bands = [(name, i, kind) for name, kind in kinds.items() for i in range(kind.count)]
    wkt = CRS.from_user_input(stack.grid.crs).to_wkt()
    coords: dict[str, Any] = {
        "time": [np.datetime64(date_of(item).replace(tzinfo=None), "ns") for item in items],
        "id": ("time", [item.id for item in items]),
        "band": [name if kind.count == 1 else f"{name}.{i + 1}" for name, i, kind in bands],
        "spatial_ref": ((), 0, {"crs_wkt": wkt, "spatial_ref": wkt}),
        **stack.grid.coords(),
    }
    attrs = {
        "crs": wkt,
        "transform": stack.grid.transform,
        "nodata": stack.fill_value,
        "alpha": [n for n, (_, i, kind) in enumerate(bands) if i in kind.alpha],
    }
    variable = xarray.Variable(("time", "band", "y", "x"), lazily_indexed(stack))
    array = xarray.DataArray(variable, coords=coords, attrs=attrs)
    leader = next(iter(kinds.values()))
    if leader.place is not None and stack.grid.offset_of(leader.place.shifted_to(stack.grid)) == (0, 0):
        array.encoding["preferred_chunks"] = dict(zip("yx", leader.block_shape, strict=True))
    return array
