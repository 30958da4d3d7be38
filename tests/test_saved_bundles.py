"""Bundles that releases 0.13 to 0.31 wrote predict what those releases predicted; see ../shared/saved/MANIFEST.md."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from pyproj import Transformer

from rastervision.core.predictor import Predictor, ScenePredictor
from rastervision.pipeline.errors import UntrustedCodeError

SAVED = Path(__file__).parent.parent.parent / "shared" / "saved"
BUNDLES = {"/".join(p.parts[-3:-1]): p for p in sorted(SAVED.glob("*/*/model-bundle.zip"))}

pytestmark = [
    pytest.mark.skipif(not SAVED.is_dir(), reason="needs bundles of old releases in ../shared/saved"),
    # of PyTorch, about files that old releases of it wrote
    pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch"),
]
needs_onnxruntime = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs onnxruntime")


def of_task(*names: str) -> list[str]:
    return [key for key in BUNDLES if key.split("/")[1] in names]


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASTERVISION_TRUST_EXTERNAL_CODE", "1")


@pytest.fixture(autouse=True)
def nobody_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings, and no code of this user that is remembered."""
    monkeypatch.setenv("RV_CONFIG_DIR", str(tmp_path / "settings"))


def predict(key: str, tmp_path: Path) -> Path:
    out = tmp_path / "out"
    Predictor(str(BUNDLES[key]), str(tmp_path / "work")).predict(str(SAVED / key / "input.tif"), str(out))
    return out


def read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as src:
        return src.read()  # type: ignore[no-any-return]


def share_equal(a: NDArray[Any], b: NDArray[Any]) -> float:
    assert a.shape == b.shape
    return float((a == b).mean())


def reference(key: str, name: str) -> Path:
    """Return a file that 0.31.1 predicted with the bundle, which is that of the older release if both are equal."""
    path = SAVED / key / "predict-by-0.31.1" / name
    return path if path.exists() else SAVED / key / "predict" / name


@pytest.mark.parametrize("key", of_task("ss", "ss_ext"))
def test_segmentation(key: str, tmp_path: Path, trusting: None) -> None:
    out = predict(key, tmp_path)

    assert share_equal(read(out / "labels.tif"), read(reference(key, "labels.tif"))) >= 0.999
    if (SAVED / key / "predict/scores.tif").exists():
        check_scores(out, key)


def check_scores(out: Path, key: str) -> None:
    """Scores are 0 to 255, the mean of up to four float16 numbers in 0.31: its rounding may fall on the other side."""
    ours, theirs = read(out / "scores.tif").astype(int), read(reference(key, "scores.tif")).astype(int)
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - theirs).mean() < 0.1
    np.testing.assert_array_equal(np.load(out / "pixel_hits.npy"), np.load(reference(key, "pixel_hits.npy")))


def test_somebody_elses_code_is_not_run(tmp_path: Path) -> None:
    with pytest.raises(UntrustedCodeError, match="RASTERVISION_TRUST_EXTERNAL_CODE"):
        predict("0.31.1/ss_ext", tmp_path)
    assert not (tmp_path / "out").exists()


def test_a_bundle_for_several_images_per_scene_loads(tmp_path: Path, trusting: None) -> None:
    predictor = ScenePredictor(str(BUNDLES["0.13.1/ss_multi"]), tmp_dir=str(tmp_path))

    predictor.pipeline.build_backend(f"{predictor.bundle_dir}/model-bundle.zip")

    assert predictor.pipeline.backend is not None


def boxes_of(path: Path, image: Path) -> tuple[NDArray[np.float64], list[dict[str, Any]]]:
    """Return (N, 4) xmin, ymin, xmax, ymax in pixels of the image, and the properties of each box."""
    with rasterio.open(image) as src:
        crs, to_pixel = src.crs, ~src.transform
    to_map = Transformer.from_crs("EPSG:4326", crs.to_wkt(), always_xy=True)
    features = json.loads(path.read_text())["features"]
    boxes = []
    for feature in features:
        lon, lat = np.array(feature["geometry"]["coordinates"][0]).T
        x, y = to_pixel @ np.array(to_map.transform(lon, lat))
        boxes.append((x.min(), y.min(), x.max(), y.max()))
    return np.array(boxes).reshape(-1, 4), [feature["properties"] for feature in features]


