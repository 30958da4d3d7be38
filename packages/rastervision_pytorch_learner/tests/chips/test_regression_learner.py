from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rastervision.core.data import ClassConfig
from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner import (
    ExternalModuleConfig,
    RegressionImageDataConfig,
    RegressionLearner,
    RegressionLearnerConfig,
    RegressionModelConfig,
    SolverConfig,
    compute_regression_metrics,
)
from rastervision.pytorch_learner.regression_learner import L1Loss

NAMES = ["brightness", "darkness"]

MakeConfig = Callable[..., RegressionLearnerConfig]


@pytest.fixture
def make_regression_cfg(tmp_path: Path, hub: dict[str, Any], write_bright_chips: Callable[..., None]) -> MakeConfig:
    """Make a learner config; ``model`` and ``data`` have fields of these, other arguments are fields of the solver."""
    for split, count in (("train", 48), ("valid", 16)):
        write_bright_chips(tmp_path / "chips" / split, count, seed=count)

    def make(model: dict[str, Any] | None = None, data: dict[str, Any] | None = None, **solver: Any) -> Any:
        tiny = ExternalModuleConfig(**hub)
        fields = {
            "uri": str(tmp_path / "chips"),
            "img_sz": 16,
            "num_workers": 0,
            "img_channels": 3,
            "class_config": ClassConfig(names=NAMES),
        }
        return RegressionLearnerConfig(
            model=RegressionModelConfig(**(model or {"external_def": tiny})),
            solver=SolverConfig(**{"num_epochs": 12, "batch_sz": 8, "lr": 0.02, "seed": 1, **solver}),
            data=RegressionImageDataConfig(**{**fields, **(data or {})}),
            output_uri=str(tmp_path / "train"),
            log_tensorboard=False,
        )

    return make


def test_learns_the_brightness_of_chips(make_regression_cfg: MakeConfig, tmp_path: Path) -> None:
    learner = make_regression_cfg().build(tmp_dir=str(tmp_path / "tmp"))

    learner.main()

    with (tmp_path / "train" / "log.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert {"epoch", "train_loss", "train_time", "val_loss", "valid_time"} <= rows[0].keys()
    best = min(float(row["brightness_abs_error"]) for row in rows)
    assert best < 0.08  # that of the mean is 0.25
    assert best < 0.4 * float(rows[0]["brightness_abs_error"])
    metrics = json.loads((tmp_path / "train" / "valid_metrics.json").read_text())
    assert metrics["brightness_r2"] > 0.8
    median = torch.tensor([learner.train_ds[i][1][0] for i in range(48)]).median().item()
    assert learner.target_medians[0].item() == pytest.approx(median)
    scaled = metrics["brightness_abs_error"] / learner.target_medians[0].item()
    assert metrics["brightness_scaled_abs_error"] == pytest.approx(scaled)
    for name in ("preds", "scatter", "err_hist"):
        assert (tmp_path / "train" / f"valid_{name}.png").is_file()
    x = torch.stack([learner.valid_ds[i][0] for i in range(4)])
    loaded = RegressionLearner.from_model_bundle(str(tmp_path / "train" / "model-bundle.zip"))
    torch.testing.assert_close(loaded.predict(x), learner.predict(x))


def test_targets_say_which_outputs_are_positive_or_shares(make_regression_cfg: MakeConfig, tmp_path: Path) -> None:
    cfg = make_regression_cfg(
        {"backbone": "resnet18", "pretrained": False},
        {"pos_class_names": ["brightness"], "prob_class_names": ["darkness"]},
    )
    learner = cfg.build(tmp_dir=str(tmp_path / "tmp"), training=False)

    out = learner.predict(torch.rand(8, 3, 32, 32) * 10 - 5)

    assert out.shape == (8, 2)
    assert bool((out > 0).all())
    assert bool((out[:, 1] < 1).all())


def test_the_loss_weighs_targets_and_leaves_unknown_ones_out() -> None:
    out = torch.tensor([[1.0, 5.0], [2.0, 9.0]], requires_grad=True)
    y = torch.tensor([[2.0, 3.0], [math.nan, 6.0]])

    assert L1Loss()(out, y).item() == pytest.approx((1 + 2 + 3) / 3)
    loss = L1Loss(torch.tensor([4.0, 1.0]))(out, y)
    assert loss.item() == pytest.approx((4 + 2 + 3) / 6)
    loss.backward()
    assert out.grad is not None
    assert out.grad[1, 0] == 0
    assert bool(out.grad.isfinite().all())
    assert L1Loss()(out, torch.full((2, 2), math.nan)).item() == 0


@pytest.mark.parametrize(
    ("solver", "expected"),
    [({}, [1.0, 1.0]), ({"class_loss_weights": [2, 3]}, [2.0, 3.0]), ({"ignore_class_index": -1}, [1.0, 0.0])],
)
def test_the_solver_says_what_targets_weigh(
    solver: dict[str, Any], expected: list[float], make_regression_cfg: MakeConfig, tmp_path: Path
) -> None:
    learner = make_regression_cfg(**solver).build(tmp_dir=str(tmp_path / "tmp"))

    assert isinstance(learner.loss, L1Loss)
    assert learner.loss.weight is not None
    assert learner.loss.weight.tolist() == expected


def test_an_external_loss_is_used(make_regression_cfg: MakeConfig, hub: dict[str, Any], tmp_path: Path) -> None:
    squared = ExternalModuleConfig(**{**hub, "entrypoint": "squared"})
    cfg = make_regression_cfg(external_loss_def=squared, num_epochs=1)

    learner = cfg.build(tmp_dir=str(tmp_path / "tmp"))

    assert isinstance(learner.loss, nn.MSELoss)
    learner.train()


def test_losses_of_classes_are_refused(make_regression_cfg: MakeConfig) -> None:
    with pytest.raises(ValueError, match=r"solver.loss='dice' is a loss of classes"):
        make_regression_cfg(loss="dice")


def test_metrics_know_targets_that_are_unknown() -> None:
    out = torch.tensor([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
    y = torch.tensor([[1.0, math.nan], [3.0, math.nan], [4.0, math.nan]])

    metrics = compute_regression_metrics(out, y, NAMES)

    assert metrics["brightness_abs_error"] == pytest.approx(1 / 3)
    assert metrics["brightness_scaled_abs_error"] == pytest.approx(1 / 9)
    assert metrics["brightness_rmse"] == pytest.approx(math.sqrt(1 / 3))
    spread = ((torch.tensor([1.0, 3, 4]) - 8 / 3) ** 2).mean().item()
    assert metrics["brightness_r2"] == pytest.approx(1 - (1 / 3) / spread)
    assert math.isnan(metrics["darkness_abs_error"])
    assert math.isnan(metrics["darkness_r2"])


def test_another_number_of_targets_names_the_chips(make_regression_cfg: MakeConfig, tmp_path: Path) -> None:
    learner = make_regression_cfg().build(tmp_dir=str(tmp_path / "tmp"))

    with pytest.raises(ConfigError, match=r"Chips have 3 targets, but the class config names 2 .*in chip 7"):
        learner.check_batch((None, torch.zeros(4, 3)), lambda: "chip 7")
    with pytest.raises(ConfigError, match=r"without labels \(chip 7\)"):
        learner.check_batch((None, torch.full((4,), math.nan)), lambda: "chip 7")


def test_a_kill_changes_no_weights(make_regression_cfg: MakeConfig, check_goes_on: Callable[[Any], None]) -> None:
    check_goes_on(make_regression_cfg())
