from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner import TransformType
from rastervision.pytorch_learner.dataset.transform import (
    build_augmentors,
    deserialize_albumentation_transform,
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
    boxes = object()
    assert transform_sample(x, boxes, transform_type=TransformType.object_detection)[1] is boxes


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


def test_albumentations_of_saved_configs_are_translated() -> None:
    """0.31 with albumentations 2 never applied MinMaxNormalize (p=0)."""
    x = np.array([[[50], [100]]], np.uint8)
    stored = serialized("rastervision.pytorch_learner.utils.utils.MinMaxNormalize", min_val=0.0, max_val=1.0, dtype=5)

    out, _ = transform_sample(x, None, deserialize_albumentation_transform(stored), TransformType.classification)

    assert out.flatten().tolist() == [0, 1]


def test_normalize_is_that_of_albumentations() -> None:
    x = np.full((1, 1, 2), 51, np.uint8)
    stored = serialized("Normalize", mean=[0.1, 0.2], std=[0.5, 0.25], max_pixel_value=255.0)

    out, _ = transform_sample(x, None, deserialize_albumentation_transform(stored), TransformType.classification)

    np.testing.assert_allclose(out.flatten().numpy(), [0.2, 0.0], atol=1e-6)


@pytest.mark.parametrize(
    "node",
    [
        {"__class_fullname__": "albumentations.augmentations.geometric.transforms.HorizontalFlip", "p": 1.0},
        {"__class_fullname__": "VerticalFlip", "always_apply": True},
        {"__class_fullname__": "RandomRotate90", "p": 1.0},
        {"__class_fullname__": "Transpose", "p": 1.0},
        {"__class_fullname__": "Resize", "height": 8, "width": 8, "p": 1},
        {"__class_fullname__": "CenterCrop", "height": 8, "width": 8, "p": 1},
        {"__class_fullname__": "RandomCrop", "height": 8, "width": 8, "p": 1},
        {"__class_fullname__": "Blur", "blur_limit": [3, 7], "p": 1},
        {"__class_fullname__": "GaussianBlur", "blur_limit": 5, "p": 1},
        {"__class_fullname__": "GaussNoise", "var_limit": 30, "p": 1},
        {"__class_fullname__": "RGBShift", "r_shift_limit": [-10, 10], "p": 1},
        {"__class_fullname__": "ToGray", "p": 1},
        {"__class_fullname__": "ToFloat", "max_value": 255, "p": 1},
        {"__class_fullname__": "NoOp"},
        {"__class_fullname__": "Compose", "p": 0.5, "transforms": [{"__class_fullname__": "NoOp"}]},
        {"__class_fullname__": "Compose", "transforms": []},
        {
            "__class_fullname__": "OneOf",
            "p": 1.0,
            "transforms": [
                {"__class_fullname__": "HorizontalFlip", "p": 0.2},
                {"__class_fullname__": "ToGray", "p": 0.8},
            ],
        },
    ],
)
def test_common_transforms_keep_image_and_mask_together(node: dict[str, Any]) -> None:
    x = np.zeros((10, 10, 3), np.uint8)
    x[:5, :5] = 200
    y = (x[..., 0] > 0).astype(np.uint8)

    image, label = transform_sample(x, y, deserialize_albumentation_transform({"transform": node}), SS)

    assert image.shape[-2:] == label.shape
    assert image[:, label == 1].mean() > image[:, label == 0].mean() + 0.3


def test_one_of_applies_the_one_it_draws() -> None:
    children = [{"__class_fullname__": "HorizontalFlip", "p": 0.1}]
    tf = deserialize_albumentation_transform(serialized("OneOf", transforms=children))
    x = np.arange(4, dtype=np.uint8).reshape(1, 4, 1)

    outs = [transform_sample(x, None, tf, TransformType.classification, normalize=False)[0] for _ in range(10)]

    assert all(o.flatten().tolist() == [3, 2, 1, 0] for o in outs)


def test_unknown_transforms_are_named() -> None:
    with pytest.raises(ConfigError, match="'CoarseDropout' is not available"):
        deserialize_albumentation_transform(serialized("CoarseDropout"))
    with pytest.raises(ConfigError, match="lambda_transforms_path"):
        deserialize_albumentation_transform({**serialized("NoOp"), "lambda_transforms_path": "a.py"})
    with pytest.raises(ConfigError, match="normalization='image'"):
        deserialize_albumentation_transform(serialized("Normalize", normalization="image"))
    with pytest.raises(ConfigError, match="'Warp' is not an augmentor"):
        build_augmentors(["Warp"])
