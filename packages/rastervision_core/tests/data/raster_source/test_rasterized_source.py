from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from shapely.geometry import LineString, Point, Polygon, box

from rastervision.core.box import Box
from rastervision.core.data import (
    BufferTransformerConfig,
    ClassConfig,
    ClassInferenceTransformerConfig,
    GeoJSONVectorSource,
    GeoJSONVectorSourceConfig,
    IdentityCRSTransformer,
    RasterioSource,
    RasterizedSource,
    RasterizedSourceConfig,
    RasterizerConfig,
    ReclassTransformer,
)
from rastervision.core.data.raster_source.rasterized_source import geoms_to_raster
from rastervision.core.data.utils import rasterize
from rastervision.core.data.utils.geojson import geojson_to_geodataframe, geoms_to_geojson
from rastervision.core.data.utils.misc import match_bboxes
from rastervision.pipeline.config import ConfigError, build_config
from rastervision.testing import write_geojson, write_geotiff

CLASSES = ClassConfig(names=["bg", "a", "b", "null"])
SQUARES = [box(0, 0, 4, 4), box(10, 10, 14, 14), box(2, 2, 6, 6)]


def make(path: Path, geoms: list[Any], class_ids: list[Any], background: int = 0, **kwargs: Any) -> RasterizedSource:
    write_geojson(path, geoms, [{} if i is None else {"class_id": i} for i in class_ids])
    return RasterizedSource(GeoJSONVectorSource(str(path), IdentityCRSTransformer()), background, **kwargs)


@pytest.fixture
def source(tmp_path: Path) -> RasterizedSource:
    return make(tmp_path / "a.json", SQUARES, [1, 2, 3])


def test_later_polygons_cover_earlier_ones(source: RasterizedSource) -> None:
    chip = source.get_chip(Box(0, 0, 7, 7))

    expected = np.zeros((7, 7), np.uint8)
    expected[0:4, 0:4] = 1
    expected[2:6, 2:6] = 3
    assert chip.dtype == np.uint8
    assert source.shape == (14, 14, 1)
    np.testing.assert_array_equal(chip[..., 0], expected)


def test_windows_are_relative_to_the_bbox_and_outside_is_background(tmp_path: Path) -> None:
    source = make(tmp_path / "a.json", SQUARES, [1, 2, 3], background=7, bbox=Box(2, 2, 12, 12))

    chip = source.get_chip(Box(-1, -1, 20, 20))[..., 0]

    expected = np.full((21, 21), 7, np.uint8)
    expected[1:5, 1:5] = 3  # the square at 0 is outside the bbox or covered
    expected[9:11, 9:11] = 2  # cut at the bbox
    np.testing.assert_array_equal(chip, expected)
    assert source.extent == Box(0, 0, 10, 10)


def test_bbox_can_change(source: RasterizedSource) -> None:
    source.get_chip(source.extent)

    source.set_bbox(Box(10, 10, 12, 12))

    np.testing.assert_array_equal(source.get_chip(source.extent)[..., 0], np.full((2, 2), 2))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    y=st.integers(-30, 1300),
    x=st.integers(-30, 1300),
    size=st.tuples(st.integers(1, 700), st.integers(1, 700)),
    all_touched=st.booleans(),
)
def test_windows_are_parts_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, y: int, x: int, size: tuple[int, int], all_touched: bool
) -> None:
    rng = np.random.default_rng(5)
    geoms = [Point(*rng.random(2) * 1300).buffer(rng.random() * 90) for _ in range(60)]
    geoms = [g for g in geoms if not g.is_empty]
    path = tmp_path_factory.mktemp("labels") / "a.json"
    source = make(path, geoms, rng.integers(1, 9, len(geoms)).tolist(), all_touched=all_touched)
    source.set_bbox(Box(0, 0, 1300, 1300))
    whole = np.zeros((2100, 2100), np.uint8)
    whole[30:1330, 30:1330] = source.get_chip(source.extent)[..., 0]

    chip = source.get_chip(Box(y, x, y + size[0], x + size[1]))[..., 0]

    np.testing.assert_array_equal(chip, whole[y + 30 : y + 30 + size[0], x + 30 : x + 30 + size[1]])


