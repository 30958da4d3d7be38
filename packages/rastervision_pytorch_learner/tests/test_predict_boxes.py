from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rastervision.core.box import Box
from rastervision.core.data import ClassConfig, ObjectDetectionLabels, Scene
from rastervision.core.rv_pipeline import ObjectDetectionPredictOptions
from rastervision.pytorch_learner import (
    ObjectDetectionImageDataConfig,
    ObjectDetectionLearner,
    ObjectDetectionLearnerConfig,
    SolverConfig,
)
from rastervision.pytorch_learner.utils import predict_scene_od
from rastervision.testing import make_square_scene, square_classes

SQUARES = [Box(24, 32, 44, 62), Box(70, 8, 90, 20)]


class SquareFinder(nn.Module):
    """Called as the detectors of torchvision are: gives a box around each bright square that an image has all of.

    Boxes of half the size are added, with lower scores. The sizes of the batches are kept.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.batches: list[tuple[int, ...]] = []

    def forward(self, images: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        self.batches.append(tuple(images.shape))
        return [self.find(image) for image in images]

    def find(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        pixels = image[0].numpy()
        bright = np.pad(pixels > 0.6 * pixels.max(), 1)
        rows, cols = bright.any(axis=1), bright.any(axis=0)
        found = []
        if rows.any() and not (rows[[1, -2]].any() or cols[[1, -2]].any()):
            y, x = np.flatnonzero(rows) - 1, np.flatnonzero(cols) - 1
            found = [[x[0], y[0], x[-1] + 1, y[-1] + 1], [x[0], y[0], x[-1] + 1, y[0] + len(y) // 2]]
        boxes = torch.tensor(found, dtype=torch.float32).reshape(-1, 4)
        return {"boxes": boxes, "labels": torch.full((len(found),), 2), "scores": torch.linspace(0.9, 0.3, len(found))}


def learner_of(img_sz: int = 48) -> tuple[ObjectDetectionLearner, SquareFinder]:
    classes = ClassConfig(names=["background", "square"])
    data = ObjectDetectionImageDataConfig(class_config=classes, img_sz=img_sz, img_channels=3)
    cfg = ObjectDetectionLearnerConfig(data=data, solver=SolverConfig())
    model = SquareFinder()
    return ObjectDetectionLearner(cfg, model=model, training=False), model


def scene_of(tmp_path: Path, **kwargs: Any) -> Scene:
    config = make_square_scene(tmp_path, squares=SQUARES, labels=None, **kwargs)
    scene: Scene = config.build(square_classes(), str(tmp_path))
    return scene


def boxes_of(labels: ObjectDetectionLabels) -> list[list[float]]:
    return sorted(labels.get_npboxes().tolist())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_boxes_of_windows_are_moved_to_their_place(tmp_path: Path, dtype: Any) -> None:
    learner, model = learner_of()

    labels = predict_scene_od(
        learner, scene_of(tmp_path, dtype=dtype), ObjectDetectionPredictOptions(chip_sz=48, batch_sz=4)
    )

    # 3 rows of windows and 5 columns, half a window apart, in full batches
    assert model.batches == [(4, 3, 48, 48)] * 3 + [(3, 3, 48, 48)]
    assert len(labels) >= 4
    pruned = ObjectDetectionLabels.prune_duplicates(labels, score_thresh=0.5, merge_thresh=0.5)
    assert boxes_of(pruned) == [[24, 32, 44, 62], [70, 8, 90, 20]]
    assert pruned.get_class_ids().tolist() == [1, 1]
    np.testing.assert_allclose(pruned.get_scores(), 0.9)


def test_boxes_are_scaled_to_the_window(tmp_path: Path) -> None:
    learner, model = learner_of(img_sz=96)

    labels = predict_scene_od(learner, scene_of(tmp_path), ObjectDetectionPredictOptions(chip_sz=48, stride=16))

    assert model.batches[0] == (8, 3, 96, 96)
    found = ObjectDetectionLabels.prune_duplicates(labels, score_thresh=0.5, merge_thresh=0.5)
    # an interpolated edge may be half a pixel off
    np.testing.assert_allclose(boxes_of(found), [[24, 32, 44, 62], [70, 8, 90, 20]], atol=0.5)


def test_only_windows_in_the_aoi_are_predicted(tmp_path: Path) -> None:
    learner, model = learner_of()
    scene = scene_of(tmp_path, aois=[Box(0, 0, 96, 80)])

    labels = predict_scene_od(learner, scene, ObjectDetectionPredictOptions(chip_sz=48, stride=16))

    assert sum(shape[0] for shape in model.batches) == 4 * 3
    assert {tuple(box) for box in boxes_of(labels)} >= {(24, 32, 44, 62), (70, 8, 90, 20)}
    nothing = scene_of(tmp_path, aois=[Box(0, 0, 20, 20)])
    assert len(predict_scene_od(learner, nothing, ObjectDetectionPredictOptions(chip_sz=48))) == 0


def test_boxes_are_in_pixels_of_the_extent(tmp_path: Path) -> None:
    learner, _ = learner_of()
    scene = scene_of(tmp_path, bbox=(20, 16, 96, 128))

    labels = predict_scene_od(learner, scene, ObjectDetectionPredictOptions(chip_sz=48, stride=12))

    found = ObjectDetectionLabels.prune_duplicates(labels, score_thresh=0.5, merge_thresh=0.5)
    assert [4, 16, 24, 46] in boxes_of(found)


def test_boxes_beyond_the_scene_are_cut_or_left_out(tmp_path: Path) -> None:
    learner, model = learner_of()
    corners = [[0.0, 0, 10, 10], [35, 0, 47, 20], [38, 0, 48, 10]]

    def find(image: torch.Tensor) -> dict[str, torch.Tensor]:
        labels = torch.full((len(corners),), 2)
        return {"boxes": torch.tensor(corners), "labels": labels, "scores": torch.full((len(corners),), 0.9)}

    model.find = find  # type: ignore[method-assign]

    labels = predict_scene_od(learner, scene_of(tmp_path, size=(48, 40)), ObjectDetectionPredictOptions(chip_sz=48))

    # of the second box 5 of 12 columns are in the scene, of the third 2 of 10
    assert boxes_of(labels) == [[0, 0, 10, 10]]
    corners[1][0] = 33
    labels = predict_scene_od(learner, scene_of(tmp_path, size=(48, 40)), ObjectDetectionPredictOptions(chip_sz=48))
    assert boxes_of(labels) == [[0, 0, 10, 10], [0, 33, 20, 40]]


def test_an_image_that_cannot_be_read_stops_the_prediction(tmp_path: Path) -> None:
    learner, _ = learner_of()
    scene = scene_of(tmp_path)

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError("the disk is gone")

    scene.raster_source.get_chip = fail  # type: ignore[method-assign]

    with pytest.raises(OSError, match="the disk is gone"):
        predict_scene_od(learner, scene, ObjectDetectionPredictOptions(chip_sz=48))
