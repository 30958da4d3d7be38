"""Augmentation of batches does what augmentation of chips does. The device is the CPU here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset
from torchvision.transforms import v2

from rastervision.pytorch_learner import (
    SemanticSegmentationLearner,
    SemanticSegmentationLearnerConfig,
    TransformType,
)
from rastervision.pytorch_learner.box_list import BoxList
from rastervision.pytorch_learner.checkpoint import load_weights_file
from rastervision.pytorch_learner.dataset.augmentors import AUGMENTORS
from rastervision.pytorch_learner.dataset.batch_augmenter import (
    AugmentedTransform,
    BatchAugmenter,
    split_augmentation,
)
from rastervision.pytorch_learner.dataset.dataset import TransformedDataset
from rastervision.pytorch_learner.dataset.transform import build_augmentors, resize_transform
from rastervision.pytorch_learner.object_detection_utils import collate_fn

MakeCfg = Callable[..., SemanticSegmentationLearnerConfig]
SS, OD, CC = (TransformType[name] for name in ("semantic_segmentation", "object_detection", "classification"))
SIZE = 12


def augmenter(transform_type: TransformType, *names: str) -> BatchAugmenter:
    return BatchAugmenter(v2.Compose(build_augmentors(names)), transform_type)


def chips(count: int, dtype: Any = np.uint8, seed: int = 0) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Chips whose first channel is their mask, a gradient."""
    rng = np.random.default_rng(seed)
    top = np.iinfo(dtype).max
    made = []
    for _ in range(count):
        x = rng.integers(top // 4, top // 2, (SIZE, SIZE, 3)).astype(dtype)
        x[..., 0] = np.arange(SIZE * SIZE).reshape(SIZE, SIZE) * (top // 255)
        made.append((x, (x[..., 0] // (top // 255)).astype(np.uint8)))
    return made


def dataset(samples: Any, *names: str, transform_type: TransformType = SS, **kwargs: Any) -> TransformedDataset:
    transform = AugmentedTransform(resize_transform(SIZE), v2.Compose(build_augmentors(names)))
    return TransformedDataset(samples, transform, transform_type, **kwargs)


@pytest.mark.parametrize("steps", [(), (2,)])
def test_each_image_moves_by_itself_and_with_its_mask(steps: tuple[int, ...]) -> None:
    mask = torch.arange(SIZE * SIZE).view(SIZE, SIZE)
    x = (mask / 255).expand(40, *steps, 3, SIZE, SIZE).clone()
    torch.manual_seed(0)

    out, y = augmenter(SS, "RandomRotate90", "HorizontalFlip", "VerticalFlip")(x, mask.expand(40, -1, -1))

    assert out.shape == x.shape
    assert y.dtype == torch.int64
    assert all(torch.equal((out[:, i] * 255).round().long(), y) for i in range(3)) or steps
    assert all(torch.equal((out[:, t, 1] * 255).round().long(), y) for t in range(2)) or not steps
    # all eight views of a square come about
    assert len({tuple(one[[0, 0], [0, -1]].tolist()) for one in y}) == 8
    assert torch.equal(x[0, ..., 0, :, :].reshape(-1, SIZE, SIZE)[0] * 255, mask.float())


def test_boxes_move_with_their_image() -> None:
    x = torch.zeros(30, 3, 8, 8)
    x[:, :, 1:3, 2:7] = 1
    boxes = [BoxList(torch.tensor([[2.0, 1, 7, 3]]), class_ids=torch.tensor([4])) for _ in x]
    torch.manual_seed(1)

    out, moved = augmenter(OD, "RandomRotate90", "HorizontalFlip")(x, boxes)

    assert {tuple(b.boxes[0].tolist()) for b in moved} > {(2, 1, 7, 3), (1, 1, 6, 3)}
    for image, found in zip(out, moved, strict=True):
        left, top, right, bottom = found.boxes[0].int().tolist()
        assert image[:, top:bottom, left:right].min() == 1
        assert image.sum() == 3 * 10
        assert found.get_field("class_ids").tolist() == [4]


def test_images_without_boxes_stay_so() -> None:
    empty = BoxList(torch.zeros(0, 4), class_ids=torch.zeros(0, dtype=torch.long))

    _, moved = augmenter(OD, *AUGMENTORS)(torch.rand(2, 3, 8, 8), [empty, empty])

    assert [len(b) for b in moved] == [0, 0]


def test_other_labels_are_left_alone() -> None:
    y = torch.tensor([3, 1])

    out, same = augmenter(CC, *AUGMENTORS)(torch.rand(2, 5, 8, 8), y)

    assert out.shape == (2, 5, 8, 8)
    assert same is y


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", sorted(AUGMENTORS))
def test_statistics_are_those_of_augmented_chips(name: str, dtype: Any) -> None:
    ds = dataset(chips(60, dtype), name)
    split = split_augmentation(DataLoader(ds, batch_size=60))
    assert split is not None
    plain_dl, augment = split
    x, y = next(iter(plain_dl))

    def measured(seed: int, *, on_device: bool) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        out, mask = augment(x, y) if on_device else next(iter(DataLoader(ds, batch_size=60)))
        changed = (out != x).flatten(1).any(1).float().mean()
        detail = (out - x).abs().mean() * 20
        return torch.stack([changed, detail, out.mean() * 3, out.std() * 3, (mask != y).float().mean()])

    chip_wise, batch_wise = (
        torch.stack([measured(seed, on_device=on_device) for seed in range(8)]).mean(0) for on_device in (False, True)
    )

    assert chip_wise[0] > 0.2
    torch.testing.assert_close(batch_wise, chip_wise, rtol=0.15, atol=0.03)


def test_noise_stays_in_the_range_of_the_image() -> None:
    x = torch.stack([torch.full((3, 8, 8), v) for v in (0.0, 1.0, -3.0, 5.0)])
    torch.manual_seed(0)

    out, _ = augmenter(CC, *["GaussNoise", "RGBShift"] * 4)(x, None)

    assert (out != x).any()
    low, high = out.amin((1, 2, 3)), out.amax((1, 2, 3))
    assert (low >= torch.tensor([0.0, 0.0, -3.0, 0.0])).all()
    assert (high <= torch.tensor([1.0, 1.0, 1.0, 5.0])).all()


def test_loaders_keep_their_options_and_order() -> None:
    ds = dataset(chips(6), "HorizontalFlip")
    parts = ConcatDataset([Subset(ds, [3, 1, 0]), ds])
    dl = DataLoader(parts, batch_size=2, sampler=[8, 0, 1], drop_last=True, collate_fn=collate_fn)

    split = split_augmentation(dl)

    assert split is not None
    plain, augment = split
    assert (plain.batch_size, plain.drop_last, plain.sampler, plain.collate_fn) == (2, True, dl.sampler, collate_fn)
    assert augment.transform_type is SS
    (x, _), *more = plain
    assert not more
    torch.testing.assert_close(x[1] * 255, torch.from_numpy(chips(6)[3][0]).movedim(-1, 0).float())
    assert isinstance(ds.transform, AugmentedTransform)


@pytest.mark.parametrize(
    "dl",
    [
        DataLoader(TransformedDataset(chips(2), resize_transform(8))),
        DataLoader(ConcatDataset([dataset(chips(2), "ToGray"), dataset(chips(2), "ToGray")])),
        DataLoader(dataset(chips(2), "ToGray", normalize=False)),
        DataLoader(dataset(chips(2), "ToGray"), num_workers=1, persistent_workers=True),
        DataLoader(dataset(chips(2), "ToGray"), batch_sampler=[[0], [1]]),
        DataLoader([(1, 2)]),  # type: ignore[arg-type]
    ],
    ids=["not augmented", "in two ways", "not normalised", "workers stay", "own batches", "another kind"],
)
def test_what_cannot_be_split_augments_by_itself(dl: DataLoader[Any]) -> None:
    assert split_augmentation(dl) is None


class OnDevice(SemanticSegmentationLearner):
    augments_on_device = True


def test_a_training_with_augmentation_on_the_device_is_repeatable_and_goes_on(
    make_cfg: MakeCfg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[torch.Size] = []
    real = BatchAugmenter.__call__

    def counting(self: BatchAugmenter, x: torch.Tensor, y: Any) -> Any:
        calls.append(x.shape)
        return real(self, x, y)

    monkeypatch.setattr(BatchAugmenter, "__call__", counting)

    def train(learner_class: type[SemanticSegmentationLearner], name: str, epochs: int) -> dict[str, torch.Tensor]:
        args = {"output_uri": str(tmp_path / name), "data_augmentors": ["RandomRotate90", "GaussNoise"]}
        learner_class(make_cfg(**args, solver_one_cycle=False, solver_num_epochs=epochs)).train()
        return load_weights_file(str(tmp_path / name / "last-model.pth"))

    train(SemanticSegmentationLearner, "chips", 1)
    assert not calls
    whole = train(OnDevice, "whole", 3)
    assert calls == [(2, 3, 16, 16)] * 9  # not those of validation
    train(OnDevice, "parts", 1)
    parts = train(OnDevice, "parts", 3)

    assert all(torch.equal(whole[k], v) for k, v in parts.items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_all_augmentors_run_on_a_gpu() -> None:
    x, boxes = torch.rand(4, 3, 16, 16).cuda(), [BoxList(torch.tensor([[2.0, 1, 7, 3]])).to("cuda")] * 4

    out, moved = augmenter(OD, *AUGMENTORS)(x, boxes)

    assert out.is_cuda
    assert all(b.boxes.is_cuda for b in moved)
