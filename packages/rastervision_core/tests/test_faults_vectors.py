"""AOIs and labels that are empty, elsewhere, mixed or damaged: a correct result, or one error that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyproj import Transformer

from rastervision.core.box import Box
from rastervision.core.data import (
    ChipClassificationLabelSourceConfig,
    ClassConfig,
    GeoJSONVectorSourceConfig,
    ObjectDetectionLabelSourceConfig,
    RasterioCRSTransformer,
    RasterioSourceConfig,
    RasterizedSourceConfig,
    RasterizerConfig,
    Scene,
    SceneConfig,
    SemanticSegmentationLabelSourceConfig,
)
from rastervision.core.data.utils.window_sampler import windows_for
from rastervision.core.rv_pipeline import WindowSamplingConfig
from rastervision.pipeline.errors import ConfigError, RasterVisionError
from rastervision.testing.rasters import write_geotiff

CLASSES = ClassConfig(names=["background", "house", "null"])
Ring = list[list[float]]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_geotiff(tmp_path / "image.tif", np.full((200, 200, 3), 9, np.uint8), epsg=32618)


@pytest.fixture
def ring(image: Path) -> Callable[..., Ring]:
    """Longitudes and latitudes of a closed ring of pixel corners."""
    to_map = RasterioCRSTransformer.from_uri(str(image)).without_rounding()

    def make(*corners: tuple[float, float]) -> Ring:
        return [[float(v) for v in to_map.pixel_to_map(corner)] for corner in (*corners, corners[0])]

    return make


def square(x: float, y: float, side: float) -> list[tuple[float, float]]:
    return [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]


def polygon(*rings: Ring) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)}


def feature(geometry: dict[str, Any] | None, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "properties": {"class_id": 1, **properties}, "geometry": geometry}


def write(path: Path, *features: Any, **members: Any) -> str:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **members}))
    return str(path)


# -- areas of interest ---------------------------------------------------------------------------------------------


def scene_with_aoi(image: Path, *uris: str, bbox: tuple[int, int, int, int] | None = None) -> Scene:
    imagery = RasterioSourceConfig(uris=str(image), bbox=bbox)
    return SceneConfig(id="field", raster_source=imagery, aoi_uris=list(uris)).build(CLASSES)


@pytest.mark.parametrize("kind", ["point", "line", "tiny", "no features", "no geometry"])
def test_an_aoi_without_area_is_not_the_whole_scene(
    image: Path, ring: Callable[..., Ring], tmp_path: Path, kind: str
) -> None:
    # 0.31 takes all of the scene for its AOI
    geometries: dict[str, list[Any]] = {
        "point": [polygon(ring((10, 10), (10, 10), (10, 10)))],
        "line": [polygon(ring((10, 10), (100, 100), (10, 10)))],
        "tiny": [polygon(ring((10.2, 10.2), (10.4, 10.2), (10.4, 10.4)))],
        "no features": [],
        "no geometry": [None],
    }
    aoi = write(tmp_path / "aoi.json", *(feature(geometry) for geometry in geometries[kind]))

    with pytest.raises(ConfigError, match=r"Scene 'field', aoi_uris: .*aoi\.json has no polygon"):
        scene_with_aoi(image, aoi)


def test_an_aoi_outside_the_scene_is_named(image: Path, ring: Callable[..., Ring], tmp_path: Path) -> None:
    aoi = write(tmp_path / "aoi.json", feature(polygon(ring(*square(500, 500, 50)))))

    with pytest.raises(ConfigError, match=r"Scene 'field', aoi_uris: none of the 1 polygons in .*aoi\.json meets"):
        scene_with_aoi(image, aoi)
    with pytest.raises(ConfigError, match=r"aoi\.json meets the scene"):
        scene_with_aoi(
            image, write(tmp_path / "aoi.json", feature(polygon(ring(*square(0, 0, 50))))), bbox=(99, 99, 150, 150)
        )


def test_aois_partly_outside_count_where_they_meet_the_scene(
    image: Path, ring: Callable[..., Ring], tmp_path: Path
) -> None:
    far = write(tmp_path / "far.json", feature(polygon(ring(*square(500, 500, 50)))))
    aoi = write(tmp_path / "aoi.json", feature(polygon(ring(*square(-50, -50, 100)))))

    scene = scene_with_aoi(image, far, aoi)

    windows = list(windows_for(scene, WindowSamplingConfig(size=25), np.random.default_rng(0)))
    assert windows == [Box(0, 0, 25, 25), Box(0, 25, 25, 50), Box(25, 0, 50, 25), Box(25, 25, 50, 50)]


# -- labels --------------------------------------------------------------------------------------------------------


def sources(uris: str | list[str]) -> dict[str, Any]:
    vectors = GeoJSONVectorSourceConfig(uris=uris)
    return {
        "segmentation": SemanticSegmentationLabelSourceConfig(
            raster_source=RasterizedSourceConfig(
                vector_source=vectors, rasterizer_config=RasterizerConfig(background_class_id=0)
            )
        ),
        "detection": ObjectDetectionLabelSourceConfig(vector_source=vectors),
        "classification": ChipClassificationLabelSourceConfig(
            vector_source=vectors, infer_cells=True, background_class_id=0, cell_sz=50
        ),
    }


def labels_of(image: Path, uris: str | list[str]) -> tuple[int, list[list[float]], int]:
    """Number of labelled pixels, boxes, and number of labelled cells of 50 x 50 pixels, of the image."""
    found: dict[str, Any] = {}
    for task, source in sources(uris).items():
        scene = SceneConfig(id="field", raster_source=RasterioSourceConfig(uris=str(image)), label_source=source)
        found[task] = scene.build(CLASSES).label_source
    pixels = int((found["segmentation"][:, :] == 1).sum())
    boxes = found["detection"][:, :][0].tolist()
    return pixels, boxes, sum(found["classification"].get_labels().get_class_ids())


def test_files_in_different_crs_are_put_together(image: Path, ring: Callable[..., Ring], tmp_path: Path) -> None:
    to_utm = Transformer.from_crs("epsg:4326", "epsg:32618", always_xy=True)
    second = [list(to_utm.transform(*corner)) for corner in ring(*square(100, 50, 50))]
    uris = [
        write(tmp_path / "degrees.json", feature(polygon(ring(*square(0, 0, 50))))),
        write(
            tmp_path / "metres.json",
            feature(polygon(second)),
            crs={"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32618"}},
        ),
    ]

    assert labels_of(image, uris) == (5000, [[0, 0, 50, 50], [50, 100, 100, 150]], 2)


@pytest.mark.parametrize("task", ["segmentation", "detection", "classification"])
def test_metres_among_degrees_in_one_file_are_named_or_left_out_with_a_warning(
    image: Path, ring: Callable[..., Ring], tmp_path: Path, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    metres = polygon([[500100.0, 3999900.0], [500150.0, 3999900.0], [500150.0, 3999850.0], [500100.0, 3999900.0]])
    both = write(tmp_path / "both.json", feature(polygon(ring(*square(0, 0, 50)))), feature(metres))
    config = SceneConfig(
        id="field", raster_source=RasterioSourceConfig(uris=str(image)), label_source=sources(both)[task]
    )

    try:
        source: Any = config.build(CLASSES).label_source
        window = source[Box(0, 0, 50, 50)]
    except RasterVisionError as e:
        assert "both.json" in str(e)
        assert "500100" in str(e)
    else:
        assert "both.json" in caplog.text
        assert "1 of 2 features" in caplog.text
        assert np.size(window[0] if task == "detection" else window) > 0


def test_no_labels_are_none(image: Path, tmp_path: Path) -> None:
    assert labels_of(image, write(tmp_path / "labels.json")) == (0, [], 0)


def test_heights_and_missing_geometries_do_not_matter(image: Path, ring: Callable[..., Ring], tmp_path: Path) -> None:
    high = [[*corner, 12.5] for corner in ring(*square(0, 0, 50))]
    uri = write(
        tmp_path / "labels.json",
        feature(None),
        feature(polygon(high)),
        feature({"type": "Polygon", "coordinates": []}),
        feature({"type": "GeometryCollection", "geometries": []}),
        {"type": "Feature", "properties": {"class_id": 1}},
        feature({"type": "MultiPolygon", "coordinates": [[ring(*square(100, 100, 50))], [ring(*square(150, 0, 50))]]}),
    )

    assert labels_of(image, uri) == (7500, [[0, 0, 50, 50], [100, 100, 150, 150], [0, 150, 50, 200]], 3)


def test_polygons_that_cross_themselves_are_repaired(image: Path, ring: Callable[..., Ring], tmp_path: Path) -> None:
    bow = ring((0, 0), (100, 100), (100, 0), (0, 100))
    uri = write(tmp_path / "labels.json", feature(polygon(bow)))

    pixels, boxes, _ = labels_of(image, uri)

    assert abs(pixels - 5000) <= 100  # two triangles
    assert sorted(boxes) == [[0, 0, 100, 50], [0, 50, 100, 100]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x00\x01\xff\xfe", r"labels\.json"),
        (b'{"type": "FeatureCollection", "features": [', r"labels\.json is not GeoJSON"),
        (b'{"type": "Topology"}', r"labels\.json is JSON but not GeoJSON: its type is 'Topology'"),
        (b"[1, 2]", r"labels\.json"),
        (b"", r"labels\.json"),
    ],
)
@pytest.mark.parametrize("task", ["segmentation", "detection", "classification"])
def test_files_that_are_no_geojson_are_named(
    image: Path, tmp_path: Path, content: bytes, words: str, task: str
) -> None:
    path = tmp_path / "labels.json"
    path.write_bytes(content)
    config = SceneConfig(
        id="field", raster_source=RasterioSourceConfig(uris=str(image)), label_source=sources(str(path))[task]
    )

    with pytest.raises(RasterVisionError, match=words):
        config.build(CLASSES).label_source[Box(0, 0, 50, 50)]  # type: ignore[index]


def test_an_unknown_crs_is_named(image: Path, ring: Callable[..., Ring], tmp_path: Path) -> None:
    crs = {"type": "name", "properties": {"name": "urn:of:nowhere"}}
    uri = write(tmp_path / "labels.json", feature(polygon(ring(*square(0, 0, 50)))), crs=crs)

    with pytest.raises(ConfigError, match=r"labels\.json has the crs 'urn:of:nowhere'"):
        labels_of(image, uri)


def test_labels_elsewhere_are_no_labels_here(image: Path, ring: Callable[..., Ring], tmp_path: Path) -> None:
    swapped = [[lat, lon] for lon, lat in ring(*square(0, 0, 50))]
    uri = write(tmp_path / "labels.json", feature(polygon(swapped)), feature(polygon(ring(*square(900, 0, 50)))))

    assert labels_of(image, uri)[:2] == (0, [])
