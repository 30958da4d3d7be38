from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from rastervision.pytorch_learner import (
    ClassificationVisualizer,
    ObjectDetectionVisualizer,
    RegressionVisualizer,
    SemanticSegmentationVisualizer,
    Visualizer,
)
from rastervision.pytorch_learner.box_list import BoxList
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


def test_channel_groups_are_columns_and_time_steps_are_rows() -> None:
    groups = {"RGB": [0, 1, 2], "NIR": [3]}
    visualizer = SemanticSegmentationVisualizer(["a"], channel_display_groups=groups)
    x = torch.rand(2, 3, 4, 8, 8)

    fig = visualizer.plot_batch(x, torch.zeros(2, 8, 8), z=torch.zeros(2, 8, 8), show=True)

    assert fig is not None
    assert [len(ax.images) for ax in fig.axes] == [1, 1, 1, 1, *[1, 1, 0, 0] * 2] * 2
    titles = [ax.get_title() for ax in fig.axes[:5]]
    assert titles == ["RGB, step 1", "NIR, step 1", "Ground truth", "Predicted labels", "RGB, step 2"]


def test_figures_are_not_known_to_pyplot_and_show_in_notebooks(visualizer: SemanticSegmentationVisualizer) -> None:
    from matplotlib import _pylab_helpers

    fig: Any = visualizer.plot_batch(torch.rand(1, 3, 4, 4))

    assert not _pylab_helpers.Gcf.figs
    assert fig._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("task", [SemanticSegmentationVisualizer, ClassificationVisualizer, ObjectDetectionVisualizer])
def test_chips_without_labels_are_plotted_alone(task: type[Visualizer]) -> None:
    missing = torch.full((2,), torch.nan)

    for y in (None, missing, list(missing)):
        fig = task(["a"]).plot_batch(torch.rand(2, 3, 8, 8), y)
        assert fig is not None
        assert len(fig.axes) == 2


def test_before_and_after_stand_side_by_side(visualizer: SemanticSegmentationVisualizer) -> None:
    labels = torch.zeros(2, 8, 8)

    fig = visualizer.plot_before_after((torch.rand(2, 3, 8, 8), labels), (torch.rand(2, 3, 8, 8), labels))

    assert len(fig.axes) == 8
    assert fig.get_size_inches().tolist() == [12, 6]


def texts(ax: Any) -> list[tuple[str, str]]:
    return [(t.get_text(), t.get_color()) for t in ax.texts]


def test_classes_are_written_and_wrong_ones_are_red() -> None:
    visualizer = ClassificationVisualizer(["forest", "sparsely vegetated areas"])

    fig = visualizer.plot_batch(torch.rand(2, 3, 8, 8), torch.tensor([1, 0]), z=torch.tensor([1, 1]))

    assert fig is not None
    assert [texts(ax) for ax in fig.axes] == [
        [],
        [("sparsely vegetated\nareas", "black")],
        [("sparsely vegetated\nareas", "darkgreen")],
        [],
        [("forest", "black")],
        [("sparsely vegetated\nareas", "crimson")],
    ]


def test_scores_of_classes_are_bars_best_first() -> None:
    visualizer = ClassificationVisualizer(list("abcdefg"))
    scores = torch.tensor([[0.0, 0.3, 0.1, 0.2, 0.15, 0.05, 0.2]])

    fig = visualizer.plot_batch(torch.rand(1, 3, 8, 8), z=scores)

    assert fig is not None
    bars = fig.axes[1].patches
    assert [round(bar.get_width(), 3) for bar in bars] == [0.3, 0.2, 0.2, 0.15, 0.1]
    assert fig.axes[1].get_yticklabels()[0].get_text() == "b"


def test_numbers_are_written_with_their_errors() -> None:
    visualizer = RegressionVisualizer(["height", "cover"])

    fig = visualizer.plot_batch(torch.rand(1, 3, 8, 8), torch.tensor([[12.5, 0.25]]), z=torch.tensor([[12.0, 0.5]]))

    assert fig is not None
    assert texts(fig.axes[1]) == [("height: 12.5\ncover: 0.25", "black")]
    assert texts(fig.axes[2]) == [("height: 12 (-0.5)\ncover: 0.5 (+0.25)", "black")]


def test_boxes_are_drawn_on_the_chips() -> None:
    visualizer = ObjectDetectionVisualizer(["car", "ship"], ["red", "blue"])
    sample = torch.rand(3, 8, 8), BoxList(torch.tensor([[0.0, 0, 4, 2]]), class_ids=torch.tensor([1]))
    x, y = visualizer.get_batch([sample, sample], 2)  # type: ignore[arg-type]
    found = BoxList(
        torch.tensor([[0.0, 0, 4, 2], [1, 1, 3, 3]]), class_ids=torch.tensor([1, 0]), scores=torch.tensor([0.25, 0.75])
    )
    nothing = BoxList(torch.zeros(0, 4), class_ids=torch.zeros(0, dtype=torch.long), scores=torch.zeros(0))

    fig = visualizer.plot_batch(x, y, z=[found, nothing])

    assert fig is not None
    first, second = fig.axes
    drawn = [(p.get_bbox().bounds, p.get_linestyle(), p.get_edgecolor()) for p in first.patches]  # type: ignore[attr-defined]
    assert drawn == [
        ((-0.5, -0.5, 4, 2), "--", (0, 0, 1, 1)),
        ((0.5, 0.5, 2, 2), "-", (1, 0, 0, 0.75)),
        ((-0.5, -0.5, 4, 2), "-", (0, 0, 1, 0.25)),
    ]
    assert [t for t, _ in texts(first)] == ["0.75"]
    assert len(second.patches) == 1


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
