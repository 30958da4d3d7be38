from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rastervision.core.box import Box
from rastervision.core.data.raster_source import RasterioSource
from rastervision.core.data.utils.misc import (
    all_equal,
    color_to_integer,
    color_to_triple,
    ensure_json_serializable,
    listify_uris,
    match_bboxes,
    normalize_color,
    parse_array_slices_2d,
    parse_array_slices_Nd,
    rgb_to_int_array,
    save_img,
)
from rastervision.testing import numbered_image, write_geotiff

EXTENT = Box(0, 0, 20, 30)
ALL = slice(None)


def test_colors() -> None:
    assert color_to_triple("red") == (255, 0, 0)
    assert color_to_triple("#0000ff80") == (0, 0, 255)
    assert all(0 <= c <= 255 for c in color_to_triple(None))
    assert color_to_integer("rgb(1,2,3)") == color_to_integer((1, 2, 3)) == 66051
    assert normalize_color("red") == normalize_color([255, 0, 0]) == normalize_color((1.0, 0.0, 0.0)) == (1, 0, 0)
    assert normalize_color((0.1, 0.2, 0.3)) == (0.1, 0.2, 0.3)
    with pytest.raises(TypeError, match="not a int"):
        normalize_color(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nope"):
        color_to_triple("nope")


def test_rgb_to_int_array() -> None:
    out = rgb_to_int_array(np.array([[[1, 2, 3], [255, 255, 255]]], dtype=np.uint8))

    assert out.tolist() == [[66051, 0xFFFFFF]]


def test_lists() -> None:
    assert listify_uris("a") == ["a"]
    assert listify_uris(["a", "b"]) == ["a", "b"]
    with pytest.raises(TypeError, match="NoneType"):
        listify_uris(None)  # type: ignore[arg-type]
    assert all_equal([1, 1])
    assert all_equal([])
    assert not all_equal([1, 2])


def test_json_gets_plain_values() -> None:
    obj = {"a": np.float32(1.5), "b": np.array([1.0, np.nan]), "c": (np.int64(3),), 1: np.bool_(True), "d": None}

    out = ensure_json_serializable(obj)

    assert json.loads(json.dumps(out)) == {"a": 1.5, "b": [1.0, None], "c": [3], "1": True, "d": None}


def test_save_img_makes_the_folder(tmp_path: Path) -> None:
    image = numbered_image(4, 5)

    save_img(image, str(tmp_path / "new" / "image.png"))

    with Image.open(tmp_path / "new" / "image.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), image)


@pytest.mark.parametrize(
    ("key", "window", "index"),
    [
        (ALL, EXTENT, [slice(0, 20), slice(0, 30), ALL]),
        ((slice(0, 3), slice(1, 5)), Box(0, 1, 3, 5), [slice(0, 3), slice(1, 5), ALL]),
        ((slice(2, 20, 2), slice(0, 9, 3), [0, 2]), Box(2, 0, 20, 9), [slice(2, 20, 2), slice(0, 9, 3), [0, 2]]),
        ((..., slice(0, 2)), EXTENT, [slice(0, 20), slice(0, 30), slice(0, 2)]),
        ((slice(0, 3), ..., 0), Box(0, 0, 3, 30), [slice(0, 3), slice(0, 30), 0]),
        ((...,), EXTENT, [slice(0, 20), slice(0, 30), ALL]),
        ((slice(0, 40), slice(25, 50)), Box(0, 25, 40, 50), [slice(0, 40), slice(25, 50), ALL]),
    ],
)
def test_index_gives_window_and_full_index(key: Any, window: Box, index: list[Any]) -> None:
    assert parse_array_slices_Nd(key, EXTENT) == (window, index)


def test_index_of_labels_and_of_time_series() -> None:
    assert parse_array_slices_2d((..., slice(0, 2)), EXTENT) == (Box(0, 0, 20, 2), [slice(0, 20), slice(0, 2)])
    window, index = parse_array_slices_Nd((0, slice(1, 2)), EXTENT, dims=4)
    assert window == Box(1, 0, 2, 30)
    assert index == [0, slice(1, 2), slice(0, 30), ALL]


@pytest.mark.parametrize(
    ("key", "error"),
    [
        (None, TypeError),
        ((ALL, None), TypeError),
        ("a", TypeError),
        ((1, 2), ValueError),
        ((..., ...), ValueError),
        ((ALL,) * 4, IndexError),
        (slice(-3, None), NotImplementedError),
        (slice(0, -1), NotImplementedError),
        (slice(0, 9, -1), NotImplementedError),
    ],
)
def test_bad_index_is_refused(key: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse_array_slices_Nd(key, EXTENT)


class _Labels:
    def __init__(self, source: RasterioSource) -> None:
        self.crs_transformer, self.bbox = source.crs_transformer, source.bbox

    def set_bbox(self, bbox: Box) -> None:
        self.bbox = bbox


def test_labels_get_the_bbox_of_the_imagery(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = write_geotiff(tmp_path / "a.tif", numbered_image(20, 20), epsg=32617)
    shifted = write_geotiff(tmp_path / "b.tif", numbered_image(20, 20), epsg=32617, origin=(499990, 4000005))
    coarse = write_geotiff(tmp_path / "c.tif", numbered_image(10, 10), epsg=32617, pixel_size_m=2)
    source = RasterioSource(str(image), bbox=Box(2, 4, 12, 14))

    boxes = []
    for path in (shifted, coarse):
        labels = _Labels(RasterioSource(str(path)))
        match_bboxes(source, labels)
        boxes.append(labels.bbox)

    assert boxes == [Box(7, 14, 17, 24), Box(1, 2, 6, 7)]
    assert not caplog.messages


def test_disjoint_labels_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = write_geotiff(tmp_path / "a.tif", numbered_image(20, 20), epsg=32617)
    elsewhere = write_geotiff(tmp_path / "b.tif", numbered_image(20, 20), epsg=32617, origin=(600000, 4000000))

    with caplog.at_level(logging.WARNING):
        match_bboxes(RasterioSource(str(image)), _Labels(RasterioSource(str(elsewhere))))

    assert "do not overlap" in caplog.text
