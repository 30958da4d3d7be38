from __future__ import annotations

import importlib.util
import pickle
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rastervision.pipeline import rv_config_
from rastervision.pipeline.errors import ConfigError, MissingPackageError, NotReadableError, UntrustedCodeError
from rastervision.pytorch_learner import TransformType
from rastervision.pytorch_learner.dataset.augmentors import MinMaxNormalize
from rastervision.pytorch_learner.dataset.saved_transforms import (
    deserialize_albumentation_transform,
    serialize_albumentation_transform,
    validate_albumentation_transform,
)
from rastervision.pytorch_learner.dataset.transform import (
    apply_transform,
    classification_transformer,
    object_detection_transformer,
    regression_transformer,
    resize_transform,
    semantic_segmentation_transformer,
    transform_sample,
)
from rastervision.pytorch_learner.utils import A

SS = TransformType.semantic_segmentation
OD = TransformType.object_detection

has_albumentations = importlib.util.find_spec("albumentations") is not None
with_albumentations = pytest.mark.skipif(not has_albumentations, reason="needs the extra albumentations")
without_albumentations = pytest.mark.skipif(has_albumentations, reason="albumentations is installed")


def serialized(name: str, **params: Any) -> dict[str, Any]:
    return {"__version__": "1.4.13", "transform": {"__class_fullname__": name, "p": 1.0, **params}}


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
        {"__class_fullname__": "Flip", "p": 1},
        {"__class_fullname__": "D4", "p": 1},
        {"__class_fullname__": "Crop", "x_min": 2, "y_min": 1, "x_max": 8, "y_max": 9, "p": 1},
        {"__class_fullname__": "RandomResizedCrop", "size": [8, 6], "scale": [0.5, 1.0], "p": 1},
        {"__class_fullname__": "RandomResizedCrop", "height": 8, "width": 6, "scale": [0.5, 1.0], "p": 1},
        {"__class_fullname__": "GaussianBlur", "blur_limit": [0, 0], "sigma_limit": [0.5, 1.0], "p": 1},
        {"__class_fullname__": "GaussNoise", "std_range": [0.02, 0.04], "p": 1},
        {"__class_fullname__": "RandomBrightnessContrast", "brightness_limit": 0.1, "contrast_limit": [-0.1, 0.1]},
        {"__class_fullname__": "HueSaturationValue", "hue_shift_limit": 20, "p": 1},
        {"__class_fullname__": "ColorJitter", "brightness": 0.1, "contrast": [0.9, 1.1], "hue": 0.1, "p": 1},
        {"__class_fullname__": "RandomGamma", "gamma_limit": [90, 110], "p": 1},
        {"__class_fullname__": "ChannelShuffle", "p": 1},
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
    torch.manual_seed(0)

    image, label = transform_sample(x, y, deserialize_albumentation_transform({"transform": node}), SS)

    assert image.shape[-2:] == label.shape
    assert image[:, label == 1].mean() > image[:, label == 0].mean() + 0.3


def test_one_of_applies_the_one_it_draws() -> None:
    children = [{"__class_fullname__": "HorizontalFlip", "p": 0.1}]
    tf = deserialize_albumentation_transform(serialized("OneOf", transforms=children))
    x = np.arange(4, dtype=np.uint8).reshape(1, 4, 1)

    outs = [transform_sample(x, None, tf, TransformType.classification, normalize=False)[0] for _ in range(10)]

    assert all(o.flatten().tolist() == [3, 2, 1, 0] for o in outs)


