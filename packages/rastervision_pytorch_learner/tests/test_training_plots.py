from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rastervision.pytorch_backend.learner_config import SemanticSegmentationLearnerConfig
from rastervision.pytorch_learner import SemanticSegmentationLearner
from rastervision.pytorch_learner.box_list import BoxList
from rastervision.pytorch_learner.coco_metrics import compute_coco_eval, precision_recall

MakeCfg = Callable[..., SemanticSegmentationLearnerConfig]


def test_training_leaves_plots_of_data_progress_and_quality(make_cfg: MakeCfg, tmp_path: Path) -> None:
    SemanticSegmentationLearner(make_cfg()).main()

    found = {str(p.relative_to(tmp_path / "train")) for p in (tmp_path / "train").rglob("*.png")}
    assert found == {
        "dataloaders/augmentations.png",
        "dataloaders/train.png",
        "dataloaders/valid.png",
        "loss.png",
        "metrics.png",
        "valid_confusion_matrix.png",
        "valid_preds.png",
    }
    for name in found:
        with Image.open(tmp_path / "train" / name) as image:
            assert min(image.size) >= 300


def test_no_augmentation_no_plot_of_it(make_cfg: MakeCfg, tmp_path: Path) -> None:
    SemanticSegmentationLearner(make_cfg(data_augmentors=[])).plot_dataloaders()

    assert {p.name for p in (tmp_path / "train" / "dataloaders").iterdir()} == {"train.png", "valid.png"}


def test_plots_do_not_change_what_is_learned(make_cfg: MakeCfg, tmp_path: Path) -> None:
    def weights(name: str, plot: bool) -> dict[str, Any]:
        learner = SemanticSegmentationLearner(make_cfg(output_uri=str(tmp_path / name)))
        if plot:
            learner.plot_dataloaders()
        learner.train(1)
        return learner.model.state_dict()

    plain, plotted = weights("plain", False), weights("plotted", True)

    assert all(torch.equal(plain[k], plotted[k]) for k in plain)


def test_figures_are_there_for_notebooks_once_the_model_was_measured(make_cfg: MakeCfg) -> None:
    learner = SemanticSegmentationLearner(make_cfg())
    assert learner.plot_metrics() == {}

    learner.validate("valid")

    (ax, _) = learner.plot_metrics()["confusion_matrix"].axes
    assert [t.get_text().split()[0] for t in ax.get_yticklabels()] == ["ground", "box"]


def boxes(*rows: tuple[float, float, float, float], scores: list[float] | None = None) -> BoxList:
    extras = {} if scores is None else {"scores": torch.tensor(scores)}
    ids = torch.zeros(len(rows), dtype=torch.long)
    return BoxList(torch.tensor(rows).reshape(-1, 4), class_ids=ids, **extras)


def test_precision_and_recall_follow_the_boxes_best_first() -> None:
    truth = [boxes((0, 0, 10, 10), (20, 20, 30, 30)), boxes((0, 0, 10, 10))]
    found = [
        boxes((0, 0, 10, 10), (50, 50, 60, 60), scores=[0.9, 0.8]),
        boxes((0, 0, 10, 9), scores=[0.7]),
    ]

    recall, precision = precision_recall(found, truth, 0)

    np.testing.assert_allclose(recall, [1 / 3, 1 / 3, 2 / 3])
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3])
    # the area below the curve is what is reported as average precision
    assert compute_coco_eval(found, truth, 1).stats[1] == pytest.approx(34 / 101 + 33 / 101 * 2 / 3)


def test_no_true_boxes_no_recall() -> None:
    recall, precision = precision_recall([boxes((0, 0, 1, 1), scores=[0.5])], [boxes()], 0)

    assert np.isnan(recall).all()
    assert precision.tolist() == [0]
