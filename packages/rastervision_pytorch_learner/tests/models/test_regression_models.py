from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner import Backbone, RegressionModel, RegressionModelConfig


class Same(nn.Module):
    """Gives out what it takes in, through a last layer that does not change it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.fc.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


def test_outputs_are_positive_or_probabilities_where_asked_for() -> None:
    model = RegressionModel(Same(), 3, pos_out_inds=[0], prob_out_inds=[2], new_head=False)
    x = torch.tensor([[-2.0, -3.0, -4.0]], requires_grad=True)

    out = model(x)
    out.sum().backward()

    torch.testing.assert_close(out, torch.tensor([[-2.0, -3.0, -4.0]]).where(torch.tensor([False, True, False]), out))
    torch.testing.assert_close(out[0, 0], torch.tensor(-2.0).exp())
    torch.testing.assert_close(out[0, 2], torch.tensor(-4.0).sigmoid())
    assert x.grad is not None


def test_keys_are_those_of_the_backbone() -> None:
    cfg = RegressionModelConfig(pretrained=False)
    with torch.device("meta"):
        ours = cfg.build_default_model(2, 3, class_names=["a", "b"]).state_dict()
        theirs = RegressionModel(models.resnet18(weights=None), out_features=2, unknown="no effect").state_dict()

    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert ours["backbone.fc.weight"].shape == (2, 512)


@pytest.mark.parametrize("name", ["densenet121", "squeezenet1_1", "vgg11", "mobilenet_v3_large"])
def test_backbones_without_fc(name: str) -> None:
    cfg = RegressionModelConfig(backbone=Backbone(name), pretrained=False)
    with torch.device("meta"):
        model = cfg.build_default_model(
            3, 5, class_names=["a", "b", "c"], pos_class_names=["c"], prob_class_names=["a"]
        )
        out = model(torch.empty(2, 5, 64, 64))

    assert out.shape == (2, 3)
    assert (model.pos_out_inds, model.prob_out_inds) == ([2], [0])


@pytest.mark.parametrize("kwargs", [{"pos_class_names": ["d"]}, {"prob_class_names": ["d"]}])
def test_names_that_are_no_targets_are_refused(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data.p\w+_class_names has 'd', which is not a target \(a, b\)"):
        RegressionModelConfig(pretrained=False).build_default_model(2, 3, class_names=["a", "b"], **kwargs)
