"""Mosaics: a GDAL VRT (an XML file) that shows several images as one, written without any GDAL program."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from rastervision.core.data.utils.dataset_pool import open_image
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.file_system.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from affine import Affine

__all__ = ["build_vrt", "vsi_path"]

_GDAL_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "uint64": "UInt64",
    "int64": "Int64",
    "float32": "Float32",
    "float64": "Float64",
    "complex64": "CFloat32",
    "complex128": "CFloat64",
}
_VSI_PREFIXES = {
    "http": "/vsicurl/http",
    "https": "/vsicurl/https",
    "s3": "/vsis3",
    "gs": "/vsigs",
    "az": "/vsiaz",
}


@dataclass(frozen=True)
class _Image:
    """What the mosaic needs to know of an image."""

    uri: str
    height: int
    width: int
    transform: Affine
    crs: Any
    dtypes: tuple[str, ...]
    nodata: tuple[float | None, ...]
    colors: tuple[str, ...]
    block_shapes: tuple[tuple[int, int], ...]
    has_mask: bool
    has_alpha: bool


def build_vrt(vrt_path: str, image_uris: Sequence[str]) -> None:
    """Write a VRT that shows images side by side; where they overlap, later ones lie on top.

    The images need the same CRS, pixel size, number of bands and types; their extents may differ. Pixels that
    no image has are nodata (or 0 if the images do not agree on a nodata value).

    Args:
        vrt_path: Local file to write.
        image_uris: Local paths, or URLs that GDAL can stream.

    Raises:
        NotReadableError: An image cannot be read.
        ConfigError: An image does not fit the first; the message names it.
    """
    images = [_describe(uri) for uri in image_uris]
    for image in images:
        _check_fits(image, images[0])
    tree = ET.ElementTree(_vrt_element(images))
    with replacing(vrt_path) as tmp_path:
        tree.write(tmp_path)


def _describe(uri: str) -> _Image:
    from rasterio.enums import ColorInterp, MaskFlags

    with open_image(uri) as ds:
        flags = [flag for band_flags in ds.mask_flag_enums for flag in band_flags]
        has_alpha = ColorInterp.alpha in ds.colorinterp
        return _Image(
            uri=uri,
            height=ds.height,
            width=ds.width,
            transform=ds.transform,
            crs=ds.crs,
            dtypes=ds.dtypes,
            nodata=ds.nodatavals,
            colors=tuple(color.name for color in ds.colorinterp),
            block_shapes=tuple(ds.block_shapes),
            has_mask=MaskFlags.per_dataset in flags and not has_alpha and MaskFlags.nodata not in flags,
            has_alpha=has_alpha,
        )


def _check_fits(image: _Image, first: _Image) -> None:
    def refuse(what: str, found: Any, wanted: Any, remedy: str) -> ConfigError:
        return ConfigError(
            f"uris: {image.uri} has {what} {found}, but {first.uri} has {wanted}; the images of one source "
            f"are shown as one mosaic. {remedy}"
        )

    a, b, _, d, e, _ = tuple(image.transform)[:6]
    if image.crs is None and image.transform.is_identity:
        raise ConfigError(
            f"uris: {image.uri} is not georeferenced, so its place in a mosaic of several images is unknown. "
            "Make a scene for each image, or georeference them."
        )
    if b or d or a <= 0 or e >= 0:
        raise ConfigError(
            f"uris: {image.uri} is rotated or does not have north up, which a mosaic of several images "
            "needs. Warp it first, for example with gdalwarp."
        )
    if image.crs != first.crs:
        raise refuse("CRS", image.crs, first.crs, "Warp them to one CRS, or make a scene for each.")
    size, first_size = (a, -e), (first.transform.a, -first.transform.e)
    drift_px = max(
        abs(a / first_size[0] - 1) * max(image.width, first.width),
        abs(-e / first_size[1] - 1) * max(image.height, first.height),
    )
    if drift_px > 0.05:
        raise refuse("pixel size", size, first_size, "Resample them to one pixel size.")
    if len(image.dtypes) != len(first.dtypes):
        raise refuse("band count", len(image.dtypes), len(first.dtypes), "Give images with the same bands.")
    if image.dtypes != first.dtypes:
        raise refuse("band types", image.dtypes, first.dtypes, "Convert them to one type.")


def _vrt_element(images: list[_Image]) -> ET.Element:
    first = images[0]
    pixel_w, pixel_h = first.transform.a, -first.transform.e
    west = min(image.transform.c for image in images)
    north = max(image.transform.f for image in images)
    offsets = [
        (round((image.transform.c - west) / pixel_w), round((north - image.transform.f) / pixel_h)) for image in images
    ]
    width = max(x + image.width for (x, _), image in zip(offsets, images, strict=True))
    height = max(y + image.height for (_, y), image in zip(offsets, images, strict=True))
    root = ET.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    if first.crs is not None:
        ET.SubElement(
            root, "SRS", dataAxisToSRSAxisMapping="2,1" if first.crs.is_geographic else "1,2"
        ).text = first.crs.to_wkt()
    affine = (west, pixel_w, 0.0, north, 0.0, -pixel_h)
    ET.SubElement(root, "GeoTransform").text = ", ".join(repr(float(v)) for v in affine)
    for i, dtype in enumerate(first.dtypes):
        band = ET.SubElement(root, "VRTRasterBand", dataType=_GDAL_TYPES[dtype], band=str(i + 1))
        nodata = first.nodata[i]
        if nodata is not None and all(_same_value(image.nodata[i], nodata) for image in images):
            ET.SubElement(band, "NoDataValue").text = repr(float(nodata))
        ET.SubElement(band, "ColorInterp").text = first.colors[i].capitalize()
        for image, offset in zip(images, offsets, strict=True):
            _add_source(band, image, offset, i)
    if any(image.has_mask for image in images):
        mask = ET.SubElement(ET.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
        for image, offset in zip(images, offsets, strict=True):
            _add_source(mask, image, offset, None)
    return root


def _add_source(parent: ET.Element, image: _Image, offset: tuple[int, int], band: int | None) -> None:
    """Add an image to a band of the mosaic; ``band`` None stands for the mask."""
    nodata = 0 if band is None else image.nodata[band]
    keeps_below = nodata is not None or image.has_mask or image.has_alpha
    source = ET.SubElement(parent, "ComplexSource" if keeps_below else "SimpleSource")
    is_file = "://" not in image.uri and not image.uri.startswith("/vsi")
    name = os.path.abspath(image.uri) if is_file else vsi_path(image.uri)
    ET.SubElement(source, "SourceFilename", relativeToVRT="0", shared="0").text = name
    ET.SubElement(source, "SourceBand").text = "mask,1" if band is None else str(band + 1)
    block_h, block_w = image.block_shapes[band or 0]
    ET.SubElement(
        source,
        "SourceProperties",
        RasterXSize=str(image.width),
        RasterYSize=str(image.height),
        DataType="Byte" if band is None else _GDAL_TYPES[image.dtypes[band]],
        BlockXSize=str(block_w),
        BlockYSize=str(block_h),
    )
    size: dict[str, Any] = {"xSize": str(image.width), "ySize": str(image.height)}
    ET.SubElement(source, "SrcRect", xOff="0", yOff="0", **size)
    ET.SubElement(source, "DstRect", xOff=str(offset[0]), yOff=str(offset[1]), **size)
    if nodata is not None:
        ET.SubElement(source, "NODATA").text = repr(float(nodata))
    elif keeps_below:
        ET.SubElement(source, "UseMaskBand").text = "true"


def _same_value(a: float | None, b: float | None) -> bool:
    return a == b or (a is not None and b is not None and a != a and b != b)


def vsi_path(uri: str) -> str:
    """Return the path by which GDAL streams a URL."""
    scheme, _, rest = uri.partition("://")
    if scheme == "file":
        return rest
    if scheme in ("http", "https"):
        return f"/vsicurl/{uri}"
    if scheme in _VSI_PREFIXES:
        return f"{_VSI_PREFIXES[scheme]}/{rest}"
    return uri