GEOMETRY = [
    {"__class_fullname__": "Compose", "transforms": [{"__class_fullname__": "HorizontalFlip", "p": 1.0}]},
    {"__class_fullname__": "D4", "p": 1},
    {"__class_fullname__": "Crop", "x_min": 2, "y_min": 1, "x_max": 12, "y_max": 13, "p": 1},
    {"__class_fullname__": "RandomCrop", "height": 13, "width": 14, "p": 1},
    {"__class_fullname__": "Resize", "height": 32, "width": 24, "p": 1},
    pytest.param({"__class_fullname__": "SafeRotate", "limit": [90, 90], "p": 1}, marks=with_albumentations),
]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("node", GEOMETRY)
def test_boxes_and_time_steps_move_together(node: dict[str, Any], dtype: Any) -> None:
    x = np.zeros((2, 16, 16, 2), dtype)
    x[0, 4:8, 5:11] = x[1, 4:8, 5:11] = np.iinfo(dtype).max
    boxes = (np.array([[4.0, 5.0, 8.0, 11.0]]), np.array([3]), "yxyx")
    torch.manual_seed(0)

    image, found = transform_sample(x, boxes, deserialize_albumentation_transform({"transform": node}), OD)

    assert torch.equal(image[0], image[1])
    rows, cols = torch.nonzero(image[0, 0] > 0.5, as_tuple=True)
    expected = [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(found.boxes[0].numpy(), np.array(expected), atol=1.01)
    assert found.get_field("class_ids").tolist() == [3]


def test_boxes_that_are_cut_off_are_dropped() -> None:
    tf = deserialize_albumentation_transform(serialized("Crop", x_min=0, y_min=0, x_max=4, y_max=4))
    boxes = (np.array([[0, 0, 2, 2], [5, 5, 8, 8]]), np.array([1, 2]), "xyxy")

    _, found = transform_sample(np.zeros((8, 8, 3), np.uint8), boxes, tf, OD)

    assert found.get_field("class_ids").tolist() == [1]


def test_min_max_normalize_comes_back_as_it_was_saved() -> None:
    saved = serialize_albumentation_transform(MinMaxNormalize(min_val=-1, max_val=2))

    tf = deserialize_albumentation_transform(saved)

    assert isinstance(tf, MinMaxNormalize)
    assert (tf.min_val, tf.max_val, tf.p) == (-1, 2, 1)
    assert validate_albumentation_transform(saved) == saved


def test_min_max_normalize_of_arrays() -> None:
    image = np.array([[[0, 5], [10, 5]], [[5, 5], [10, 5]]], np.uint16)

    out = MinMaxNormalize().apply(image)

    assert out.dtype == np.float32
    assert out[..., 0].tolist() == [[0, 1], [0.5, 1]]
    assert not out[..., 1].any()
    assert MinMaxNormalize().apply(image[..., 0]).shape == (2, 2)


def test_wrong_dicts_and_transforms_are_named() -> None:
    assert validate_albumentation_transform(None) is None
    with pytest.raises(ConfigError, match="not a serialised transform"):
        validate_albumentation_transform({"a": 1})
    with pytest.raises(ConfigError, match="transform of torchvision"):
        serialize_albumentation_transform(resize_transform(4))
    with pytest.raises(ConfigError, match="normalization='image'"):
        deserialize_albumentation_transform(serialized("Normalize", normalization="image"))


@without_albumentations
def test_what_is_not_translated_needs_the_extra() -> None:
    needs = pytest.raises(MissingPackageError, match=r"rastervision_pytorch_learner\[albumentations\]")
    with needs:
        deserialize_albumentation_transform(serialized("CoarseDropout"))
    with needs:
        deserialize_albumentation_transform({**serialized("NoOp"), "lambda_transforms_path": "a.py"})
    with needs:
        _ = A.HorizontalFlip
    with needs:
        serialize_albumentation_transform(object())


@with_albumentations
def test_other_transforms_are_run_by_albumentations() -> None:
    node = A.to_dict(A.Compose([A.HorizontalFlip(p=1), A.CoarseDropout(p=1)]))
    tf = deserialize_albumentation_transform(node)
    x = np.repeat(np.arange(1, 33, dtype=np.uint16).reshape(1, 1, 32, 1) * 1000, 2, axis=0).repeat(32, axis=1)

    outs = []
    for _ in range(2):
        torch.manual_seed(1)
        outs.append(transform_sample(x, np.ones((32, 32), np.uint8), pickle.loads(pickle.dumps(tf)), SS))

    image, mask = outs[0]
    assert torch.equal(image, outs[1][0])
    assert image.shape == (2, 1, 32, 32)
    assert torch.equal(image[0], image[1])
    assert bool((image == 0).any())
    kept = image[0, 0] != 0
    np.testing.assert_allclose(image[0, 0][kept] * 65535, np.broadcast_to(x[0, :, ::-1, 0], (32, 32))[kept], atol=1)
    assert mask.shape == (32, 32)


@with_albumentations
def test_functions_in_a_file_run_if_the_file_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RV_CONFIG_DIR", str(tmp_path / "settings"))
    for name, value in (("_config", None), ("_config_overrides", None), ("rv_home", "")):
        monkeypatch.setattr(rv_config_, name, value)
    path = tmp_path / "functions.py"
    path.write_text(
        "import albumentations as A\n"
        "def half(image, **kwargs):\n    return image // 2\n"
        "lambda_transforms = {'half': A.Lambda(name='half', image=half, p=1)}\n"
    )
    stranger = {**serialized("Lambda", __name__="half"), "lambda_transforms_path": str(path)}
    with pytest.raises(UntrustedCodeError, match=r"functions\.py"):
        deserialize_albumentation_transform(stranger)
    with pytest.raises(NotReadableError, match=r"gone\.py does not exist"):
        deserialize_albumentation_transform({**stranger, "lambda_transforms_path": str(tmp_path / "gone.py")})

    tf = runpy.run_path(str(path))["lambda_transforms"]["half"]
    saved = serialize_albumentation_transform(tf, str(path), str(tmp_path / "copies"))
    assert saved["lambda_transforms_path"] == str(tmp_path / "copies" / "functions.py")
    x = np.full((2, 2, 1), 100, np.uint8)
    back = pickle.loads(pickle.dumps(deserialize_albumentation_transform(saved)))
    out, _ = transform_sample(x, None, back, TransformType.classification, normalize=False)
    assert out.unique().tolist() == [50]


@with_albumentations
def test_apply_transform_takes_time_steps() -> None:
    x = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1)

    out = apply_transform(A.HorizontalFlip(p=1), image=x, mask=x[0, ..., 0])

    assert set(out) == {"image", "mask"}
    np.testing.assert_array_equal(out["image"], x[:, :, ::-1])
    np.testing.assert_array_equal(out["mask"], x[0, :, ::-1, 0])
    np.testing.assert_array_equal(apply_transform(A.HorizontalFlip(p=1), image=x[0])["image"], x[0, :, ::-1])


def test_the_functions_of_tasks_take_pairs() -> None:
    x = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    flip = deserialize_albumentation_transform(serialized("HorizontalFlip"))

    image, mask = semantic_segmentation_transformer((x, x[..., 0]), flip)
    np.testing.assert_array_equal(image, x[:, ::-1])
    np.testing.assert_array_equal(mask, x[:, ::-1, 0])
    for function, dtype in ((classification_transformer, np.int64), (regression_transformer, np.float64)):
        image, label = function((x, 1), flip)
        np.testing.assert_array_equal(image, x[:, ::-1])
        assert (label, label.dtype) == (1, dtype)
        assert function((x, None), None)[1] is None
    image, boxes = object_detection_transformer((x, (np.array([[0, 0, 1, 1]]), np.array([2]), "yxyx")), flip)
    assert image.shape == (3, 2, 3)
    assert boxes.boxes.tolist() == [[2, 0, 3, 1]]
