from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from rastervision.pytorch_learner import SemanticSegmentationVisualizer
from rastervision.pytorch_learner.dataset.visualizer import channel_groups_to_imgs


@pytest.fixture
def visualizer() -> SemanticSegmentationVisualizer:
    return SemanticSegmentationVisualizer(["ground", "box"], ["black", (255, 0, 0)])


def test_plots_a_row_per_chip_with_true_and_predicted_labels(
    visualizer: SemanticSegmentationVisualizer, tmp_path: Path
) -> None:
    x = torch.rand(3, 3, 8, 8)
    y = torch.ones(3, 8, 8, dtype=torch.long)
    scores = torch.rand(3, 2, 8, 8)

    visualizer.plot_batch(x, y, str(tmp_path / "a/b.png"), z=scores, batch_limit=2)

    with Image.open(tmp_path / "a/b.png") as image:
        assert image.size == (900, 600)
        colors = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert (colors == [255, 0, 0]).all(1).mean() > 0.1
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.png"]


def test_channel_groups_and_time_steps_are_columns(tmp_path: Path) -> None:
    groups = {"RGB": [0, 1, 2], "NIR": [3]}
    visualizer = SemanticSegmentationVisualizer(["a"], channel_display_groups=groups)
    x = torch.rand(1, 2, 4, 8, 8)

    assert visualizer.get_plot_ncols(x=x, y=torch.zeros(1, 8, 8)) == 5
    visualizer.plot_batch(x, torch.zeros(1, 8, 8), str(tmp_path / "x.png"), show=True)

    assert (tmp_path / "x.png").stat().st_size > 1000


def test_groups_of_one_and_two_channels_become_rgb() -> None:
    x = torch.rand(4, 2, 2)

    one, two, three = channel_groups_to_imgs(x, {"a": [3], "b": [0, 1], "c": [2, 1, 0]})

    assert torch.equal(one, x[3][..., None].expand(2, 2, 3))
    assert torch.equal(two[..., :2], x[:2].movedim(0, -1))
    assert (two[..., 2] == 0.5).all()
    assert torch.equal(three[..., 0], x[2])


def test_serialised_transforms_are_applied(tmp_path: Path) -> None:
    flip = {"transform": {"__class_fullname__": "ToGray", "p": 1.0}}
    visualizer = SemanticSegmentationVisualizer(["a"], transform=flip)

    shown = visualizer._for_display(torch.rand(2, 3, 4, 4) * 3)

    assert shown.min() >= 0
    assert shown.max() <= 1
    assert torch.equal(shown[:, 0], shown[:, 1])


def test_get_batch_takes_the_first_samples(visualizer: SemanticSegmentationVisualizer) -> None:
    ds = TensorDataset(torch.arange(6.0).view(6, 1, 1, 1), torch.zeros(6, 1, 1))

    x, y = visualizer.get_batch(ds, 4)

    assert x.flatten().tolist() == [0, 1, 2, 3]
    assert len(y) == 4
    assert (visualizer.class_names, visualizer.class_colors) == (["ground", "box"], ["black", (255, 0, 0)])


def test_no_chips_no_plot(visualizer: SemanticSegmentationVisualizer, tmp_path: Path) -> None:
    visualizer.plot_batch(torch.rand(2, 3, 4, 4), output_path=str(tmp_path / "x.png"), batch_limit=0)

    assert not (tmp_path / "x.png").exists()