def boxes(max_coord: int = 40) -> st.SearchStrategy[Box]:
    """Boxes of whole pixels, one at least."""
    sides = st.tuples(st.integers(0, max_coord), st.integers(1, max_coord))
    return st.builds(lambda y, x: Box(y[0], x[0], y[0] + y[1], x[0] + x[1]), sides, sides)


@settings(max_examples=50)
@given(
    polygons=st.lists(boxes(), max_size=12),
    window=boxes(),
    tile_sz=st.sampled_from([7, 16, 512]),
)
def test_polygons_of_whole_pixels_are_filled_as_slices(polygons: list[Box], window: Box, tile_sz: int) -> None:
    expected = np.full((80, 80), 99, np.uint8)
    for value, polygon in enumerate(polygons):
        expected[polygon.to_slices()] = value
    geoms = np.array([polygon.to_shapely() for polygon in polygons], dtype=object)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rasterize, "_TILE_SZ", tile_sz)
        tiles = rasterize.PolygonTiles(geoms, np.arange(len(polygons), dtype=np.uint8), 99, False)
        first, again = tiles.read(window), tiles.read(window)

    np.testing.assert_array_equal(first, expected[window.to_slices()])
    np.testing.assert_array_equal(again, first)


def test_chips_can_be_changed_without_harm(source: RasterizedSource) -> None:
    for window in (source.extent, Box(0, 0, 5, 5), Box(0, 0, 5, 5)):
        chip = source.get_chip(window)
        assert chip[0, 0].item() == 1
        chip[:] = 77


def test_windows_larger_than_the_cache_are_read(source: RasterizedSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rasterize, "_CACHE_BYTES", 1000)
    cache = rasterize._TileCache(max_bytes=1000)
    monkeypatch.setattr(rasterize, "_tiles", cache)
    source.set_bbox(Box(0, 0, 1100, 1100))

    chip = source.get_chip(source.extent)

    assert np.bincount(chip.ravel()).tolist() == [1100**2 - 44, 12, 16, 16]
    assert not cache._tiles


@pytest.mark.parametrize("max_bytes", [1 << 20, (1 << 20) - 1])
def test_a_prepared_source_has_burned_its_labels_if_they_fit(
    source: RasterizedSource, monkeypatch: pytest.MonkeyPatch, max_bytes: int
) -> None:
    cache = rasterize._TileCache(max_bytes)
    monkeypatch.setattr(rasterize, "_tiles", cache)
    source.set_bbox(Box(0, 0, 1024, 1000))  # four tiles

    source.prepare()

    assert len(cache._tiles) == (4 if max_bytes == 1 << 20 else 0)
    assert np.bincount(source.get_chip(source.extent).ravel()).tolist() == [1024 * 1000 - 44, 12, 16, 16]


def test_tiles_of_polygons_that_are_gone_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = rasterize._TileCache(max_bytes=1 << 20)
    monkeypatch.setattr(rasterize, "_tiles", cache)
    geoms, values = np.array([box(0, 0, 600, 5)], dtype=object), np.array([1], np.uint8)
    tiles = rasterize.PolygonTiles(geoms, values, 0, False)
    tiles.keep(Box(0, 0, 10, 1000))
    others = pickle.loads(pickle.dumps(tiles))
    others.keep(Box(0, 0, 10, 10))
    assert cache.room() == (1 << 20) - 3 * 512 * 512

    del tiles

    assert cache.room() == (1 << 20) - 512 * 512
    assert others.read(Box(4, 0, 6, 2)).tolist() == [[1, 1], [0, 0]]


def test_class_ids_of_16_bits(tmp_path: Path) -> None:
    geoms = [box(i, 0, i + 1, 1) for i in range(3)]
    source = make(tmp_path / "a.json", geoms, [0, 65_534, 256], background=65_535, dtype=np.uint16)

    chip = source.get_chip(Box(0, 0, 1, 4))

    assert source.dtype == chip.dtype == np.uint16
    assert chip.ravel().tolist() == [0, 65_534, 256, 65_535]


