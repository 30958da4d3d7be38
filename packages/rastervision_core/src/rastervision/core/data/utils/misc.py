"""Helpers of the data package: array indexing by window, colours, JSON."""

from __future__ import annotations

import logging
import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.box import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.raster_source.raster_source import RasterSource

__all__ = [
    "all_equal",
    "color_to_integer",
    "color_to_triple",
    "ensure_json_serializable",
    "is_same_frame",
    "listify_uris",
    "match_bboxes",
    "normalize_color",
    "parse_array_slices_2d",
    "parse_array_slices_Nd",
    "rgb_to_int_array",
    "same_pixels",
    "save_img",
]

log = logging.getLogger(__name__)


def color_to_triple(color: str | None = None) -> tuple[int, int, int]:
    """Return (red, green, blue), 0 to 255, of a colour that Pillow knows ("red", "#f00"); random if None."""
    if color is None:
        return random.randint(0, 255), random.randint(0, 255), random.randint(0, 255)
    from PIL import ImageColor

    red, green, blue, *_ = ImageColor.getrgb(color)
    return red, green, blue


def color_to_integer(color: str | Sequence[int]) -> int:
    """Return the 24-bit integer 0xRRGGBB of a colour name or an (r, g, b) triple."""
    red, green, blue = color_to_triple(color) if isinstance(color, str) else color
    return (int(red) << 16) + (int(green) << 8) + int(blue)


def normalize_color(color: str | tuple[float, ...] | list[float]) -> tuple[float, ...]:
    """Return a colour as floats from 0 to 1; integers are taken as 0 to 255.

    Raises:
        TypeError: ``color`` is not a name, tuple or list.
    """
    if isinstance(color, str):
        color = color_to_triple(color)
    if not isinstance(color, (tuple, list)):
        raise TypeError(f"A colour is a name, a tuple or a list, not a {type(color).__name__}.")
    if all(isinstance(c, (int, np.integer)) for c in color):
        return tuple(c / 255 for c in color)
    return tuple(float(c) for c in color)


def rgb_to_int_array(rgb_array: NDArray[Any]) -> NDArray[np.uint32]:
    """Return the 24-bit integers 0xRRGGBB of an array (..., 3)."""
    rgb = rgb_array.astype(np.uint32)
    return (rgb[..., 0] << 16) + (rgb[..., 1] << 8) + rgb[..., 2]


def all_equal(it: Sequence[Any]) -> bool:
    """Tell whether all items are equal."""
    return all(item == it[0] for item in it)


def listify_uris(uris: str | Sequence[str]) -> list[str]:
    """Return a list of URIs from one or several.

    Raises:
        TypeError: ``uris`` is neither.
    """
    if isinstance(uris, str):
        return [uris]
    if isinstance(uris, (list, tuple)):
        return list(uris)
    raise TypeError(f"Expected a URI or a list of URIs, found a {type(uris).__name__}.")


def ensure_json_serializable(obj: Any) -> Any:
    """Return ``obj`` with numpy values as Python values and NaN as None, in dicts, lists and tuples too."""
    if isinstance(obj, dict):
        return {k: ensure_json_serializable(v) for k, v in obj.items()}
    if isinstance(obj, (list, tuple)):
        return [ensure_json_serializable(v) for v in obj]
    if isinstance(obj, np.ndarray):
        return ensure_json_serializable(obj.tolist())
    if isinstance(obj, np.generic):
        return ensure_json_serializable(obj.item())
    if isinstance(obj, float) and math.isnan(obj):
        return None
    return obj


def save_img(im_array: NDArray[Any], output_path: str) -> None:
    """Write an image (H, W) or (H, W, C) in the format of the file's extension; makes the folder."""
    from PIL import Image

    from rastervision.pipeline.file_system import make_dir

    make_dir(output_path, use_dirname=True)
    Image.fromarray(np.ascontiguousarray(im_array)).save(output_path)


def match_bboxes(raster_source: RasterSource, label_source: Any) -> None:
    """Give a label source or store the bbox of the imagery, in its own pixel coordinates.

    Args:
        raster_source: Imagery.
        label_source: Something with ``bbox``, ``set_bbox`` and ``crs_transformer``.
    """
    if hasattr(label_source, "match_image"):  # it may have other pixels than the imagery
        label_source.match_image(raster_source)
        return
    here, there = raster_source.crs_transformer, label_source.crs_transformer
    if same_pixels(here, there):
        bbox = raster_source.bbox
    else:
        bbox = there.map_to_pixel(here.pixel_to_map(raster_source.bbox)).normalize()
    old = label_source.bbox
    if old is not None and old.area > 0 and not bbox.intersects(old):  # no labels at all are fine
        log.warning(
            "The labels (bbox %s) do not overlap the imagery (bbox %s in their pixels): check their CRS and place.",
            old,
            bbox,
        )
    label_source.set_bbox(bbox)


