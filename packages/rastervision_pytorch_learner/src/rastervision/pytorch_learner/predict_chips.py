"""Predict scenes window by window with a learner: a class, or numbers, for each window.

Next: `rastervision.pytorch_backend.window_stream`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from rastervision.core.data.label.chip_classification_labels import ChipClassificationLabels
from rastervision.core.data.label.chip_regression_labels import ChipRegressionLabels
from rastervision.pytorch_backend.window_stream import stream_windows
from rastervision.pytorch_learner.dataset.transform import to_image
from rastervision.pytorch_learner.predict import input_transform

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rastervision.core.box import Box
    from rastervision.core.data import Scene
    from rastervision.core.rv_pipeline import PredictOptions
    from rastervision.pytorch_learner.classification_learner import ClassificationLearner
    from rastervision.pytorch_learner.learner import Learner
    from rastervision.pytorch_learner.regression_learner import RegressionLearner

__all__ = ["predict_scene_cc", "predict_scene_regression"]


def predict_scene_cc(
    learner: ClassificationLearner, scene: Scene, predict_options: PredictOptions
) -> ChipClassificationLabels:
    """Return the class and the scores of each window of a scene, in pixels of its extent.

    Args:
        learner: With a trained model.
        scene: The scene; only windows in its AOI are predicted.
        predict_options: Window size, stride and batch size. Scores are what the model gives, unless the options ask
            for probabilities.
    """
    probabilities = bool(getattr(predict_options, "probabilities", False))
    labels = ChipClassificationLabels.make_empty()
    for windows, out in _predict_windows(learner, scene, predict_options):
        scores = out.softmax(1) if probabilities else out
        labels.extend(ChipClassificationLabels.from_predictions(windows, scores.numpy()))
    return labels


def predict_scene_regression(
    learner: RegressionLearner, scene: Scene, predict_options: PredictOptions
) -> ChipRegressionLabels:
    """Return the numbers of each window of a scene, in pixels of its extent; arguments as `predict_scene_cc`."""
    labels = ChipRegressionLabels.make_empty()
    for windows, out in _predict_windows(learner, scene, predict_options):
        labels.extend(ChipRegressionLabels.from_predictions(windows, out.numpy()))
    return labels


def _predict_windows(
    learner: Learner, scene: Scene, options: PredictOptions
) -> Iterator[tuple[Sequence[Box], torch.Tensor]]:
    """Yield batches of windows with what the model gives for them, (n, K) float32 on the CPU."""
    prepare = input_transform(learner, options.chip_sz)

    @torch.inference_mode()
    def model(chips: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = learner.post_forward(learner.predict(prepare(chips), raw_out=True))
        return out.float()

    return stream_windows(scene, options, to_image, model)