def test_the_type_of_class_ids_is_that_of_the_class_config(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "a.json", [box(0, 0, 4, 4)], [{"class_name": "c299"}])
    many = ClassConfig(names=[f"c{i}" for i in range(300)], colors=["red"] * 300)

    source = make_config(path).build(many, IdentityCRSTransformer(), Box(0, 0, 4, 4))
    few = make_config(path).build(CLASSES, IdentityCRSTransformer(), Box(0, 0, 4, 4))

    assert source.get_chip(source.extent).ravel().tolist() == [299] * 16
    assert (source.dtype, few.dtype) == (np.uint16, np.uint8)


def test_the_bbox_may_grow_after_a_part_was_read(tmp_path: Path) -> None:
    source = make(tmp_path / "a.json", SQUARES, [1, 2, 3], bbox=Box(0, 0, 4, 4))
    source.get_chip(source.extent)

    source.set_bbox(Box(0, 0, 14, 14))

    assert source.get_chip(Box(10, 10, 11, 11)).item() == 2


def test_negative_buffers_may_split_polygons(tmp_path: Path) -> None:
    dumbbell = box(0, 0, 10, 10).union(box(10, 4, 20, 5)).union(box(20, 0, 30, 10))
    path = write_geojson(tmp_path / "a.json", [dumbbell], [{"class_id": 1}])
    vectors = GeoJSONVectorSource(
        str(path), IdentityCRSTransformer(), [BufferTransformerConfig(geom_type="Polygon", default_buf=-1).build()]
    )

    chip = RasterizedSource(vectors, 0, Box(0, 0, 10, 30)).get_chip(Box(0, 0, 10, 30))[..., 0]

    expected = np.zeros((10, 30), np.uint8)
    expected[1:9, 1:9] = expected[1:9, 21:29] = 1
    np.testing.assert_array_equal(chip, expected)


def test_tiles_that_are_not_used_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = rasterize._TileCache(max_bytes=600_000)
    monkeypatch.setattr(rasterize, "_tiles", cache)
    source = make(tmp_path / "a.json", [box(0, 0, 3000, 10)], [1], bbox=Box(0, 0, 5000, 5000))

    for x in range(0, 2500, 512):
        source.get_chip(Box(0, x, 10, x + 10))

    assert [key[2] for key in cache._tiles] == [3, 4]
    assert source.get_chip(Box(0, 0, 1, 1)).item() == 1


def test_out_shape_takes_the_nearest_class(source: RasterizedSource) -> None:
    chip = source.get_chip(Box(0, 0, 8, 8), out_shape=(4, 4))

    assert chip.shape == (4, 4, 1)
    assert set(np.unique(chip)) == {0, 1, 3}
    np.testing.assert_array_equal(source[0:8:2, 0:8:2], chip)


def test_transformers_apply(tmp_path: Path) -> None:
    source = make(tmp_path / "a.json", SQUARES, [1, 2, 3], raster_transformers=[ReclassTransformer({3: 9})])

    assert source.get_chip(Box(3, 3, 4, 4)).item() == 9
    assert source.is_pixelwise


def test_all_touched(tmp_path: Path) -> None:
    geoms = [Polygon([(0.6, 0.6), (2.4, 0.6), (2.4, 2.4), (0.6, 2.4)])]

    centres = make(tmp_path / "a.json", geoms, [1], bbox=Box(0, 0, 4, 4))
    touched = make(tmp_path / "a.json", geoms, [1], bbox=Box(0, 0, 4, 4), all_touched=True)

    assert centres.get_chip(centres.extent).sum() == 1
    assert touched.get_chip(touched.extent).sum() == 9


@pytest.mark.parametrize(
    ("geoms", "class_ids", "message"),
    [
        ([Point(1, 1), LineString([(0, 0), (5, 5)])], [1, 1], r"a\.json has LineString and Point features"),
        ([box(0, 0, 4, 4)], [None], r"a\.json has features without the property class_id"),
        ([box(0, 0, 4, 4)], [256], r"a\.json has class_id 256, but ids of type uint8 must be 0 to 255"),
    ],
)
def test_labels_that_cannot_be_burned(tmp_path: Path, geoms: list[Any], class_ids: list[Any], message: str) -> None:
    source = make(tmp_path / "a.json", geoms, class_ids)

    with pytest.raises(ConfigError, match=message):
        source.get_chip(Box(0, 0, 4, 4))
    with pytest.raises(ConfigError, match=message):
        source.validate_labels(source.df)