def check_cells(out: Path, key: str) -> None:
    image = SAVED / key / "input.tif"
    ours, our_properties = boxes_of(out, image)
    theirs, their_properties = boxes_of(reference(key, "labels.json"), image)

    theirs -= 0.5  # they took a corner for the centre of a pixel
    order = np.abs(ours[:, None] - theirs[None]).max(-1).argmin(0)
    np.testing.assert_allclose(ours[order], theirs, atol=1e-2)
    assert sorted(order) == list(range(len(ours)))
    for i, expected in zip(order, their_properties, strict=True):
        assert our_properties[i]["class_id"] == expected["class_id"]
        np.testing.assert_allclose(our_properties[i]["scores"], expected["scores"], atol=1e-4)


@pytest.mark.parametrize("key", of_task("cc"))
def test_chip_classification(key: str, tmp_path: Path) -> None:
    check_cells(predict(key, tmp_path), key)


def test_chip_classification_with_a_base_transform(tmp_path: Path) -> None:
    # 0.13 applied it in training but not in prediction, so there is nothing to compare with
    boxes, properties = boxes_of(predict("0.13.1/cc_base_transform", tmp_path), SAVED / "0.13.1/cc/input.tif")

    assert len(boxes) == 64
    assert all(np.isfinite(p["scores"]).all() for p in properties)


@pytest.mark.parametrize("key", of_task("od"))
def test_object_detection(key: str, tmp_path: Path) -> None:
    out = predict(key, tmp_path)

    # boxes up to 0.30 were also from windows over the edges of the image, and suppressed each other in other ways;
    # those that were kept nevertheless are ours
    overlap, differences = compare_boxes(out, key, key)
    assert (overlap >= 0.99).mean() >= 0.75
    assert differences[overlap >= 0.99].max() <= 1e-4
    # all have the same weights; the batch norm of 0.13 had no epsilon
    overlap, differences = compare_boxes(out, key, "0.31.1/od")
    assert len(overlap) == 81
    assert (overlap >= 0.99).mean() >= 0.98
    assert differences.max() <= (5e-4 if "0.13.1" in key else 1e-4)


def compare_boxes(out: Path, key: str, other: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the IoU of each of our boxes with the most similar one of a recorded prediction, and how scores differ."""
    ours, our_properties = boxes_of(out, SAVED / key / "input.tif")
    theirs, their_properties = boxes_of(SAVED / other / "predict/labels.json", SAVED / other / "input.tif")
    # 0.31 cut boxes to whole pixels, and took a corner for the centre of a pixel
    overlap = iou(np.floor(ours + 1e-3), np.round(theirs - 0.5))
    our_classes, their_classes = (np.array([p["class_id"] for p in ps]) for ps in (our_properties, their_properties))
    overlap[our_classes[:, None] != their_classes[None]] = 0
    our_scores, their_scores = (np.array([p["score"] for p in ps]) for ps in (our_properties, their_properties))
    best = overlap.argmax(1)
    return overlap.max(1), np.abs(our_scores - their_scores[best])


def iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (N, M) intersections over unions of boxes."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    common = sides.clip(0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    return common / (areas[0][:, None] + areas[1][None] - common)  # type: ignore[no-any-return]


@needs_onnxruntime
@pytest.mark.parametrize("key", [key for key in of_task("cc", "ss_ext") if "0.13" not in key])
def test_exported_models_of_old_bundles(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RASTERVISION_USE_ONNX", "1")  # code in the bundle is not needed then

    out = predict(key, tmp_path)

    if "ss" in key:
        assert share_equal(read(out / "labels.tif"), read(reference(key, "labels.tif"))) >= 0.999
        check_scores(out, key)
    else:
        check_cells(out, key)
