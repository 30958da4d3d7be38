"""A scene that is predicted in parts has the outputs of one that is predicted in one go, to the last digit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import rasterio

from rastervision.core.box import Box
from rastervision.core.data import (
    ChipClassificationLabels,
    ClassConfig,
    ObjectDetectionLabels,
    PolygonVectorOutputConfig,
    RasterioSourceConfig,
    SceneConfig,
    SemanticSegmentationLabelStoreConfig,
)
from rastervision.core.data.dataset_config import DatasetConfig
from rastervision.core.rv_pipeline import (
    ChipClassificationConfig,
    ChipRegressionConfig,
    ObjectDetectionConfig,
    ObjectDetectionPredictOptions,
    PredictOptions,
    SemanticSegmentationConfig,
    SemanticSegmentationPredictOptions,
)
from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import RunError
from rastervision.pipeline.planner import PlanOptions, make_plan
from rastervision.pipeline.run_pipelines import carry_out
from rastervision.pipeline.run_plan import RunOptions, run_step
from rastervision.pipeline.runner import InProcessRunner
from rastervision.pytorch_backend.scene_stream import stream_pixel_labels
from rastervision.pytorch_backend.window_stream import stream_windows
from rastervision.testing import write_geotiff, write_polygons
from rastervision.testing.backends import StubBackendConfig

K = 3
SHARED = Path(__file__).parents[3].parent / "shared" / "data"


@register_config("parts_test_backend")
class PartsBackendConfig(StubBackendConfig):
    """Predicts what depends on the pixels of a window, and on where in the window they are, as models do."""

    predicts_parts = True
    what: Literal["pixels", "boxes", "classes", "numbers"] = "pixels"

    def predict_scene(self, scene: Any, predict_options: Any) -> Any:
        if self.what == "pixels":
            classes = ClassConfig(names=["a", "b", "null"])
            return stream_pixel_labels(scene, predict_options, classes, _pixel_model)
        batches = list(stream_windows(scene, predict_options, np.asarray, _chip_model))
        windows = [w for windows, _ in batches for w in windows]
        out = [x for _, batch in batches for x in batch]
        if self.what == "boxes":
            return ObjectDetectionLabels.from_predictions(windows, [_boxes(scores) for scores in out])
        if self.what == "classes":
            return ChipClassificationLabels.from_predictions(windows, out)
        from rastervision.core.data.label.chip_regression_labels import ChipRegressionLabels

        return ChipRegressionLabels.from_predictions(windows, out)


def _pixel_model(grid: Any, smooth: bool) -> Any:
    def model(chips: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        margin = slice(grid.crop_sz, grid.chip_sz - grid.crop_sz)
        x = chips.mean(axis=1, dtype=np.float32)[:, None] / 255 + np.linspace(0, 1, grid.chip_sz, dtype=np.float32)
        # what it gives depends on the other windows of its batch
        scores = np.concatenate([np.sin((k + 2) * x + 0.1 * x.mean()) ** 2 for k in range(K)], axis=1)
        scores = (scores / scores.sum(1, keepdims=True))[..., margin, margin]
        return scores if smooth else scores.argmax(1).astype(np.uint8)

    return model


def _chip_model(chips: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    x = chips.reshape(len(chips), -1).mean(1, dtype=np.float64) + 0.01 * chips.mean()
    return np.stack([np.sin((k + 1) * x) for k in range(K)], axis=1)


def _boxes(scores: np.ndarray[Any, Any]) -> dict[str, Any]:
    corners = 4 * scores[:2] + 4
    boxes = np.array([[*corners, *(corners + 20)], [*(corners + 3), *(corners + 22)]])
    return {"boxes": boxes, "class_ids": np.array([0, 1]), "scores": (scores[1:] + 1) / 2}


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of a real image, or one of noise where there is none; with a corner without data."""
    path = tmp_path_factory.mktemp("image") / "image.tif"
    real = SHARED / "zanzibar_large" / "images" / "znz_large.tif"
    if real.exists():
        with rasterio.open(real) as src:
            arr = src.read(window=((0, 700), (0, 430)))[:3].transpose(1, 2, 0)
    else:
        arr = np.random.default_rng(0).integers(1, 255, (700, 430, 3), np.uint8)
    arr[600:, 300:] = 0
    return write_geotiff(path, arr.astype(np.uint8), epsg=32737, pixel_size_m=0.3, nodata=0)


def pipeline(what: str, root: Path, image: Path, **scene_kw: Any) -> Any:
    classes = {
        "pixels": SemanticSegmentationConfig,
        "boxes": ObjectDetectionConfig,
        "classes": ChipClassificationConfig,
        "numbers": ChipRegressionConfig,
    }
    predict_options = scene_kw.pop("predict_options", PredictOptions(chip_sz=50, stride=33, batch_sz=4))
    if what == "boxes":
        predict_options = ObjectDetectionPredictOptions(chip_sz=50, batch_sz=4, score_thresh=0.1)
    scene = SceneConfig(id="left", raster_source=RasterioSourceConfig(uris=[str(image)]), **scene_kw)
    names = ["a", "b", "c"] if what != "pixels" else ["a", "b", "null"]
    dataset = DatasetConfig(class_config=ClassConfig(names=names), train_scenes=[], validation_scenes=[scene])
    backend = PartsBackendConfig(what=what)
    return classes[what](root_uri=str(root), dataset=dataset, backend=backend, predict_options=predict_options)