def test_no_polygons_are_background(tmp_path: Path) -> None:
    source = make(tmp_path / "a.json", [], [], background=2, bbox=Box(0, 0, 5, 5))

    np.testing.assert_array_equal(source.get_chip(source.extent), np.full((5, 5, 1), 2))


def test_no_polygons_take_the_bbox_of_the_image_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = RasterioSource(str(write_geotiff(tmp_path / "a.tif", np.ones((5, 6, 1), np.uint8))))
    source = make(tmp_path / "a.json", [], [])

    match_bboxes(image, source)

    assert source.bbox == Box(0, 0, 5, 6)
    assert caplog.messages == []


def test_survives_pickling_and_threads(source: RasterizedSource) -> None:
    expected = source.get_chip(source.extent)

    copy = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(4) as pool:
        chips = list(pool.map(copy.get_chip, [source.extent] * 8))

    for chip in chips:
        np.testing.assert_array_equal(chip, expected)


def test_geoms_to_raster() -> None:
    df = geojson_to_geodataframe(geoms_to_geojson(SQUARES, [{"class_id": i} for i in (1, 2, 3)]))

    label_arr = geoms_to_raster(df, Box(1, 1, 5, 5), 9, False)

    assert label_arr.tolist() == [[1, 1, 1, 9], [1, 3, 3, 3], [1, 3, 3, 3], [9, 3, 3, 3]]


# -- config --------------------------------------------------------------------------------------------------------


def make_config(path: Path, transformers: list[Any] | None = None, background: int = 0) -> RasterizedSourceConfig:
    return RasterizedSourceConfig(
        vector_source=GeoJSONVectorSourceConfig(uris=str(path), transformers=transformers or []),
        rasterizer_config=RasterizerConfig(background_class_id=background),
    )


def test_config_adds_missing_transformers_to_a_copy(tmp_path: Path) -> None:
    given = GeoJSONVectorSourceConfig(uris="x.json")

    config = RasterizedSourceConfig(vector_source=given, rasterizer_config=RasterizerConfig(background_class_id=0))

    assert config.vector_source.transformers == [
        ClassInferenceTransformerConfig(default_class_id=None),
        BufferTransformerConfig(geom_type="Point", default_buf=1),
        BufferTransformerConfig(geom_type="LineString", default_buf=1),
    ]
    assert given.transformers == []
    assert build_config(config.json()) == config


def test_config_keeps_transformers_that_are_given() -> None:
    given = [BufferTransformerConfig(geom_type="Point"), ClassInferenceTransformerConfig(default_class_id=2)]

    assert make_config(Path("x.json"), given).vector_source.transformers == given


def test_config_burns_points_and_lines(tmp_path: Path) -> None:
    path = write_geojson(
        tmp_path / "a.json",
        [Point(3.5, 3.5), LineString([(10, 0), (10, 20)])],
        [{"class_name": "a"}, {"class_name": "b"}],
    )

    source = make_config(path).build(CLASSES, IdentityCRSTransformer(), Box(0, 0, 20, 20))

    label_arr = source.get_chip(source.extent)[..., 0]
    assert (label_arr == 1).sum() > 0
    np.testing.assert_array_equal(label_arr[:, 9:11], np.full((20, 2), 2))


@pytest.mark.parametrize("background", [4, -1])
def test_background_must_be_a_class(background: int) -> None:
    with pytest.raises(ConfigError, match=rf"background_class_id is {background}, but there are 4 classes"):
        make_config(Path("x.json"), background=background).build(CLASSES, IdentityCRSTransformer())


def test_config_needs_both_fields() -> None:
    with pytest.raises(ValidationError, match="rasterizer_config"):
        RasterizedSourceConfig(vector_source=GeoJSONVectorSourceConfig(uris="x.json"))  # type: ignore[call-arg]
