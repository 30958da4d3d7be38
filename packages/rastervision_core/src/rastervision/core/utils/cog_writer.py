"""Write a compressed cloud optimized GeoTIFF in windows, and its overviews at the same time."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from rastervision.core.utils.cog import is_tiled_geotiff, make_cog, overview_factors

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["CogWriter"]


class CogWriter:
    """A raster whose overviews take one of the pixels that each of theirs covers; use as a context manager.

    Args:
        path: File to write.
        profile: rasterio profile. What is not a tiled GeoTIFF gets no overviews and no special layout.
    """

    def __init__(self, path: Path, profile: dict[str, Any]) -> None:
        factors = overview_factors(profile["height"], profile["width"]) if is_tiled_geotiff(profile) else []
        self._profile = profile
        self._paths = {1: path, **{factor: path.with_name(f"{path.name}.{factor}") for factor in factors}}
        self._stack = ExitStack()
        self._rasters: dict[int, Any] = {}

    def __enter__(self) -> Self:
        import rasterio

        from rastervision.core.data.utils.dataset_pool import georeference_not_needed

        without_place = {key: value for key, value in self._profile.items() if key not in ("crs", "transform")}
        for factor, path in self._paths.items():
            profile = self._profile
            if factor > 1:
                self._stack.callback(path.unlink, missing_ok=True)
                size = {side: -(-profile[side] // factor) for side in ("height", "width")}
                profile = {**without_place, **size}
            with georeference_not_needed():
                raster = rasterio.open(path, "w", **profile)
            self._rasters[factor] = self._stack.enter_context(raster)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def write(self, arr: NDArray[Any], row: int, col: int) -> None:
        """Write the (K, h, w) pixels of a window."""
        for factor, raster in self._rasters.items():
            part = arr[:, -row % factor :: factor, -col % factor :: factor]
            y, x = -(-row // factor), -(-col // factor)
            height, width = part.shape[1:]
            if height and width:
                raster.write(part, window=((y, y + height), (x, x + width)))

    def close(self) -> None:
        """Finish the file."""
        for raster in self._rasters.values():
            raster.close()
        overviews = [path for factor, path in self._paths.items() if factor > 1]
        make_cog(self._paths[1], self._profile, overviews)
