"""Sources with pixels of other sizes and places are put where they belong, to within half a pixel."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rastervision.core.box import Box
from rastervision.core.data import MultiRasterSource, RasterioSource
from rastervision.testing import write_geotiff

X0, Y0 = 500_000.0, 4_000_000.0
SIDE_M = 120.0


def write_place(path: Path, pixel_size: float, dx: float, dy: float) -> RasterioSource:
    """Write an image whose two channels tell where its pixels are: metres east and south of a point, plus 100."""
    n = int(SIDE_M / pixel_size)
    offsets = (np.arange(n) + 0.5) * pixel_size
    east, south = np.meshgrid(offsets + dx, offsets + dy)
    image = np.dstack([east, south]).astype(np.float32) + 100
    write_geotiff(path, image, epsg=32618, pixel_size_m=pixel_size, origin=(X0 + dx, Y0 - dy))
    return RasterioSource(str(path))


SIZES = st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0, 7.0]) | st.floats(0.4, 8.0)
SHIFTS = st.floats(-8, 8)


@settings(max_examples=50)
@given(size=SIZES, other_size=SIZES, dx=SHIFTS, dy=SHIFTS, data=st.data())
def test_sources_on_other_grids_are_put_in_place(
    size: float, other_size: float, dx: float, dy: float, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        primary = write_place(Path(folder, "a.tif"), size, 0, 0)
        other = write_place(Path(folder, "b.tif"), other_size, dx, dy)
        source = MultiRasterSource([primary, other])
        # away from the edges of both, where neither has anything to interpolate with
        margin = int(np.ceil((8 + 2 * other_size) / size))
        low, high = margin, source.extent.height - margin
        ymin, xmin = (data.draw(st.integers(low, high - 1)) for _ in range(2))
        window = Box(ymin, xmin, data.draw(st.integers(ymin + 1, high)), data.draw(st.integers(xmin + 1, high)))

        chip = source.get_chip(window)

    error = np.abs(chip[..., 2:] - chip[..., :2])
    assert error.max() <= max(size, other_size) / 2
