from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner import TransformType
from rastervision.pytorch_learner.dataset.transform import (
    build_augmentors,
    resize_transform,
    to_image,
    transform_sample,
)

SS = TransformType.semantic_segmentation


def serialized(name: str, **params: Any) -> dict[str, Any]:
    return {"__version__": "1.4.13", "transform": {"__class_fullname__": name, "p": 1.0, **params}}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_unsigned_integers_are_divided_by_their_maximum(dtype: Any) -> None:
    top = np.iinfo(dtype).max
    x = np.array([0, top // 2, top], dtype).reshape(1, 1, 3)

    out, _ = transform_sample(x, None)

    assert out.dtype == torch.float32
    np.testing.assert_allclose(out.flatten().numpy(), [0, 0.5, 1], atol=1e-2)


@pytest.mark.parametrize("dtype", [np.int16, np.float64, np.float16, bool])
def test_other_dtypes_keep_their_values(dtype: Any) -> None:
    x = np.array([0, 1], dtype).reshape(1, 2, 1)

    assert transform_sample(x, None)[0].flatten().tolist() == [0, 1]


def test_layout_and_label() -> None:
    x = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    y = np.array([[0, 1, 2], [3, 4, 5]], np.uint8)

    image, label = transform_sample(x, y, transform_type=SS)

    assert image.shape == (4, 2, 3)
    assert image.is_contiguous()
    assert image[1, 0, 2] == pytest.approx(x[0, 2, 1] / 255)
    assert label.dtype == torch.int64
    assert label.tolist() == y.tolist()


def test_without_normalisation_values_stay() -> None:
    x = np.full((2, 2, 1), 7, np.uint8)

    assert transform_sample(x, None, normalize=False)[0].max() == 7


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int16, np.float64])
@pytest.mark.parametrize("transform", [None, v2.Identity()])
def test_types_of_whole_numbers_that_are_not_normalised_stay(dtype: Any, transform: Any) -> None:
    x = np.array([0, 1, 2], dtype).reshape(1, 3, 1)

    out, _ = transform_sample(x, None, transform, TransformType.classification, normalize=False, to_pytorch=False)

    assert out.tolist() == x.tolist()
    if transform is None or np.dtype(dtype).kind == "u":
        assert out.dtype == dtype


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.float32])
def test_a_transform_that_does_nothing_changes_nothing(dtype: Any) -> None:
    x = np.random.default_rng(0).integers(0, 255, (5, 6, 3)).astype(dtype)
    y = np.random.default_rng(1).integers(0, 9, (5, 6)).astype(np.uint8)

    plain = transform_sample(x, y, None, SS)
    through = transform_sample(x, y, v2.Compose([v2.Identity(), resize_transform((5, 6))]), SS)

    for a, b in zip(plain, through, strict=True):
        assert torch.equal(a, b)
        assert a.dtype == b.dtype
        assert b.is_contiguous()


def test_samples_are_not_shared_with_read_only_arrays() -> None:
    x, y = np.ones((2, 2, 1), np.float32), np.ones((2, 2), np.int64)
    x.flags.writeable = y.flags.writeable = False

    image, label = transform_sample(x, y, None, SS)
    image[:] = label[:] = 0

    assert x.all()
    assert y.all()


powers_of_two = st.sampled_from([1, 2, 4, 8, 16, 32])  # for other sizes torch's places may be rounded down


@given(size=st.tuples(powers_of_two, powers_of_two), out_size=st.tuples(powers_of_two, powers_of_two))
def test_masks_are_resized_as_torch_does(size: tuple[int, int], out_size: tuple[int, int]) -> None:
    mask = torch.arange(size[0] * size[1]).view(size)

    out = resize_transform(out_size)(tv_tensors.Mask(mask))

    expected = torch.nn.functional.interpolate(mask[None, None].double(), out_size, mode="nearest")[0, 0]
    assert isinstance(out, tv_tensors.Mask)
    assert torch.equal(out.as_subclass(torch.Tensor).double(), expected)


def test_arrays_come_back_as_arrays() -> None:
    x = np.random.default_rng(0).integers(0, 255, (4, 4, 3)).astype(np.uint8)
    y = np.ones((4, 4), np.uint8)

    image, label = transform_sample(x, y, resize_transform(8), SS, normalize=False, to_pytorch=False)

    assert (image.shape, image.dtype) == ((8, 8, 3), np.uint8)
    assert (label.shape, label.dtype) == ((8, 8), np.uint8)


def test_resize_is_bilinear_for_images_and_nearest_for_masks() -> None:
    x = np.zeros((2, 2, 1), np.uint16)
    x[:, 1] = 60000
    y = np.array([[0, 5], [0, 5]], np.uint16)

    image, label = transform_sample(x, y, resize_transform((4, 4)), SS)

    np.testing.assert_allclose(image[0, 0].numpy() * 65535, [0, 15000, 45000, 60000], rtol=1e-4)
    assert label[0].tolist() == [0, 0, 5, 5]


def test_time_steps_change_together() -> None:
    x = np.repeat(np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1), 3, axis=0)
    y = x[0, ..., 0]

    image, label = transform_sample(x, y, v2.RandomHorizontalFlip(1), SS)

    assert image.shape == (3, 1, 4, 4)
    for step in image:
        assert torch.equal((step[0] * 255).round().long(), label)


def test_missing_labels_are_nan_and_other_labels_pass() -> None:
    x = np.zeros((2, 2, 1), np.uint8)

    assert torch.isnan(transform_sample(x, None, transform_type=SS)[1])
    image, label = transform_sample(x, 3, resize_transform(4), TransformType.classification)
    assert (image.shape[-1], label.dtype, label.item()) == (4, torch.int64, 3)
    assert transform_sample(x, np.array([1.5]), transform_type=TransformType.regression)[1].dtype == torch.float64


def test_noop_leaves_the_chip_alone() -> None:
    x = np.zeros((2, 2, 1), np.uint8)

    assert transform_sample(x, None, resize_transform(4))[0].shape == (1, 2, 2)


@given(flip=st.booleans(), readonly=st.booleans())
@settings(max_examples=8)
def test_input_arrays_are_not_changed(flip: bool, readonly: bool) -> None:
    x = np.random.default_rng(0).random((4, 4, 2)).astype(np.float32)
    x = x[::-1] if flip else x
    x.flags.writeable = not readonly
    before = x.copy()

    transform_sample(x, None, v2.Compose(build_augmentors(["GaussNoise", "Blur"])), TransformType.classification)
    to_image(x)

    np.testing.assert_array_equal(x, before)


def test_unknown_augmentors_are_named() -> None:
    with pytest.raises(ConfigError, match="'Warp' is not an augmentor"):
        build_augmentors(["Warp"])
