from __future__ import annotations

import pytest
import torch

from rastervision.pytorch_learner import ClassificationModelConfig, SemanticSegmentationModelConfig
from rastervision.pytorch_learner.models import TemporalModel, build_model


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_outputs_are_pooled_over_time(pooling: str) -> None:
    model = TemporalModel(torch.nn.Conv2d(3, 2, 1), pooling)
    x = torch.rand(4, 5, 3, 8, 8)

    out = model(x)

    steps = torch.stack([model.model(x[:, t]) for t in range(5)])
    torch.testing.assert_close(out, steps.mean(0) if pooling == "mean" else steps.amax(0))
    torch.testing.assert_close(model(x[:, 0]), steps[0])


def test_models_of_a_task_take_time_steps_if_the_config_says_so() -> None:
    classifier = ClassificationModelConfig(pretrained=False, temporal_pooling="max")
    segmenter = SemanticSegmentationModelConfig(
        backbone="mobilenet_v3_large", pretrained=False, temporal_pooling="mean"
    )

    with torch.device("meta"):
        x = torch.empty(2, 3, 6, 32, 32)

        assert build_model(classifier, 4, 6)(x).shape == (2, 4)
        assert build_model(segmenter, 4, 6)(x)["out"].shape == (2, 4, 32, 32)
