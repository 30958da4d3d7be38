"""Chip classification and chip regression from scenes to stored predictions."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rastervision.core.box import Box
from rastervision.core.data import (
    ChipClassificationLabelSourceConfig,
    ChipRegressionGeoJSONStoreConfig,
    ChipRegressionLabelSourceConfig,
    ClassConfig,
    ClassInferenceTransformerConfig,
    DatasetConfig,
    GeoJSONVectorSourceConfig,
    RasterioSourceConfig,
    SceneConfig,
)
from rastervision.core.rv_pipeline import (
    ChipClassificationConfig,
    ChipClassificationPredictOptions,
    ChipOptions,
    ChipRegressionConfig,
    PredictOptions,
    WindowSamplingConfig,
)
from rastervision.pytorch_backend import PyTorchChipClassificationConfig, PyTorchChipRegressionConfig
from rastervision.pytorch_learner import (
    ClassificationGeoDataConfig,
    ClassificationImageDataConfig,
    ClassificationModelConfig,
    ExternalModuleConfig,
    RegressionGeoDataConfig,
    RegressionImageDataConfig,
    RegressionModelConfig,
    SolverConfig,
)
from rastervision.testing import write_geotiff
from rastervision.testing.scenes import write_polygons

ZANZIBAR = Path(__file__).parents[5] / "shared" / "data" / "zanzibar_buildings"
CELL = 16
EXTENT = Box(0, 0, 96, 128)
BBOX = Box(16, 0, 96, 128)

SOLVER = SolverConfig(num_epochs=8, batch_sz=8, lr=0.03, seed=1)


def values_of(seed: int) -> np.ndarray[Any, Any]:
    """Return a value in 0..1 per cell of a scene."""
    return np.random.default_rng(seed).random((EXTENT.height // CELL, EXTENT.width // CELL))


def write_image(folder: Path, name: str, values: np.ndarray[Any, Any]) -> str:
    """Write an image whose cells have a brightness each."""
    rng = np.random.default_rng(0)
    bright = np.kron(values, np.ones((CELL, CELL)))[..., None] * 180 + 30
    pixels = np.clip(bright + rng.normal(0, 15, (*bright.shape[:2], 3)), 1, 255).astype(np.uint8)
    return str(write_geotiff(folder / f"{name}.tif", pixels, epsg=32618))


def classification_scene(folder: Path, name: str, seed: int) -> SceneConfig:
    """Make a scene whose bright cells are of class "bright"; labels are polygons a bit smaller than these."""
    values = np.where(values_of(seed) > 0.6, 0.9, 0.2)
    uri = write_image(folder, name, values)
    cells = [Box(CELL * r + 2, CELL * c + 2, CELL * r + 14, CELL * c + 14) for r, c in np.argwhere(values > 0.5)]
    vectors = GeoJSONVectorSourceConfig(
        uris=str(write_polygons(folder / f"{name}.json", uri, cells)),
        transformers=[ClassInferenceTransformerConfig(default_class_id=1)],
    )
    return SceneConfig(
        id=name,
        raster_source=RasterioSourceConfig(uris=uri, bbox=tuple(BBOX)),
        label_source=ChipClassificationLabelSourceConfig(
            vector_source=vectors, infer_cells=True, background_class_id=0, ioa_thresh=0.5
        ),
    )


def regression_scene(folder: Path, name: str, seed: int) -> SceneConfig:
    """Make a scene with a raster of the brightness of its cells, in pixels four times as large."""
    values = values_of(seed)
    uri = write_image(folder, name, values)
    coarse = np.kron(values, np.ones((4, 4))).astype(np.float32)
    path = write_geotiff(folder / f"{name}-value.tif", coarse, epsg=32618, pixel_size_m=4)
    return SceneConfig(
        id=name,
        raster_source=RasterioSourceConfig(uris=uri, bbox=tuple(BBOX)),
        label_source=ChipRegressionLabelSourceConfig(raster_source=RasterioSourceConfig(uris=str(path))),
    )


def make_pipeline(task: str, folder: Path, hub: dict[str, Any], geo: bool = False, **kwargs: Any) -> Any:
    make_scene = classification_scene if task == "cc" else regression_scene
    names = ["dark", "bright"] if task == "cc" else ["value"]
    tiny = ExternalModuleConfig(**hub, entrypoint_kwargs={"num_classes": len(names)})
    args = {"img_sz": CELL, "num_workers": 0}
    backend: Any
    if task == "cc":
        data_cls: Any = ClassificationGeoDataConfig if geo else ClassificationImageDataConfig
        model: Any = ClassificationModelConfig(external_def=tiny)
        backend = PyTorchChipClassificationConfig(model=model, solver=SOLVER, data=data_cls(**args))
    else:
        data_cls = RegressionGeoDataConfig if geo else RegressionImageDataConfig
        model = RegressionModelConfig(external_def=tiny)
        backend = PyTorchChipRegressionConfig(model=model, solver=SOLVER, data=data_cls(**args))
    backend.log_tensorboard = False
    cls: Any = ChipClassificationConfig if task == "cc" else ChipRegressionConfig
    config = cls(
        root_uri=str(folder / "run"),
        dataset=DatasetConfig(
            class_config=ClassConfig(names=names),
            train_scenes=[make_scene(folder, name, i) for i, name in enumerate("ab")],
            validation_scenes=[make_scene(folder, "v", 9)],
        ),
        chip_options=ChipOptions(sampling=WindowSamplingConfig(size=CELL)),
        backend=backend,
        **{"predict_options": PredictOptions(chip_sz=CELL), **kwargs},
    )
    config.update()
    config.recursive_validate_config()
    return config


def run(config: Any, folder: Path) -> list[str]:
    pipeline = config.build(str(folder / "tmp"))
    for command in pipeline.commands:
        getattr(pipeline, command)()
    return list(pipeline.commands)


def stored(config: Any) -> list[dict[str, Any]]:
    uri = config.dataset.validation_scenes[0].label_store.uri
    features: list[dict[str, Any]] = json.loads(Path(uri).read_text())["features"]
    return features


def evaluated(config: Any) -> dict[str, Any]:
    content = json.loads(Path(config.evaluators[0].get_output_uri("validation_scenes")).read_text())
    return {item["class_name"]: item for item in content["overall"]}


@pytest.mark.parametrize("geo", [False, True])
def test_classes_of_cells_are_learned(geo: bool, tmp_path: Path, hub: dict[str, Any]) -> None:
    options = ChipClassificationPredictOptions(chip_sz=CELL, probabilities=geo)
    config = make_pipeline("cc", tmp_path, hub, geo, predict_options=options)

    commands = run(config, tmp_path)

    assert commands == [*(() if geo else ("chip",)), "train", "predict", "eval", "bundle"]
    assert evaluated(config)["average"]["metrics"]["recall"] > 0.9  # accuracy
    features = stored(config)
    assert len(features) == (BBOX.height // CELL) * (BBOX.width // CELL)
    for properties in (feature["properties"] for feature in features):
        scores = properties["scores"]
        assert properties["class_id"] == int(np.argmax(scores))
        assert properties["class_name"] == ["dark", "bright"][properties["class_id"]]
        if geo:
            assert sum(scores) == pytest.approx(1, abs=1e-5)
    assert (tmp_path / "run" / "eval" / "v.png").is_file()
    if not geo:
        assert max(max(feature["properties"]["scores"]) for feature in features) > 1


@pytest.mark.parametrize("geo", [False, True])
def test_numbers_of_cells_are_learned(geo: bool, tmp_path: Path, hub: dict[str, Any]) -> None:
    config = make_pipeline("regression", tmp_path, hub, geo)

    run(config, tmp_path)

    metrics = evaluated(config)["value"]["metrics"]
    assert metrics["mae"] < 0.1
    assert metrics["r2"] > 0.8
    assert all(0 < feature["properties"]["value"] + 0.5 < 2 for feature in stored(config))


def test_chips_have_their_targets_in_a_table(tmp_path: Path, hub: dict[str, Any]) -> None:
    config = make_pipeline("regression", tmp_path, hub)

    config.build(str(tmp_path / "tmp")).chip()

    (path,) = Path(config.chip_uri).glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("train/labels.csv").decode())))
        assert {f"train/img/{row['file']}" for row in rows} < set(archive.namelist())
    assert len(rows) == 2 * (BBOX.height // CELL) * (BBOX.width // CELL)
    values = {row["file"]: float(row["value"]) for row in rows}
    assert values["a-0-16-16x16.png"] == pytest.approx(values_of(0)[1, 1], abs=0.05)


def test_cells_without_a_known_target_are_not_chipped(tmp_path: Path, hub: dict[str, Any]) -> None:
    config = make_pipeline("regression", tmp_path, hub)
    path = write_geotiff(tmp_path / "part.tif", np.ones((24, 8), np.float32), epsg=32618, pixel_size_m=4)
    for scene in (*config.dataset.train_scenes, *config.dataset.validation_scenes):
        scene.label_source.raster_source.uris = [str(path)]

    config.build(str(tmp_path / "tmp")).chip()

    (zip_path,) = Path(config.chip_uri).glob("*.zip")
    with zipfile.ZipFile(zip_path) as archive:
        names = [name for name in archive.namelist() if name.startswith("train/img/")]
    # the raster has two of the eight columns of cells
    assert sorted({name.split("-")[2] for name in names}) == ["0", "16"]


def test_windows_and_stride_can_be_chosen_for_a_scene(tmp_path: Path, hub: dict[str, Any]) -> None:
    config = make_pipeline("cc", tmp_path, hub)
    pipeline = config.build(str(tmp_path / "tmp"))
    pipeline.chip()
    pipeline.train()
    pipeline.build_backend()
    scene = config.dataset.validation_scenes[0].build(config.dataset.class_config)

    labels = pipeline.backend.predict_scene(scene, chip_sz=32, stride=16)

    assert {cell.size for cell in labels.get_cells()} == {(32, 32)}
    # windows begin at each step as long as one covers the end
    assert sorted({cell.xmin for cell in labels.get_cells()}) == [0, 16, 32, 48, 64, 80, 96]
    assert len(pipeline.backend.predict_scene(scene)) == 40


def test_numbers_can_be_stored_in_a_geopackage(tmp_path: Path, hub: dict[str, Any]) -> None:
    config = make_pipeline("regression", tmp_path, hub)
    uri = str(tmp_path / "numbers.gpkg")
    config.dataset.validation_scenes[0].label_store = ChipRegressionGeoJSONStoreConfig(uri=uri)

    run(config, tmp_path)

    assert evaluated(config)["value"]["metrics"]["mae"] < 0.1


@pytest.mark.skipif(not ZANZIBAR.is_dir(), reason="needs real imagery in ../shared/data")
def test_cells_of_real_imagery_from_chips_to_evaluation(tmp_path: Path, hub: dict[str, Any]) -> None:
    def scene(name: str, label_source: Any, aoi_uris: list[str] | None) -> SceneConfig:
        image = RasterioSourceConfig(uris=str(ZANZIBAR / "images" / f"{name}.tif"))
        return SceneConfig(id=name, raster_source=image, label_source=label_source, aoi_uris=aoi_uris)

    config = make_pipeline("cc", tmp_path, hub, predict_options=PredictOptions(chip_sz=128))
    # cells that are given, which an AOI of the same cells picks; and cells that are inferred from buildings
    cells = str(ZANZIBAR / "chips" / "znz_r0c1.geojson")
    given = ChipClassificationLabelSourceConfig(vector_source=GeoJSONVectorSourceConfig(uris=cells))
    buildings = str(ZANZIBAR / "labels" / "znz_r0c3.geojson")
    inferred = ChipClassificationLabelSourceConfig(
        vector_source=GeoJSONVectorSourceConfig(uris=buildings),
        infer_cells=True,
        background_class_id=0,
        ioa_thresh=0.1,
        use_intersection_over_cell=True,
        cell_sz=128,
    )
    config.dataset.train_scenes = [scene("znz_r0c1", given, [cells])]
    config.dataset.validation_scenes = [scene("znz_r0c3", inferred, None)]
    config.chip_options.sampling = WindowSamplingConfig(size=128)
    config.update()

    run(config, tmp_path)

    (path,) = Path(config.chip_uri).glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    labels = json.loads(Path(cells).read_text())["features"]
    for class_id, name in enumerate(["dark", "bright"]):
        expected = sum(feature["properties"]["class_id"] == class_id for feature in labels)
        assert sum(n.startswith(f"train/{name}/") for n in names) == expected
    assert len(stored(config)) == 64
    average = evaluated(config)["average"]
    assert average["gt_count"] == 64
    assert average["metrics"]["recall"] > 0.5
