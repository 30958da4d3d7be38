"""Predict the boxes of a scene window by window, and move them to their place.

Next: `rastervision.pytorch_backend.window_stream`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rastervision.core.data import ObjectDetectionLabels
from rastervision.pytorch_backend.window_stream import stream_windows
from rastervision.pytorch_learner.dataset.transform import to_image
from rastervision.pytorch_learner.predict import input_transform

if TYPE_CHECKING:
    from rastervision.core.box import Box
    from rastervision.core.data import Scene
    from rastervision.core.rv_pipeline import ObjectDetectionPredictOptions
    from rastervision.pytorch_learner.object_detection_learner import ObjectDetectionLearner

__all__ = ["predict_scene_od"]

# least share of a box's area that must lie in the scene
_IN_SCENE = 0.5


def predict_scene_od(
    learner: ObjectDetectionLearner, scene: Scene, predict_options: ObjectDetectionPredictOptions
) -> ObjectDetectionLabels:
    """Return the boxes that the model finds in a scene, in pixels of its extent.

    Windows overlap, so an object may have several boxes: `ObjectDetectionLabels.prune_duplicates` keeps the best. Boxes
    are cut at the edges of the scene, and those that are for the most part outside are left out.

    Args:
        learner: With a trained model.
        scene: The scene; only windows in its AOI are predicted.
        predict_options: Window size, stride, and batch size.
    """
    chip_sz = predict_options.chip_sz
    prepare = input_transform(learner, chip_sz)

    @torch.inference_mode()
    def model(chips: torch.Tensor) -> list[dict[str, Any]]:
        found = learner.predict(prepare(chips), out_shape=(chip_sz, chip_sz))
        boxes: list[dict[str, Any]] = learner.output_to_numpy(found)
        return boxes

    windows: list[Box] = []
    predictions: list[dict[str, Any]] = []
    for batch, boxes in stream_windows(scene, predict_options, to_image, model):
        windows += batch
        predictions += boxes
    labels = ObjectDetectionLabels.from_predictions(windows, predictions)
    # the last windows of rows and columns reach beyond the scene
    return ObjectDetectionLabels.get_overlapping(labels, scene.extent, _IN_SCENE, clip=True)
