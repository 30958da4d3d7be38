from __future__ import annotations

from typing import Any

import pytest
from affine import Affine
from shapely.geometry import Point, box

from rastervision.core.data import (
    IdentityCRSTransformer,
    RasterioCRSTransformer,
    ShiftTransformer,
    ShiftTransformerConfig,
)
from rastervision.core.data.utils.geojson import geoms_to_geojson
from rastervision.pipeline.errors import ConfigError

FEATURES = geoms_to_geojson([Point(1, 2), box(0, 0, 4, 4)], [{"class_id": 1}, {"class_id": 2}])


@pytest.fixture
def florida() -> RasterioCRSTransformer:
    return RasterioCRSTransformer(Affine(0.1, 0, 404000, 0, -0.1, 3285000), "epsg:32617")


def test_moves_by_metres_to_whole_pixels(florida: RasterioCRSTransformer) -> None:
    out = ShiftTransformerConfig(x_shift=10, y_shift=5).build()(FEATURES, florida)

    # the numbers of 0.31.1
    assert out["features"][0]["geometry"]["coordinates"] == (101, -47)
    ring = out["features"][1]["geometry"]["coordinates"][0]
    assert set(ring) == {(104, -49), (104, -45), (100, -45), (100, -49)}
    assert FEATURES["features"][0]["geometry"]["coordinates"] == (1, 2)


def test_moves_by_metres_to_fractions_of_pixels(florida: RasterioCRSTransformer) -> None:
    out = ShiftTransformer(10, 5, round_pixels=False)(FEATURES, florida)

    # 0.31.1 was half a pixel off: (101.97684, -46.41350)
    assert out["features"][0]["geometry"]["coordinates"] == pytest.approx((101.47684, -46.91350), abs=1e-4)


def test_no_shift_changes_nothing() -> None:
    assert ShiftTransformer()(FEATURES, IdentityCRSTransformer()) == FEATURES


@pytest.mark.parametrize("transformer", [None, IdentityCRSTransformer()])
def test_needs_a_georeferenced_image(transformer: Any) -> None:
    with pytest.raises(ConfigError, match="the image has no CRS"):
        ShiftTransformer(1, 1)(FEATURES, transformer)