def same_pixels(a: CRSTransformer, b: CRSTransformer) -> bool:
    """Tell whether two transformers are of the same pixels, as far as that can be told without converting any."""
    if a is b:
        return True
    if type(a) is not type(b) or a.transform is None:
        return False
    return (a.transform, a.image_crs, a.map_crs) == (b.transform, b.image_crs, b.map_crs)


def is_same_frame(a: CRSTransformer, b: CRSTransformer) -> bool:
    """Tell whether pixels can only be taken for the same, as one of the images has no place on the map of the other."""
    from rastervision.core.data.crs_transformer.identity_crs_transformer import IdentityCRSTransformer

    if isinstance(a, IdentityCRSTransformer) or isinstance(b, IdentityCRSTransformer):
        return True
    return (a.image_crs is None) != (b.image_crs is None)


def parse_array_slices_2d(key: Any, extent: Box) -> tuple[Box, list[Any]]:
    """Return the window and the full index of ``source[h, w]``; see `parse_array_slices_Nd`."""
    return parse_array_slices_Nd(key, extent, dims=2, h_dim=0, w_dim=1)


def parse_array_slices_Nd(
    key: Any, extent: Box, dims: int = 3, h_dim: int = -3, w_dim: int = -2
) -> tuple[Box, list[Any]]:
    """Turn the index in ``source[index]`` into a window and an index for each dimension.

    Args:
        key: Slices (and other indices where the dimension is neither h nor w), with at most one Ellipsis.
            Slices may go beyond the extent.
        extent: Fills in starts and ends that are left out.
        dims: Number of dimensions of the source.
        h_dim: Dimension of rows.
        w_dim: Dimension of columns.

    Returns:
        The window, and ``dims`` indices; those of h and w are slices with start and stop.

    Raises:
        IndexError: More indices than dimensions.
        TypeError: An index of an unsupported type.
        ValueError: More than one Ellipsis, or an index of h or w that is not a slice.
        NotImplementedError: Negative indices or steps in h or w.
    """
    if key is not None and not isinstance(key, tuple):
        key = (key,)
    if not isinstance(key, tuple) or not all(isinstance(k, slice) or k is Ellipsis or _is_index(k) for k in key):
        raise TypeError(f"Cannot index a source by {key!r}. Use slices, as in source[0:256, 0:256], or a Box.")
    index = _fill_dims(key, dims)
    h, w = (_slice_of(index[dim], size) for dim, size in ((h_dim, extent.height), (w_dim, extent.width)))
    index[h_dim], index[w_dim] = h, w
    return Box(h.start, w.start, h.stop, w.stop), index


def _is_index(k: Any) -> bool:
    return isinstance(k, (int, np.integer, list, tuple, np.ndarray))


def _fill_dims(key: tuple[Any, ...], dims: int) -> list[Any]:
    """Put whole slices for the Ellipsis or, without one, at the end."""
    places = [i for i, k in enumerate(key) if k is Ellipsis]
    if len(places) > 1:
        raise ValueError(f"The index {key} has more than one Ellipsis.")
    if len(key) - len(places) > dims:
        raise IndexError(f"The index has {len(key) - len(places)} items, but the source has {dims} dimensions.")
    at = places[0] if places else len(key)
    fill = [slice(None)] * (dims - len(key) + len(places))
    return [*key[:at], *fill, *key[at + 1 :]]


def _slice_of(k: Any, size: int) -> slice:
    if not isinstance(k, slice):
        raise ValueError(f"Rows and columns are indexed by slices, not by {k!r}.")
    start, stop = (0 if k.start is None else k.start), (size if k.stop is None else k.stop)
    if start < 0 or stop < 0 or (k.step is not None and k.step <= 0):
        raise NotImplementedError(
            f"Negative indices and steps ({k}) are not supported in rows and columns. Use a Box for windows "
            "that start outside the extent."
        )
    return slice(start, stop, k.step)
