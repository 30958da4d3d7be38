"""Cloud optimized GeoTIFFs: tiled rasters with overviews, of which a part can be read without the rest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.aux_command import AuxCommand, AuxCommandConfig, AuxCommandOptions
from rastervision.pipeline.config import register_config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["COGIFY", "CogifyCommand", "CogifyConfig", "create_cog", "make_cog", "overview_factors"]

COGIFY = "COGIFY"
DEFAULT_BLOCK_SIZE = 512
DEFAULT_RESAMPLE_METHOD = "near"
DEFAULT_COMPRESSION = "deflate"
DEFAULT_OVERVIEWS = [2, 4, 8, 16, 32]

_SMALLEST_OVERVIEW = 512
_LEVEL_OPTIONS = {"deflate": ("zlevel", "ZLEVEL_OVERVIEW"), "zstd": ("zstd_level", "ZSTD_LEVEL_OVERVIEW")}


def create_cog(
    source_uri: str,
    dest_uri: str,
    local_dir: str,
    block_size: int = DEFAULT_BLOCK_SIZE,
    resample_method: str = DEFAULT_RESAMPLE_METHOD,
    compression: str = DEFAULT_COMPRESSION,
    overviews: Sequence[int] | None = None,
) -> None:
    """Convert a raster to a cloud optimized GeoTIFF.

    Args:
        source_uri: Raster of any format that GDAL reads; may be remote.
        dest_uri: GeoTIFF to write; may be remote.
        local_dir: Where files are put that are downloaded, or written before they are uploaded.
        block_size: Side of a tile in pixels.
        resample_method: How overviews are made, by its name in GDAL: ``near``, ``average``, ``mode``, and so on.
        compression: Of the tiles, by its name in GDAL; ``none`` for none.
        overviews: Factors 2, 4, 8, and so on; by default as many as make the smallest fit into one tile. None if empty.
    """
    import rasterio
    import rasterio.shutil

    from rastervision.core.data.utils.dataset_pool import georeference_not_needed
    from rastervision.pipeline.file_system.atomic import replacing
    from rastervision.pipeline.file_system.utils import download_if_needed, get_local_path, upload_or_copy

    options: dict[str, Any] = {"OVERVIEW_COUNT": len(overviews)} if overviews else {}
    if overviews is not None and not overviews:
        options = {"OVERVIEWS": "NONE"}
    method = {"near": "nearest"}.get(resample_method, resample_method)
    source_path = download_if_needed(source_uri, local_dir)
    path = get_local_path(dest_uri, local_dir)
    with georeference_not_needed(), replacing(path) as partial:
        rasterio.shutil.copy(
            source_path, partial, driver="COG", BLOCKSIZE=block_size, COMPRESS=compression.upper(),
            OVERVIEW_RESAMPLING=method.upper(), BIGTIFF="IF_SAFER", **options,
        )  # fmt: skip
    upload_or_copy(path, dest_uri)


class CogifyCommand(AuxCommand):
    """The command ``cogify``: convert rasters to cloud optimized GeoTIFFs."""

    command_type = COGIFY
    options = AuxCommandOptions(
        split_on="uris",
        inputs=lambda config: [source for source, _ in config["uris"]],
        outputs=lambda config: [target for _, target in config["uris"]],
        required_fields=["uris"],
    )

    def run(self, tmp_dir: str) -> None:
        """Convert the rasters one by one."""
        options = {key: value for key, value in self.config.items() if key != "uris"}
        for source_uri, dest_uri in self.config["uris"]:
            create_cog(source_uri, dest_uri, tmp_dir, **options)


@register_config("cogify")
class CogifyConfig(AuxCommandConfig):
    """Configure a `CogifyCommand`.

    ``config`` has ``uris``, a list of pairs of source and target, and may have the options of `create_cog`.
    """

    aux_command = CogifyCommand


def overview_factors(height: int, width: int) -> list[int]:
    """Return 2, 4, and so on, until an overview has at most 512 pixels along its longer side; none if it fits."""
    factors = [1]
    while -(-max(height, width) // factors[-1]) > _SMALLEST_OVERVIEW:
        factors.append(2 * factors[-1])
    return factors[1:]


def make_cog(path: Path, profile: dict[str, Any], resampling: str) -> None:
    """Give a tiled GeoTIFF overviews, and the layout of a COG, in place.

    Its tiles are moved as they are: this costs a copy of the bytes, and the decoding that the overviews take.

    Args:
        path: A finished file.
        profile: It was written with. What is not a tiled GeoTIFF stays as it is.
        resampling: How overviews are made: name of a `rasterio.enums.Resampling`.
    """
    import rasterio
    from rasterio.enums import Resampling

    from rastervision.core.utils.tiff_layout import rearrange_as_cog

    if profile["driver"] != "GTiff" or not profile.get("tiled"):
        return
    factors = overview_factors(profile["height"], profile["width"])
    if factors:
        # without these, overviews have tiles of 128 pixels and are compressed as much as can be
        options = {"GDAL_TIFF_OVR_BLOCKSIZE": profile["blockxsize"]}
        level, option = _LEVEL_OPTIONS.get(str(profile.get("compress")).lower(), ("", ""))
        if level in profile:
            options[option] = profile[level]
        with rasterio.Env(**options), rasterio.open(path, "r+") as dataset:
            dataset.build_overviews(factors, Resampling[resampling])
    rearranged = path.with_name(f"{path.name}.cog")
    try:
        rearrange_as_cog(path, rearranged)
        os.replace(rearranged, path)
    finally:
        rearranged.unlink(missing_ok=True)
