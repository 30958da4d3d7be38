from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Subset, TensorDataset
from torchvision.transforms import v2

from rastervision.core.data import ClassConfig
from rastervision.core.data.utils import make_ss_scene
from rastervision.pytorch_learner import (
    SemanticSegmentationImageDataset,
    SemanticSegmentationRandomWindowGeoDataset,
    SemanticSegmentationVisualizer,
)
from rastervision.pytorch_learner.dataset.transform import resize_transform
from rastervision.pytorch_learner.figures import save_figure
from rastervision.pytorch_learner.plots import (
    plot_augmentations,
    plot_confusion_matrix,
    plot_error_histogram,
    plot_loss_curves,
    plot_metric_curves,
    plot_precision_recall,
    plot_regression_scatter,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HISTORY = [
    {"epoch": 0, "train_loss": 2.0, "val_loss": 2.5, "avg_f1": 0.1, "car_f1": 0.2, "car_recall": 0.1, "time": "0:01"},
    {"epoch": 1, "train_loss": 1.0, "val_loss": 1.5, "avg_f1": 0.3, "car_f1": 0.4, "car_recall": 0.3, "time": "0:01"},
]


def lines(ax: Axes) -> dict[str, list[float]]:
    return {str(line.get_label()): list(np.asarray(line.get_ydata(), float)) for line in ax.lines}


def test_losses_of_epochs_are_lines() -> None:
    fig = plot_loss_curves(HISTORY)

    assert lines(fig.axes[0]) == {"training": [2.0, 1.0], "validation": [2.5, 1.5]}


def test_averages_and_classes_have_panels_of_their_own() -> None:
    fig = plot_metric_curves(HISTORY)

    assert fig is not None
    assert [lines(ax) for ax in fig.axes] == [{"avg_f1": [0.1, 0.3]}, {"car": [0.2, 0.4]}]


def test_numbers_have_a_panel_for_errors_and_one_for_r2() -> None:
    row = {"epoch": 0, "tree_share_abs_error": 0.5, "tree_share_scaled_abs_error": 1.5, "tree_share_r2": 0.1}

    fig = plot_metric_curves([row])

    assert fig is not None
    assert [lines(ax) for ax in fig.axes] == [{"tree_share": [0.5]}, {"tree_share": [0.1]}]


def test_losses_alone_are_no_metrics() -> None:
    assert plot_metric_curves([{"epoch": 0, "train_loss": 1.0, "valid_time": "0:01"}]) is None


def test_confusion_matrix_shows_shares_of_the_truth(tmp_path: Path) -> None:
    fig = plot_confusion_matrix(torch.tensor([[6, 2, 0], [0, 4, 0], [0, 0, 0]]), ["a", "b", "c"], "valid")

    save_figure(fig, str(tmp_path / "m.png"))
    assert [t.get_text() for t in fig.axes[0].texts] == ["0.75", "0.25", "0.00", "0.00", "1.00", "0.00"]
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["a (8)", "b (4)", "c (0)"]
    with Image.open(tmp_path / "m.png") as image:
        assert min(image.size) >= 300


def test_precision_is_plotted_against_recall() -> None:
    fig = plot_precision_recall({"tree": ([0.1, 0.5], [1.0, 0.6]), "one box": ([0.2], [1.0])})

    assert lines(fig.axes[0]) == {"tree": [1.0, 0.6], "one box": [1.0]}


def test_scatter_thins_out_points_and_tells_the_error() -> None:
    y = np.zeros((100, 2))
    z = np.stack([np.full(100, 3.0), np.arange(100)], axis=1)

    fig = plot_regression_scatter(y, z, ["height", "cover"], max_points=10)

    points: list[Any] = [ax.collections[0].get_offsets() for ax in fig.axes]
    assert [len(p) for p in points] == [10, 10]
    assert fig.axes[0].get_title() == "height: RMSE 3"


def test_errors_are_counted_in_bins() -> None:
    fig = plot_error_histogram(torch.zeros(6), torch.tensor([-1.0, -1, 0, 0, 0, 1]), ["height"], bins=3)

    heights = [bar.get_height() for bar in fig.axes[0].patches]  # type: ignore[attr-defined]
    assert heights == [2, 3, 1]


def test_unknown_targets_are_left_out() -> None:
    y, z = np.array([[1.0, np.nan], [2.0, 5.0]]), np.array([[1.0, 3.0], [2.0, 7.0]])

    fig = plot_regression_scatter(y, z, ["height", "cover"])

    points: list[Any] = [ax.collections[0].get_offsets() for ax in fig.axes]
    assert [p.tolist() for p in points] == [[[1, 1], [2, 2]], [[5, 7]]]


@pytest.mark.parametrize("plot", [plot_regression_scatter, plot_error_histogram])
def test_no_chips_make_an_empty_figure(plot: Any) -> None:
    assert len(plot(np.zeros((0, 2)), np.zeros((0, 2)), ["a", "b"]).axes) == 2


AUGMENTATION = v2.Compose([resize_transform(16), v2.RandomVerticalFlip(p=1.0)])


def shown(fig: Any) -> list[np.ndarray[Any, Any]]:
    return [np.asarray(ax.images[0].get_array()) for ax in fig.axes]


def test_augmented_chips_stand_beside_plain_ones(chips_dir: Path) -> None:
    folder = chips_dir / "train"
    ds = SemanticSegmentationImageDataset(str(folder / "img"), str(folder / "labels"), transform=AUGMENTATION)
    visualizer = SemanticSegmentationVisualizer(["ground", "box"])

    fig = plot_augmentations(ConcatDataset([Subset(ds, [3, 1]), ds]), resize_transform(16), visualizer, limit=3)

    images = shown(fig)
    half = len(images) // 2
    assert half == 6
    for before, after in zip(images[:half], images[half:], strict=True):
        np.testing.assert_allclose(after, before[::-1])


def test_random_windows_are_the_same_before_and_after() -> None:
    sample = Path(__file__).parents[3] / "examples/data/tree_cover"
    scene = make_ss_scene(
        str(sample / "osbs_east.tif"),
        label_vector_uri=str(sample / "osbs_east.geojson"),
        class_config=ClassConfig(names=["background", "tree"], null_class="background"),
        label_vector_default_class_id=1,
    )
    ds = SemanticSegmentationRandomWindowGeoDataset(
        scene, out_size=None, size_lims=(32, 64), max_windows=5, transform=AUGMENTATION
    )
    state = torch.random.get_rng_state()

    fig = plot_augmentations(ds, resize_transform(16), SemanticSegmentationVisualizer(["background", "tree"]), limit=2)

    images = shown(fig)
    for before, after in zip(images[:4], images[4:], strict=True):
        np.testing.assert_allclose(after, before[::-1])
    assert torch.equal(state, torch.random.get_rng_state())


def test_other_datasets_have_no_augmentations_to_show() -> None:
    ds = TensorDataset(torch.rand(2, 3, 4, 4), torch.zeros(2, 4, 4))

    assert plot_augmentations(ds, v2.Identity(), SemanticSegmentationVisualizer(["a"])) is None