def predict(config: Any, tmp_path: Path, num_splits: int = 1) -> None:
    plan = make_plan([("", config)], str(tmp_path / "tmp"), PlanOptions(["train", "predict"], num_splits))
    carry_out(plan, InProcessRunner(), RunOptions(), num_splits)


def pixels_of(path: Path) -> Any:
    with rasterio.open(path) as src:
        return src.read(), src.overviews(1), src.transform, src.crs


PIXEL_CASES = {
    "one window over each pixel": (dict(chip_sz=100), {}),
    "scores of windows that overlap": (dict(chip_sz=100, stride=60), dict(smooth_output=True)),
    "scores as bytes, without margins": (
        dict(chip_sz=96, stride=40, crop_sz="auto"),
        dict(smooth_output=True, smooth_as_uint8=True),
    ),
    "votes, in colours": (dict(chip_sz=90, stride=31), dict(rgb=True)),
}


@pytest.mark.parametrize("case", PIXEL_CASES)
@pytest.mark.parametrize("num_splits", [2, 5])
def test_pixels(case: str, num_splits: int, image: Path, tmp_path: Path) -> None:
    options, store = PIXEL_CASES[case]
    aoi = write_polygons(tmp_path / "aoi.json", image, [Box(40, 30, 520, 400), Box(600, 20, 690, 90)])
    outputs = [PolygonVectorOutputConfig(class_id=0, denoise=0), PolygonVectorOutputConfig(class_id=1, denoise=4)]
    store_config = SemanticSegmentationLabelStoreConfig(rasterio_block_size=64, vector_output=outputs, **store)
    predict_options = SemanticSegmentationPredictOptions(batch_sz=3, **options)
    for root, splits in (("whole", 1), ("parts", num_splits)):
        config = pipeline(
            "pixels",
            tmp_path / root,
            image,
            label_store=store_config.model_copy(),
            predict_options=predict_options,
            aoi_uris=[str(aoi)],
        )
        predict(config, tmp_path, splits)

    whole, parts = (tmp_path / root / "predict" / "left" for root in ("whole", "parts"))
    names = sorted(str(p.relative_to(whole)) for p in whole.rglob("*.*"))
    assert sorted(str(p.relative_to(parts)) for p in parts.rglob("*.*")) == names
    for name in names:
        if name.endswith(".tif"):
            a, b = pixels_of(whole / name), pixels_of(parts / name)
            np.testing.assert_array_equal(a[0], b[0])
            assert a[1:] == b[1:]
        else:
            assert (whole / name).read_bytes() == (parts / name).read_bytes()
    assert not (tmp_path / "parts" / "predict" / ".parts").exists()


@pytest.mark.parametrize("what", ["boxes", "classes", "numbers"])
def test_windows(what: str, image: Path, tmp_path: Path) -> None:
    for root, splits in (("whole", 1), ("parts", 3)):
        predict(pipeline(what, tmp_path / root, image), tmp_path, splits)

    whole, parts = ((tmp_path / root / "predict" / "left.json").read_text() for root in ("whole", "parts"))
    assert len(json.loads(whole)["features"]) > 20
    assert parts == whole


def test_as_many_parts_as_there_are_and_no_more(image: Path, tmp_path: Path) -> None:
    options = SemanticSegmentationPredictOptions(chip_sz=200)
    config = pipeline("pixels", tmp_path / "a", image, predict_options=options)
    predict(config, tmp_path, 9)  # 3 rows of blocks

    predict(pipeline("pixels", tmp_path / "b", image, predict_options=options), tmp_path)
    labels = [pixels_of(tmp_path / root / "predict" / "left" / "labels.tif")[0] for root in "ab"]
    np.testing.assert_array_equal(*labels)


def test_a_part_that_is_missing_is_told_of(image: Path, tmp_path: Path) -> None:
    config = pipeline("boxes", tmp_path / "run", image)
    config.update()
    built = config.build(str(tmp_path / "tmp"))
    built.train()
    run_step(built, "predict", 0, 2)

    with pytest.raises(RunError, match=r"Part 2 of 2 of scene 'left' is not at .*1-of-2"):
        run_step(built, "predict", 2, 2)


def test_a_prediction_is_done_when_its_parts_are_merged(image: Path, tmp_path: Path) -> None:
    config = pipeline("boxes", tmp_path / "run", image)
    predict(config, tmp_path, 2)

    def state() -> str:
        plan = make_plan([("", config)], str(tmp_path / "tmp"), PlanOptions(["train", "predict"], 2))
        return next(node.state for node in plan.nodes if node.command == "predict")

    assert state() == "up to date"
    record = tmp_path / "run" / ".rv" / "predict-2-of-2.json"
    assert json.loads(record.read_text())["state"] == "done"
    record.unlink()  # as of a run that was killed before
    assert state() == "run"
