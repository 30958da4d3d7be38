from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from affine import Affine
from shapely.geometry import LineString, MultiPolygon, Point, Polygon, box

from rastervision.core.box import Box
from rastervision.core.data import (
    BufferTransformer,
    ClassInferenceTransformer,
    GeoJSONVectorSource,
    IdentityCRSTransformer,
    RasterioCRSTransformer,
    RasterizedSource,
    ShiftTransformer,
    VectorTransformer,
)
from rastervision.core.data.utils.geojson import get_polygons_from_uris
from rastervision.core.data.vector_source.vector_file import open_vector_file
from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.testing import write_geojson, write_geotiff

geopandas = pytest.importorskip("geopandas")
pytest.importorskip("pyarrow")

FORMATS = ["gpkg", "fgb", "shp", "shp.zip", "parquet", "geojsonl", "geojson"]
PIXELS = IdentityCRSTransformer()
UTM = RasterioCRSTransformer(Affine(1, 0, 404000, 0, -1, 3285000), "epsg:32617")  # pixels of 1 m
BEYOND = Polygon([(9, 0), (10, 0), (10, 1)])  # a quarter of the globe away, UTM is infinite


def write(path: Path, geoms: list[Any], crs: Any = 32617, layer: str | None = None, **columns: Any) -> str:
    """Write features with columns to a file of any format."""
    frame = geopandas.GeoDataFrame(columns, geometry=np.array(geoms, dtype=object), crs=crs)
    if path.suffix == ".parquet":
        frame.to_parquet(path, write_covering_bbox=True, row_group_size=20)
    elif path.name.endswith(".shp.zip"):
        frame.to_file(path.parent / "inside.shp")
        with zipfile.ZipFile(path, "w") as archive:
            for part in path.parent.glob("inside.*"):
                archive.write(part, part.name)
    elif path.suffix in (".geojsonl", ".geojson"):
        frame.to_crs(4326).to_file(path)
    else:
        frame.to_file(path, **({} if layer is None else {"layer": layer}))
    return str(path)


def tiles(rows: range, cols: range, size_m: float = 6) -> list[Polygon]:
    """Squares in pixels of 10 m, on the map of `UTM`."""
    x0, y0 = 404000, 3285000
    return [box(x0 + 10 * c, y0 - 10 * r - size_m, x0 + 10 * c + size_m, y0 - 10 * r) for r in rows for c in cols]


@pytest.mark.parametrize("suffix", FORMATS)
def test_reads_features_properties_and_crs(tmp_path: Path, suffix: str) -> None:
    uri = write(tmp_path / f"a.{suffix}", tiles(range(1), range(3)), name=["a", None, "ü"], class_id=[1.0, np.nan, 3])

    features = GeoJSONVectorSource(uri, UTM).get_features()

    features = features.take(np.argsort(shapely.bounds(features.geoms)[:, 0]))  # FlatGeobuf has an order of its own
    np.testing.assert_allclose(shapely.bounds(features.geoms), [[10 * i, 0, 10 * i + 6, 6] for i in range(3)], atol=1)
    assert features.values("name") == ["a", None, "ü"]
    assert features.values("class_id") == [1, None, 3]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_window_or_bbox_gives_what_the_whole_file_does(tmp_path: Path, suffix: str) -> None:
    shuffled = np.random.default_rng(0).permutation(np.array(tiles(range(20), range(20)), dtype=object))
    uri = write(tmp_path / f"a.{suffix}", list(shuffled), i=list(range(400)))
    window = Box(42, 63, 98, 77)
    whole = GeoJSONVectorSource(uri, UTM)
    expected = whole.get_features().where(shapely.intersects(whole.get_features().geoms, window.to_shapely()))

    of_window = GeoJSONVectorSource(uri, UTM).get_features(window)
    of_bbox = GeoJSONVectorSource(uri, UTM, bbox=window).get_features()

    assert 0 < len(expected) < 30
    assert of_window.values("i") == of_bbox.values("i") == expected.values("i")
    assert list(of_window.geoms) == list(expected.geoms)


@pytest.mark.parametrize("suffix", ["gpkg", "fgb", "shp", "parquet"])
def test_only_the_features_of_the_bounds_are_read(tmp_path: Path, suffix: str) -> None:
    uri = write(tmp_path / f"a.{suffix}", tiles(range(20), range(20)), i=list(range(400)))

    file = open_vector_file(uri)

    assert len(file.read()) == 400
    assert len(file.read((404001, 3284951, 404049, 3284999))) == 25


