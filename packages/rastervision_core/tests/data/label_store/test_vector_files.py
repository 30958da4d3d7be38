"""Polygons of classes in files of each format, as a label store writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from rastervision.core.box import Box
from rastervision.core.data import (
    BuildingVectorOutputConfig,
    ClassConfig,
    IdentityCRSTransformer,
    PolygonVectorOutputConfig,
    RasterioCRSTransformer,
    SemanticSegmentationDiscreteLabels,
    SemanticSegmentationLabelStore,
    SemanticSegmentationLabelStoreConfig,
    VectorOutputConfig,
)
from rastervision.core.data.label_store import ss_vectors, vector_files
from rastervision.core.data.label_store.ss_vectors import polygons_of
from rastervision.core.data.utils import polygonizer
from rastervision.pipeline.errors import MissingPackageError
from rastervision.testing import masks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

EXTENT = Box(0, 0, 60, 80)
TRANSFORM = Affine.translation(500000, 4000000) @ Affine.scale(0.5, -0.5)
UTM = RasterioCRSTransformer(transform=TRANSFORM, image_crs="EPSG:32617")
SUFFIXES = {"geojson": "json", "gpkg": "gpkg", "geoparquet": "parquet"}


def classes() -> ClassConfig:
    return ClassConfig(names=["field", "house/barn", "null"], null_class="null")


def labels() -> SemanticSegmentationDiscreteLabels:
    arr = np.zeros((60, 80), np.uint8)
    arr[10:30, 20:50] = 1
    arr[15, 30] = 0
    arr[40:50, 60:75] = 1
    out = SemanticSegmentationDiscreteLabels.make_empty(EXTENT, 3)
    out.add_window(EXTENT, arr)
    return out


def output(name: str, class_id: int = 1) -> PolygonVectorOutputConfig:
    return PolygonVectorOutputConfig(class_id=class_id, denoise=0, format=name)  # type: ignore[arg-type]


def store(folder: Path, *outputs: VectorOutputConfig, transformer: Any = UTM) -> SemanticSegmentationLabelStore:
    return SemanticSegmentationLabelStore(
        str(folder), transformer, classes(), bbox=Box(100, 200, 160, 280), vector_outputs=outputs
    )


def read(path: Path) -> Any:
    import geopandas

    return geopandas.read_parquet(path) if path.suffix == ".parquet" else geopandas.read_file(path)


@pytest.mark.parametrize("name", ["gpkg", "geoparquet"])
@pytest.mark.parametrize("per_write", [1, 100])
def test_files_keep_the_crs_of_the_image(
    name: str, per_write: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ss_vectors, "_POLYGONS_PER_WRITE", per_write)

    store(tmp_path, output(name)).save(labels())

    (path,) = (tmp_path / "vector_output").iterdir()
    assert path.name == f"class-1-house_barn.{SUFFIXES[name]}"
    frame = read(path)
    assert frame.crs.to_epsg() == 32617
    assert frame["class_id"].tolist() == [1, 1]
    assert frame["class_name"].tolist() == ["house/barn"] * 2
    pixels = shapely.transform(frame.geometry.values, lambda xy: (xy - [500000, 4000000]) / [0.5, -0.5])
    assert [p.bounds for p in pixels] == [(220, 110, 250, 130), (260, 140, 275, 150)]
    assert [p.area for p in pixels] == [599, 150]


def test_geojson_is_in_longitude_and_latitude(tmp_path: Path) -> None:
    store(tmp_path, output("geojson")).save(labels())

    content = json.loads((tmp_path / "vector_output/class-1-house_barn.json").read_text())
    assert [f["properties"] for f in content["features"]] == [{}, {}]
    geojson = read(tmp_path / "vector_output/class-1-house_barn.json")
    store(tmp_path / "native", output("gpkg")).save(labels())
    native = read(tmp_path / "native/vector_output/class-1-house_barn.gpkg")
    assert geojson.crs.to_epsg() == 4326
    for ours, theirs in zip(native.to_crs(4326).geometry, geojson.geometry, strict=True):
        assert ours.equals_exact(theirs, 1e-9)


@pytest.mark.parametrize("name", list(SUFFIXES))
def test_pixels_stay_pixels_without_a_crs(name: str, tmp_path: Path) -> None:
    store(tmp_path, output(name), transformer=IdentityCRSTransformer()).save(labels())

    (path,) = (tmp_path / "vector_output").iterdir()
    frame = read(path)
    assert [g.bounds for g in frame.geometry] == [(220, 110, 250, 130), (260, 140, 275, 150)]
    if name != "geojson":  # whose readers take all coordinates for longitude and latitude
        assert frame.crs is None or "Undefined" in frame.crs.name


@pytest.mark.parametrize("name", list(SUFFIXES))
def test_a_class_without_pixels_is_a_file_without_features(name: str, tmp_path: Path) -> None:
    store(tmp_path, output(name, class_id=2)).save(labels())

    (path,) = (tmp_path / "vector_output").iterdir()
    assert len(read(path)) == 0


def test_geoparquet_can_be_read_in_bounds(tmp_path: Path) -> None:
    import geopandas

    store(tmp_path, output("geoparquet")).save(labels())

    path = tmp_path / "vector_output/class-1-house_barn.parquet"
    x, y = TRANSFORM @ (265, 145)
    assert len(geopandas.read_parquet(path, bbox=(x, y, x + 1, y + 1))) == 1


def test_a_rerun_with_another_format_leaves_no_old_file(tmp_path: Path) -> None:
    store(tmp_path, output("geojson"), output("gpkg", class_id=0)).save(labels())

    store(tmp_path, output("geoparquet")).save(labels())

    assert [p.name for p in (tmp_path / "vector_output").iterdir()] == ["class-1-house_barn.parquet"]


def test_one_class_can_be_in_several_formats(tmp_path: Path) -> None:
    config = SemanticSegmentationLabelStoreConfig(
        uri=str(tmp_path), vector_output=[output("geojson"), output("gpkg")]
    ).build(classes(), UTM, bbox=EXTENT)

    config.save(labels())

    names = {p.name for p in (tmp_path / "vector_output").iterdir()}
    assert names == {"class-1-house_barn.json", "class-1-house_barn.gpkg"}
    uris = SemanticSegmentationLabelStoreConfig(
        uri="root", vector_output=[output("geojson"), output("gpkg")]
    ).get_vector_uris(classes())
    assert uris == [f"root/vector_output/{name}" for name in sorted(names, reverse=True)]


def test_outputs_of_one_class_do_not_write_to_one_file(tmp_path: Path) -> None:
    """In 0.31 the second replaced the first."""
    config = SemanticSegmentationLabelStoreConfig(
        uri=str(tmp_path), vector_output=[output("geojson"), PolygonVectorOutputConfig(class_id=1, denoise=60)]
    )

    config.build(classes(), UTM, bbox=EXTENT).save(labels())

    uris = config.get_vector_uris(classes())
    assert [Path(uri).name for uri in uris] == ["class-1-house_barn.json", "class-1-house_barn-2.json"]
    found = [len(json.loads(Path(uri).read_text())["features"]) for uri in uris]
    assert found[0] > found[1] == 0


def test_missing_pyarrow_is_named_before_the_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(MissingPackageError, match=r"pip install rastervision_core\[parquet\]"):
        store(tmp_path, output("geoparquet")).save(labels())

    assert not list(tmp_path.iterdir())


def test_polygons_that_fail_leave_the_old_prediction(tmp_path: Path) -> None:
    class Failing(VectorOutputConfig):
        def vectorize(self, mask: NDArray[Any]) -> Iterator[Any]:
            yield shapely.box(0, 0, 1, 1)
            raise OSError("disk full")

    store(tmp_path, output("geojson"), output("gpkg")).save(labels())
    before = {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    with pytest.raises(OSError, match="disk full"):
        store(tmp_path, output("geojson", 0), Failing.model_construct(class_id=0, format="gpkg")).save(labels())

    assert {p.name: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_formats_are_started_anew(tmp_path: Path) -> None:
    for name, suffix in SUFFIXES.items():
        path = tmp_path / f"a.{suffix}"
        for count in (3, 1):
            with vector_files.open_vector_file(path, name, None, 1, "x", layer="a") as write:
                write(shapely.box(np.arange(count), 0, np.arange(count) + 1, 1))

        assert len(read(path)) == 1


@settings(max_examples=50)
@given(
    mask=masks(40), band=st.sampled_from([1, 7, 16]), denoise=st.sampled_from([0, 3]), corners=st.sampled_from([1, 99])
)
def test_bands_of_any_height_give_the_buildings_of_the_whole_scene(
    mask: NDArray[np.uint8], band: int, denoise: int, corners: int
) -> None:
    config = BuildingVectorOutputConfig(class_id=1, denoise=denoise, min_area=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ss_vectors, "_BAND_PIXELS", 1)
        patch.setattr(ss_vectors, "_BAND_MULTIPLE", band)
        patch.setattr(polygonizer, "_CORNERS_AT_ONCE", corners)

        streamed = list(polygons_of(config, lambda window: mask[window.to_slices()], *mask.shape))

    whole = list(config.vectorize(mask))
    assert {p.normalize().wkt for p in streamed} == {p.normalize().wkt for p in whole}
