"""Trees on real aerial imagery, from training to boxes, at the command line; and boxes of earlier releases."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform as transform_coords

if TYPE_CHECKING:
    from conftest import Project
    from numpy.typing import NDArray

SHARED = Path(__file__).parent.parent.parent / "shared"
NEON, SAVED = SHARED / "data" / "neon_trees", SHARED / "saved"

needs_neon = pytest.mark.skipif(not NEON.is_dir(), reason="needs real imagery in ../shared/data")
needs_saved = pytest.mark.skipif(not SAVED.is_dir(), reason="needs files of old releases in ../shared/saved")

CONFIG = """
from rastervision.core.data import *
from rastervision.core.rv_pipeline import *
from rastervision.pytorch_backend import PyTorchObjectDetectionConfig
from rastervision.pytorch_learner import *


def get_config(runner, root_uri, data_uri):
    def scene(name):
        return SceneConfig(
            id=name,
            raster_source=RasterioSourceConfig(uris=f"{data_uri}/images/{name}.tif"),
            label_source=ObjectDetectionLabelSourceConfig(
                vector_source=GeoJSONVectorSourceConfig(uris=f"{data_uri}/labels/{name}.geojson")
            ),
        )

    few_proposals = {
        "anchor_sizes": [16, 32, 64, 128, 256],
        "box_head_size": 128,
        "rpn_post_nms_top_n_train": 100,
        "rpn_post_nms_top_n_test": 50,
        "box_batch_size_per_image": 16,
        "box_score_thresh": 0.0,
    }
    return ObjectDetectionConfig(
        root_uri=root_uri,
        dataset=DatasetConfig(
            class_config=ClassConfig(names=["background", "tree"]),
            train_scenes=[scene("TEAK_044")],
            validation_scenes=[scene("TEAK_047")],
        ),
        chip_options=ObjectDetectionChipOptions(
            sampling=ObjectDetectionWindowSamplingConfig(size=128, stride=128, ioa_thresh=0.5, clip=True)
        ),
        backend=PyTorchObjectDetectionConfig(
            data=ObjectDetectionImageDataConfig(img_sz=128, num_workers=0),
            model=ObjectDetectionModelConfig(backbone="resnet18", pretrained=False, extra_args=few_proposals),
            solver=SolverConfig(lr=3e-4, num_epochs=2, batch_sz=4, seed=1, one_cycle=False),
            log_tensorboard=False,
        ),
        predict_options=ObjectDetectionPredictOptions(chip_sz=128, stride=96, score_thresh=0.0),
    )
"""

Boxes = tuple["NDArray[np.float64]", "NDArray[np.int64]", "NDArray[np.float64]"]


def read_boxes(labels: Path, image: Path) -> Boxes:
    """Return boxes (N, 4) as ymin, xmin, ymax, xmax in pixels of the image, class ids and scores."""
    features = json.loads(labels.read_text())["features"]
    rings = np.array([f["geometry"]["coordinates"][0] for f in features])
    with rasterio.open(image) as src:
        xs, ys = transform_coords("EPSG:4326", src.crs, rings[..., 0].ravel(), rings[..., 1].ravel())
        x, y = ~src.transform @ (np.array(xs), np.array(ys))
    x, y = x.reshape(rings.shape[:2]), y.reshape(rings.shape[:2])
    boxes = np.stack([y.min(1), x.min(1), y.max(1), x.max(1)], axis=1)
    ids = np.array([f["properties"]["class_id"] for f in features])
    return boxes, ids, np.array([f["properties"]["score"] for f in features])


@needs_neon
def test_trees_from_training_to_boxes(project: Project, tmp_path: Path) -> None:
    project.config.write_text(CONFIG)
    pairs = ("-a", "root_uri", str(project.out), "-a", "data_uri", str(NEON))

    done = project.cli("run", "inprocess", str(project.config), *pairs)

    assert done.returncode == 0, done.stderr
    (chips,) = (project.out / "chip").glob("*.zip")
    with zipfile.ZipFile(chips) as archive:
        labels = {split: json.loads(archive.read(f"{split}/labels.json")) for split in ("train", "valid")}
        names = set(archive.namelist())
    assert {f"train/img/{image['file_name']}" for image in labels["train"]["images"]} <= names
    assert 30 <= len(labels["train"]["annotations"]) <= 60
    log = (project.out / "train" / "log.csv").read_text().splitlines()
    assert len(log) == 3
    assert "mAP50" in log[0]
    boxes, ids, scores = read_boxes(project.out / "predict" / "TEAK_047.json", NEON / "images" / "TEAK_047.tif")
    assert len(boxes) > 0
    assert set(ids.tolist()) <= {0, 1}
    # windows reach over the edge of the image of 400x400 pixels, boxes do not
    assert boxes.min() >= -1e-3
    assert boxes.max() <= 400 + 1e-3
    report = json.loads((project.out / "eval" / "validation_scenes" / "eval.json").read_text())
    tree = next(item for item in report["overall"] if item["class_name"] == "tree")
    assert tree["gt_count"] == 20
    assert tree["pred_count"] == (ids == 1).sum()

    bundle, image = str(project.out / "bundle" / "model-bundle.zip"), str(NEON / "images" / "TEAK_047.tif")
    again = project.cli("predict", bundle, image, str(tmp_path / "again.json"))

    assert again.returncode == 0, again.stderr
    found = read_boxes(tmp_path / "again.json", Path(image))
    np.testing.assert_allclose(found[0], boxes, atol=1e-3)
    np.testing.assert_allclose(found[2], scores, atol=1e-6)


@needs_saved
@pytest.mark.parametrize("release", ["0.13.1", "0.21.3", "0.31.1"])
def test_bundles_find_the_boxes_that_their_release_found(release: str, tmp_path: Path) -> None:
    from rastervision.core.predictor import Predictor

    folder = SAVED / release / "od"
    predictor: Any = Predictor(str(folder / "model-bundle.zip"), str(tmp_path / "tmp"))

    predictor.predict([str(folder / "input.tif")], str(tmp_path / "boxes.json"))

    boxes, ids, scores = read_boxes(tmp_path / "boxes.json", folder / "input.tif")
    old_boxes, old_ids, old_scores = read_boxes(folder / "predict" / "labels.json", folder / "input.tif")
    # they cut off fractions of pixels, and were half a pixel off
    grid = np.floor(boxes + 1e-3) + 0.5
    distances = np.abs(grid[:, None] - old_boxes[None]).max(axis=2)
    nearest = distances.argmin(axis=1)
    same = distances.min(axis=1) < 0.1
    np.testing.assert_allclose(scores[same], old_scores[nearest[same]], atol=1e-5)
    np.testing.assert_array_equal(ids[same], old_ids[nearest[same]])
    assert len(boxes) == 81
    if release == "0.31.1":
        assert len(old_boxes) == 81
        assert same.all()
    else:
        # there, boxes of windows beyond the edge of the image suppressed some of these
        assert same.sum() >= {"0.13.1": 64, "0.21.3": 80}[release]