def test_features_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    squares = tiles(range(20), range(20), size_m=25)  # which overlap
    order = np.random.default_rng(1).permutation(400)
    ids = order % 250 + 1
    uris = [
        write(tmp_path / f"a.{suffix}", [squares[i] for i in order], class_id=ids) for suffix in ("gpkg", "parquet")
    ]
    bbox = Box(20, 20, 150, 150)

    labels = [RasterizedSource(GeoJSONVectorSource(uri, UTM), 0, bbox).get_chip(bbox.extent) for uri in uris]
    whole = RasterizedSource(GeoJSONVectorSource(uris[0], UTM), 0)

    np.testing.assert_array_equal(labels[0], labels[1])
    np.testing.assert_array_equal(labels[0], whole.get_chip(Box(20, 20, 150, 150)))


def test_part_is_read_again_when_more_is_asked_for(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.gpkg", tiles(range(9), range(9)), i=list(range(81)))
    source = GeoJSONVectorSource(uri, UTM)

    corner = source.get_dataframe(Box(0, 0, 5, 5))
    other_corner = source.get_dataframe(Box(80, 80, 90, 90))

    assert corner["i"].tolist() == [0]
    assert other_corner["i"].tolist() == [80]
    assert len(source.get_geoms()) == 81
    assert source.extent == Box(0, 0, 86, 86)


@pytest.mark.parametrize(
    "transformer", [BufferTransformer("Polygon", default_buf=12), ShiftTransformer(x_shift=-14, y_shift=9)]
)
def test_features_that_come_into_a_window_by_a_transformer_are_read(
    tmp_path: Path, transformer: VectorTransformer
) -> None:
    uri = write(tmp_path / "a.gpkg", tiles(range(20), range(20)), i=list(range(400)))
    whole = GeoJSONVectorSource(uri, UTM, [transformer])
    whole.get_features()
    part = GeoJSONVectorSource(uri, UTM, [transformer])

    for window in (Box(40, 40, 60, 60), Box(45, 45, 50, 50)):
        assert part.get_dataframe(window)["i"].tolist() == whole.get_dataframe(window)["i"].tolist()


def test_transformers_whose_reach_is_not_known_get_all_features(tmp_path: Path) -> None:
    class Swap(VectorTransformer):
        def transform(self, geojson: dict[str, Any], crs_transformer: Any = None) -> dict[str, Any]:
            geometries = [f["geometry"] for f in reversed(geojson["features"])]
            features = [{**f, "geometry": g} for f, g in zip(geojson["features"], geometries, strict=True)]
            return {"features": features}

    uri = write(tmp_path / "a.gpkg", tiles(range(9), range(9)), i=list(range(81)))

    assert GeoJSONVectorSource(uri, UTM, [Swap()]).get_dataframe(Box(0, 0, 5, 5))["i"].tolist() == [80]


@pytest.mark.parametrize("suffix", ["gpkg", "parquet", "geojson", "geojsonl"])
def test_files_without_features_give_background(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix.startswith("geojson"):
        path.write_text('{"type": "FeatureCollection", "features": []}' if suffix == "geojson" else "")
    else:
        write(path, [], class_id=np.array([], dtype=np.int64))
    bbox = Box(0, 0, 6, 7)
    source = RasterizedSource(GeoJSONVectorSource(str(path), UTM, [ClassInferenceTransformer(None)]), 2, bbox)

    assert (source.get_chip(bbox) == 2).all()
    assert len(GeoJSONVectorSource(str(path), UTM).get_dataframe()) == 0


def test_null_empty_3d_multi_and_mixed_geometries(tmp_path: Path) -> None:
    square = tiles(range(1), range(1))[0]
    geoms = [
        None,
        Polygon(),
        shapely.force_3d(square, z=7),
        MultiPolygon([square, shapely.affinity.translate(square, 20)]),
        LineString([(404000, 3285000, 1), (404010, 3284990, 2)]),
        Point(404003, 3284997),
    ]
    for suffix in ("gpkg", "parquet"):
        uri = write(tmp_path / f"a.{suffix}", geoms, i=list(range(6)))

        df = GeoJSONVectorSource(uri, UTM).get_dataframe()

        assert df["i"].tolist() == [2, 3, 3, 4, 5]
        assert not df.geometry.has_z.any()


def test_nested_properties_and_dates(tmp_path: Path) -> None:
    dates = np.array(["2021-03-04", "NaT"], "M8[ms]")
    squares = tiles(range(1), range(2))
    gpkg = write(tmp_path / "a.gpkg", squares, t=dates, ok=[True, False])
    parquet = write(tmp_path / "a.parquet", squares, t=dates, ok=[True, False], many=[[1, 2], [3]])

    for uri in (gpkg, parquet):
        first, second = (f["properties"] for f in GeoJSONVectorSource(uri, UTM).get_geojson()["features"])
        assert first["t"].startswith("2021-03-04")
        assert second["t"] is None
        assert (first["ok"], second["ok"]) == (True, False)
        json.dumps([first, second])
    assert first["many"] == [1, 2]


def test_files_of_several_formats_and_crs_are_put_together(tmp_path: Path) -> None:
    (square,) = tiles(range(1), range(1))
    here = write(tmp_path / "a.gpkg", [square], name=["a"])
    degrees = write_geojson(tmp_path / "b.json", [geopandas.GeoSeries([square], crs=32617).to_crs(4326)[0]])
    mercator = geopandas.GeoSeries([square], crs=32617).to_crs(3857)[0]
    other = write(tmp_path / "c.fgb", [mercator], crs=3857)

    geoms = GeoJSONVectorSource([here, str(degrees), other], UTM).get_geoms()

    for geom in geoms:
        np.testing.assert_allclose(geom.bounds, [0, 0, 6, 6], atol=1)


def test_files_with_several_layers_need_a_layer(tmp_path: Path) -> None:
    squares = tiles(range(1), range(2))
    uri = write(tmp_path / "a.gpkg", squares[:1], layer="roads")
    write(tmp_path / "a.gpkg", squares, layer="houses")

    assert len(GeoJSONVectorSource(uri, UTM, layer="houses").get_geoms()) == 2
    with pytest.raises(ConfigError, match=r"a\.gpkg has several layers\. Set layer to one of \['roads', 'houses'\]"):
        GeoJSONVectorSource(uri, UTM).get_geoms()
    with pytest.raises(ConfigError, match=r"a\.gpkg has no layer 'rivers'\. Set layer to one of"):
        GeoJSONVectorSource(uri, UTM, layer="rivers").get_geoms()
    with pytest.raises(ConfigError, match=r"layer is 'x', but .*a\.json is of a format without layers"):
        GeoJSONVectorSource(str(write_geojson(tmp_path / "a.json", [])), UTM, layer="x").get_geoms()


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
@pytest.mark.parametrize("suffix", ["shp", "gpkg", "fgb", "parquet"])
def test_files_without_crs_are_for_images_without_crs(tmp_path: Path, suffix: str) -> None:
    uri = write(tmp_path / f"a.{suffix}", [box(2, 3, 7, 8)], crs=None)

    assert GeoJSONVectorSource(uri, PIXELS).get_geoms()[0].bounds == (2, 3, 7, 8)
    with pytest.raises(ConfigError, match=rf"a\.{suffix} does not say the CRS of its coordinates. Add it"):
        GeoJSONVectorSource(uri, UTM).get_geoms()


# -- faults --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["gpkg", "fgb", "shp", "zip", "parquet"])
@pytest.mark.parametrize("damage", ["missing", "other", "cut", "folder"])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if damage == "other":
        path.write_bytes(b"hello world")
    elif damage == "folder":
        path.mkdir()
    elif damage == "cut":
        whole = write(tmp_path / f"b.{'shp.zip' if suffix == 'zip' else suffix}", tiles(range(9), range(9)))
        path.write_bytes(Path(whole).read_bytes()[:300])

    with pytest.raises((ConfigError, NotReadableError), match=rf"a\.{suffix}"):
        GeoJSONVectorSource(str(path), UTM).get_geoms()


def test_a_shapefile_from_elsewhere_must_be_in_an_archive() -> None:
    with pytest.raises(ConfigError, match=r"labels\.shp is one of the several files of a Shapefile.*ZIP archive"):
        GeoJSONVectorSource("http://127.0.0.1:9/labels.shp", UTM).get_geoms()


def test_parquet_that_is_not_geoparquet_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    geopandas.pd.DataFrame({"a": [1]}).to_parquet(path)

    with pytest.raises(ConfigError, match=r"a\.parquet is Parquet but not GeoParquet"):
        GeoJSONVectorSource(str(path), UTM).get_geoms()


def test_truncated_geojson_tells_where(tmp_path: Path) -> None:
    whole = write_geojson(tmp_path / "a.json", [box(0, 0, 5, 5)] * 3).read_bytes()
    (tmp_path / "a.json").write_bytes(whole[:-40])
    (tmp_path / "a.geojsonl").write_bytes(b'{"type": "Point", "coordinates": [1, 2]}\n{"type": "Point", "coord')

    with pytest.raises(ConfigError, match=r"a\.json is not GeoJSON: .* in line 1, column \d+"):
        GeoJSONVectorSource(str(tmp_path / "a.json"), PIXELS).get_geoms()
    with pytest.raises(ConfigError, match=r"a\.geojsonl is not GeoJSON: .* in line 2\."):
        GeoJSONVectorSource(str(tmp_path / "a.geojsonl"), PIXELS).get_geoms()


def test_text_encodings(tmp_path: Path) -> None:
    text = '{"type": "Feature", "properties": {"name": "Zürich"}, "geometry": {"type": "Point", "coordinates": [1, 2]}}'
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "a.json").write_bytes(text.encode(encoding))
        assert GeoJSONVectorSource(str(tmp_path / "a.json"), PIXELS).get_dataframe()["name"].tolist() == ["Zürich"]

    (tmp_path / "a.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"a\.json is not GeoJSON in UTF-8: byte 45 is 0xfc. Save it as UTF-8"):
        GeoJSONVectorSource(str(tmp_path / "a.json"), PIXELS).get_geoms()


def test_a_raster_or_folder_is_not_geojson(tmp_path: Path) -> None:
    raster = write_geotiff(tmp_path / "a.tif", np.ones((4, 4, 1), np.uint8))
    (tmp_path / "folder.json").mkdir()

    with pytest.raises(ConfigError, match=r"a\.tif is not GeoJSON: it is a binary file"):
        GeoJSONVectorSource(str(raster), PIXELS).get_geoms()
    with pytest.raises(NotReadableError, match=r"folder\.json"):
        GeoJSONVectorSource(str(tmp_path / "folder.json"), PIXELS).get_geoms()


# -- far away ------------------------------------------------------------------------------------------------------


def test_features_beyond_the_projection_are_left_out_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    near = box(-81.99, 29.69, -81.98, 29.7)
    path = write_geojson(tmp_path / "a.json", [near, BEYOND, BEYOND], [{"i": i} for i in range(3)])

    df = GeoJSONVectorSource(str(path), UTM).get_dataframe()

    assert df["i"].tolist() == [0]
    assert len(caplog.messages) == 1
    assert "a.json: 2 of 3 features are so far from the image" in caplog.messages[0]


def test_metres_without_crs_are_an_error(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "a.json", [Polygon(), box(404010, 3284980, 404020, 3284990)])

    with pytest.raises(
        ConfigError, match=r"a\.json has coordinates such as \(404010, 3.28498e\+06\), which are not long"
    ):
        GeoJSONVectorSource(str(path), UTM).get_geoms(Box(0, 0, 50, 50))
    with pytest.raises(
        ValueError, match=r"a\.json: Map coordinates such as \(404020.0, 3284980.0\) cannot be converted"
    ):
        GeoJSONVectorSource(str(path), UTM).get_geoms()


def test_features_in_other_units_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    degrees, metres = box(-81.99, 29.68, -81.98, 29.7), box(404010, 3284980, 404020, 3284990)
    path = write_geojson(tmp_path / "a.json", [degrees, metres], [{"i": 0}, {"i": 1}])

    df = GeoJSONVectorSource(str(path), UTM, bbox=Box(0, 0, 5000, 5000)).get_dataframe()

    assert df["i"].tolist() == [0]
    assert "a.json: 1 of 2 features are not in degrees" in caplog.text


def test_coordinates_that_are_all_impossible_are_an_error(tmp_path: Path) -> None:
    path = write_geojson(tmp_path / "a.json", [BEYOND])

    with pytest.raises(ValueError, match=r"a\.json: Map coordinates such as .* cannot be converted"):
        GeoJSONVectorSource(str(path), UTM).get_geoms()


def test_the_other_pole_is_too_far_away(tmp_path: Path) -> None:
    antarctica = RasterioCRSTransformer(Affine(100, 0, -50000, 0, -100, 50000), "epsg:3031")
    path = write_geojson(tmp_path / "a.json", [box(10, -89.9, 20, -89.8), Polygon([(10, 90), (20, 89), (10, 89)])])

    assert len(GeoJSONVectorSource(str(path), antarctica).get_geoms()) == 1


def test_polygons_with_coordinates_that_are_not_numbers_in_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"type": "Polygon", "coordinates": [[[0, 0], [5, NaN], [5, 5], [0, 0]]]}')

    assert GeoJSONVectorSource(str(path), PIXELS).get_geoms() == []


def test_coordinates_that_are_not_numbers_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.json"
    good = '{"type": "Polygon", "coordinates": [[[-82, 29], [-81.9, 29], [-81.9, 29.1], [-82, 29]]]}'
    features = [
        f'{{"type": "Feature", "properties": {{}}, "geometry": {g}}}' for g in (good, good.replace("29.1", "NaN"))
    ]
    path.write_text(f'{{"type": "FeatureCollection", "features": [{", ".join(features)}]}}')

    assert len(GeoJSONVectorSource(str(path), UTM).get_geoms()) == 1
    assert "1 of 2 features" in caplog.text


@pytest.mark.parametrize("suffix", ["geojson", "gpkg"])
def test_antimeridian_in_metres(tmp_path: Path, suffix: str) -> None:
    fiji = RasterioCRSTransformer(Affine(100, 0, 100_000, 0, -100, 8_200_000), "epsg:32701")  # 177 E to 177 W
    halves = MultiPolygon([box(179.9, -17.1, 180, -17), box(-180, -17.1, -179.9, -17)])
    at_once = Polygon([(179.9, -17.1), (-179.9, -17.1), (-179.9, -17), (179.9, -17)])
    uri = write(tmp_path / f"a.{suffix}", [halves, at_once], crs=4326)

    for source in (GeoJSONVectorSource(uri, fiji), GeoJSONVectorSource(uri, fiji, bbox=Box(0, 0, 5000, 5000))):
        east, west, whole = source.get_geoms()
        assert east.bounds[2] == pytest.approx(west.bounds[0], abs=3)
        assert whole.bounds[2] - whole.bounds[0] == pytest.approx(213, abs=3)


@pytest.mark.parametrize("west", [170, -190])
def test_antimeridian_in_degrees(tmp_path: Path, west: float) -> None:
    pacific = RasterioCRSTransformer(Affine(0.1, 0, west, 0, -0.1, 10), "epsg:4326", center_lon=west + 10)
    path = write_geojson(tmp_path / "a.json", [box(-180, 5, -175, 6), box(175, 5, 180, 6), box(0, 5, 1, 6)])
    bbox = Box(0, 0, 200, 200)

    source = RasterizedSource(GeoJSONVectorSource(str(path), pacific, [ClassInferenceTransformer(1)]), 0, bbox)

    rows, cols = np.nonzero(source.get_chip(bbox)[..., 0])
    assert (rows.min(), rows.max()) == (40, 49)
    assert (cols.min(), cols.max()) == (50, 149)


# -- everywhere ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_areas_of_interest_may_have_any_format(tmp_path: Path, suffix: str) -> None:
    uri = write(tmp_path / f"a.{suffix}", tiles(range(2), range(2)))

    (polygon,) = get_polygons_from_uris(uri, UTM, bbox=Box(0, 0, 5, 5))

    np.testing.assert_allclose(polygon.bounds, [0, 0, 6, 6], atol=1)


def test_subclasses_may_change_the_features(tmp_path: Path) -> None:
    class Renamed(GeoJSONVectorSource):
        def _get_geojson(self) -> dict[str, Any]:
            geojson = super()._get_geojson()
            for feature in geojson["features"]:
                feature["properties"]["name"] = "x"
            return geojson

    uri = write(tmp_path / "a.gpkg", tiles(range(2), range(2)))

    df = Renamed(uri, UTM).get_dataframe()

    assert df["name"].tolist() == ["x"] * 4
    np.testing.assert_allclose(df.geometry[3].bounds, [10, 10, 16, 16], atol=1)
