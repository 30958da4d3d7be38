from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner.channels import (
    AddTensors,
    Parallel,
    SplitTensor,
    adjust_conv_channels,
    adjust_first_conv,
)


def test_the_same_number_of_channels_keeps_the_convolution() -> None:
    conv = nn.Conv2d(3, 4, 3)

    assert adjust_conv_channels(conv, 3) is conv


def test_more_channels_keep_the_pretrained_kernels_and_their_keys() -> None:
    conv = nn.Conv2d(3, 4, 3, bias=False)
    model = nn.Sequential(adjust_conv_channels(conv, 5))
    x = torch.rand(2, 5, 8, 8)

    out = model(x)

    assert sorted(model.state_dict()) == ["0.1.0.weight", "0.1.1.weight"]
    assert torch.equal(model.state_dict()["0.1.0.weight"], conv.weight)
    extra = model[0][1][1]  # type: ignore[index]
    torch.testing.assert_close(out, conv(x[:, :3]) + extra(x[:, 3:]))


def test_fewer_channels_take_the_first_kernels() -> None:
    conv = nn.Conv2d(3, 4, 3)

    new: Any = adjust_conv_channels(conv, 2)

    assert torch.equal(new.weight, conv.weight[:, :2])
    np.testing.assert_array_equal(new.bias.detach(), conv.bias.detach())  # type: ignore[union-attr]


@pytest.mark.parametrize("channels", [1, 7])
def test_random_weights_get_a_plain_convolution(channels: int) -> None:
    conv = nn.Conv2d(3, 4, 7, stride=2, padding=3, bias=False)

    new = adjust_conv_channels(conv, channels, pretrained=False)

    assert isinstance(new, nn.Conv2d)
    assert new.bias is None
    assert new(torch.rand(1, channels, 32, 32)).shape == (1, 4, 16, 16)


def test_parallel_needs_a_tensor_per_module() -> None:
    parallel = Parallel(nn.Identity(), nn.Identity())

    assert AddTensors()(parallel(SplitTensor(1, dim=1)(torch.ones(1, 2, 1)))).item() == 2
    with pytest.raises(ValueError, match="3 tensors for 2 modules"):
        parallel([torch.ones(1)] * 3)


def test_the_first_convolution_is_found_wherever_it_is() -> None:
    model = nn.Sequential(nn.Sequential(nn.Identity(), nn.Conv2d(3, 4, 3)), nn.Conv2d(4, 2, 3))

    adjust_first_conv(model, 6, pretrained=False)

    assert model(torch.rand(1, 6, 8, 8)).shape == (1, 2, 4, 4)
    with pytest.raises(ConfigError, match="ReLU has no convolution that could be fitted to 6 channels"):
        adjust_first_conv(nn.ReLU(), 6)
