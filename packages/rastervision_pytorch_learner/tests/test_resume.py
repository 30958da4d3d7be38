"""Training that was killed goes on exactly where it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rastervision.pipeline.errors import RunError
from rastervision.pipeline.file_system.atomic import TMP_PREFIX
from rastervision.pytorch_learner import (
    LRScheduleConfig,
    OptimizerConfig,
    SemanticSegmentationLearner,
    SemanticSegmentationLearnerConfig,
)
from rastervision.pytorch_learner.checkpoint import load_weights_file
from rastervision.pytorch_learner.tracking import read_log_csv

MakeCfg = Callable[..., SemanticSegmentationLearnerConfig]

AUGMENTORS = ["RandomRotate90", "HorizontalFlip", "GaussNoise"]


def run(cfg: SemanticSegmentationLearnerConfig, learner_class: Any = SemanticSegmentationLearner) -> Any:
    learner = learner_class(cfg)
    learner.train()
    return learner


def assert_same_training(a: Path, b: Path) -> None:
    first, second = (load_weights_file(str(d / "last-model.pth")) for d in (a, b))
    assert all(torch.equal(first[k], v) for k, v in second.items())
    assert sorted(os.listdir(a / "checkpoints")) == sorted(os.listdir(b / "checkpoints"))
    for path in (a / "checkpoints").glob("*.pth"):
        first, second = (load_weights_file(str(p)) for p in (path, b / "checkpoints" / path.name))
        assert all(torch.equal(first[k], v) for k, v in second.items())
    rows = [
        [{k: v for k, v in row.items() if not k.endswith("_time")} for row in read_log_csv(str(d / "log.csv"))]
        for d in (a, b)
    ]
    assert rows[0] == rows[1]


class Killed(Exception):
    """Stands for SIGKILL: nothing after it is run by the learner."""


def killing(at_epoch: int, where: str) -> type[SemanticSegmentationLearner]:
    """Return a learner that dies in an epoch: in its middle, or between any two files that it writes."""

    class Dying(SemanticSegmentationLearner):
        def validate_epoch(self, *args: Any, **kwargs: Any) -> dict[str, float]:
            if where == "middle" and self.state.epoch == at_epoch - 1:
                raise Killed
            return super().validate_epoch(*args, **kwargs)

    return Dying


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"one_cycle": False, "multi_stage": [2, 3]},
        {
            "optimizer": OptimizerConfig(name="adamw", weight_decay=0.1),
            "lr_schedule": LRScheduleConfig(warmup_epochs=1),
            "accumulate_batches": 2,
            "max_grad_norm": 0.5,
            "ema_decay": 0.7,
        },
        {
            "optimizer": OptimizerConfig(name="sgd"),
            "lr_schedule": LRScheduleConfig(name="plateau", patience=0, warmup_epochs=1),
            "loss": "dice",
            "mixed_precision": "bf16",
            "early_stopping_patience": 2,
        },
    ],
    ids=["one_cycle", "multi_stage", "cosine-ema-accumulate", "plateau-early"],
)
def test_training_in_two_parts_equals_training_at_once(
    make_cfg: MakeCfg, tmp_path: Path, options: dict[str, Any]
) -> None:
    args = {"solver_num_epochs": 4, "data_augmentors": AUGMENTORS} | {f"solver_{k}": v for k, v in options.items()}
    run(make_cfg(output_uri=str(tmp_path / "whole"), **args))
    parts = make_cfg(output_uri=str(tmp_path / "parts"), **args)

    with pytest.raises(Killed):
        run(parts, killing(2, "middle"))
    assert [r["epoch"] for r in read_log_csv(str(tmp_path / "parts/log.csv"))] == [0, 1]
    run(parts)

    assert_same_training(tmp_path / "whole", tmp_path / "parts")


def test_without_a_seed_too(make_cfg: MakeCfg, tmp_path: Path) -> None:
    args = {"solver_num_epochs": 3, "solver_seed": None, "data_augmentors": AUGMENTORS}
    torch.manual_seed(11)
    run(make_cfg(output_uri=str(tmp_path / "whole"), **args))
    parts = make_cfg(output_uri=str(tmp_path / "parts"), **args)
    torch.manual_seed(11)
    with pytest.raises(Killed):
        run(parts, killing(1, "middle"))
    torch.manual_seed(999)

    run(parts)

    assert_same_training(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("write", range(5))
def test_a_kill_between_any_two_files_is_harmless(
    make_cfg: MakeCfg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    args = {"solver_num_epochs": 3, "save_all_checkpoints": True}
    run(make_cfg(output_uri=str(tmp_path / "whole"), **args))
    parts = make_cfg(output_uri=str(tmp_path / "parts"), **args)
    replaced: list[str] = []
    real = os.replace

    def dying(src: str, dst: str) -> None:
        counted = os.fspath(dst).endswith((".pth", ".ckpt", "log.csv"))
        if counted and len(replaced) >= 4 + write:
            raise Killed
        real(src, dst)
        replaced.extend([dst] if counted else [])

    with monkeypatch.context() as m, pytest.raises(Killed):
        m.setattr(os, "replace", dying)
        run(parts)
    run(parts)

    assert_same_training(tmp_path / "whole", tmp_path / "parts")


SCRIPT = """
import os, signal, sys
import torch
from rastervision.pipeline.file_system.atomic import replacing
from rastervision.pytorch_learner import LearnerConfig, checkpoint
from rastervision.pytorch_learner.semantic_segmentation_learner import SemanticSegmentationLearner
torch.set_num_threads(1)
path, where = sys.argv[1:]

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Dying(SemanticSegmentationLearner):
    # each dies in the third epoch
    def train_step(self, batch, i):
        if where == "training" and self.state.epoch == 1 and i == 1:
            die()
        return super().train_step(batch, i)

    def validate_step(self, batch, i):
        if where == "validation" and self.state.epoch == 1 and i == 1:
            die()
        return super().validate_step(batch, i)

real = checkpoint.save_checkpoint

def half_a_checkpoint(path, state, *args):
    if where != "checkpoint" or state.epoch < 2:
        return real(path, state, *args)
    with replacing(path) as tmp, open(tmp, "wb") as file:
        file.write(b"half")
        file.flush()
        die()

checkpoint.save_checkpoint = half_a_checkpoint
Dying(LearnerConfig.from_file(path)).main()
"""


@pytest.mark.parametrize(
    ("where", "num_workers"), [("training", 0), ("training", 1), ("validation", 0), ("checkpoint", 0)]
)
def test_a_real_kill(make_cfg: MakeCfg, tmp_path: Path, where: str, num_workers: int) -> None:
    args = {
        "solver_num_epochs": 4,
        "solver_ema_decay": 0.7,
        "solver_accumulate_batches": 2,
        "data_augmentors": AUGMENTORS,
        "data_num_workers": num_workers,
    }
    run(make_cfg(output_uri=str(tmp_path / "whole"), **args))
    parts = make_cfg(output_uri=str(tmp_path / "parts"), **args)
    parts.to_file(str(tmp_path / "cfg.json"))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "cfg.json"), where]
    assert subprocess.run(command, timeout=240).returncode == -signal.SIGKILL
    assert [r["epoch"] for r in read_log_csv(str(tmp_path / "parts/log.csv"))] == [0, 1]
    unfinished = list((tmp_path / "parts/checkpoints").glob(f"{TMP_PREFIX}*"))
    assert len(unfinished) == (where == "checkpoint")

    parts.build().main()

    assert_same_training(tmp_path / "whole", tmp_path / "parts")
    assert (tmp_path / "parts/model-bundle.zip").exists()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_two_runs_with_a_seed_are_equal(make_cfg: MakeCfg, tmp_path: Path, num_workers: int) -> None:
    args = {"solver_num_epochs": 2, "data_augmentors": AUGMENTORS, "data_num_workers": num_workers}
    for name in ("a", "b"):
        torch.rand(len(name))  # what was drawn before does not matter
        run(make_cfg(output_uri=str(tmp_path / name), **args))

    assert_same_training(tmp_path / "a", tmp_path / "b")


def test_early_stopping_counts_epochs_without_a_gain(make_cfg: MakeCfg, tmp_path: Path) -> None:
    class Scripted(SemanticSegmentationLearner):
        def validate_end(self, outputs: list[dict[str, Any]]) -> dict[str, float]:
            # equal scores are no gain
            return {"avg_f1": [0.1, 0.5, 0.5, 0.4, 0.9][self.get_start_epoch()], "val_loss": 1.0}

    cfg = make_cfg(solver_num_epochs=5, solver_early_stopping_patience=2)
    with pytest.raises(Killed):
        run(cfg, type("DyingScripted", (killing(3, "middle"), Scripted), {}))

    learner = run(cfg, Scripted)

    assert [r["avg_f1"] for r in learner.state.history] == [0.1, 0.5, 0.5, 0.4]
    assert learner.state.best_epoch == 2
    # neither does another run go on
    assert len(run(cfg, Scripted).state.history) == 4
    assert len(run(make_cfg(solver_num_epochs=5), Scripted).state.history) == 5
    assert not (tmp_path / "train/earlier").exists()


def test_the_running_mean_is_measured_and_kept(make_cfg: MakeCfg, tmp_path: Path) -> None:
    learner = SemanticSegmentationLearner(make_cfg(solver_ema_decay=0.9, solver_num_epochs=1))
    before = {k: v.clone() for k, v in learner.model.state_dict().items()}
    learner._train_here(None)
    raw, mean = learner.model.state_dict(), learner.kept_model.state_dict()

    last = load_weights_file(str(tmp_path / "train/last-model.pth"))

    assert all(torch.equal(last[k], v) for k, v in mean.items())
    distance = [torch.dist(w["0.weight"], before["0.weight"]) for w in (mean, raw)]
    assert 0 < distance[0] < distance[1]
    learner.load_best_weights()
    assert torch.equal(learner.model.state_dict()["0.weight"], mean["0.weight"])
    assert learner.validate()["val_loss"] == pytest.approx(learner.state.history[0]["val_loss"])


def test_a_finished_training_is_not_repeated(make_cfg: MakeCfg, tmp_path: Path) -> None:
    first = make_cfg().build()
    first.main()
    before = (tmp_path / "train/last-model.pth").stat().st_mtime_ns
    (tmp_path / "train/model-bundle.zip").unlink()  # killed while it was written

    second = make_cfg().build()
    second.main()

    assert (tmp_path / "train/last-model.pth").stat().st_mtime_ns == before
    assert second.state == first.state
    x = torch.rand(1, 3, 16, 16)
    assert torch.equal(second.predict(x, raw_out=True), first.predict(x, raw_out=True))
    assert (tmp_path / "train/model-bundle.zip").exists()


def test_more_epochs_can_be_added(make_cfg: MakeCfg, tmp_path: Path) -> None:
    run(make_cfg(solver_num_epochs=2))

    learner = run(make_cfg(solver_num_epochs=5))

    assert [r["epoch"] for r in read_log_csv(str(tmp_path / "train/log.csv"))] == [0, 1, 2, 3, 4]
    # the cycle is laid out for five epochs of three steps: at its end the rate is near a tenth
    assert learner.opt.param_groups[0]["lr"] == pytest.approx(1e-3, rel=0.2)
    learner.train(epochs=1)
    assert learner.state.epoch == 5


def test_a_folder_of_0_31_goes_on_after_its_last_epoch(make_cfg: MakeCfg, tmp_path: Path) -> None:
    """It has only the weights and log.csv."""
    first = run(make_cfg(solver_num_epochs=2))
    (tmp_path / "train/checkpoints/last.ckpt").unlink()
    last = load_weights_file(str(tmp_path / "train/last-model.pth"))

    learner = SemanticSegmentationLearner(make_cfg(solver_num_epochs=4))

    assert learner.get_start_and_end_epochs() == (2, 4)
    assert all(torch.equal(learner.model.state_dict()[k], v) for k, v in last.items())
    assert learner.step_scheduler is not None
    assert learner.step_scheduler.last_epoch == 2 * len(first.train_dl)
    learner.train()
    assert [r["epoch"] for r in read_log_csv(str(tmp_path / "train/log.csv"))] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"hub_entrypoint_kwargs": {"in_channels": 3, "norm": False}}, "model"),
        ({"solver_lr": 1e-3}, "solver"),
        ({"data_augmentors": ["VerticalFlip"]}, "data"),
    ],
)
def test_another_training_starts_anew(
    make_cfg: MakeCfg, tmp_path: Path, caplog: pytest.LogCaptureFixture, changed: dict[str, Any], said: str
) -> None:
    run(make_cfg(solver_num_epochs=2))
    old = (tmp_path / "train/last-model.pth").read_bytes()

    run(make_cfg(solver_num_epochs=1, **changed))

    assert [r["epoch"] for r in read_log_csv(str(tmp_path / "train/log.csv"))] == [0]
    assert (tmp_path / "train/earlier/1/last-model.pth").read_bytes() == old
    assert (tmp_path / "train/earlier/1/checkpoints/last.ckpt").exists()
    assert f"because {said} changed" in caplog.text
    run(make_cfg(solver_num_epochs=3, **changed))
    assert [r["epoch"] for r in read_log_csv(str(tmp_path / "train/log.csv"))] == [0, 1, 2]


def test_other_chips_start_anew_and_the_same_ones_go_on(make_cfg: MakeCfg, tmp_path: Path, chips_dir: Path) -> None:
    def zip_chips(compression: int) -> str:
        with zipfile.ZipFile(tmp_path / "zips/chips.zip", "w", compression) as archive:
            for path in sorted(chips_dir.rglob("*.png")):
                archive.write(path, path.relative_to(chips_dir))
        return str(tmp_path / "zips")

    (tmp_path / "zips").mkdir()
    run(make_cfg(solver_num_epochs=1, data_uri=zip_chips(zipfile.ZIP_STORED)))

    assert run(make_cfg(solver_num_epochs=2, data_uri=zip_chips(zipfile.ZIP_DEFLATED))).get_start_epoch() == 2
    assert not (tmp_path / "train/earlier").exists()

    (chips_dir / "train/img/0.png").write_bytes((chips_dir / "train/img/1.png").read_bytes())
    assert run(make_cfg(solver_num_epochs=1, data_uri=zip_chips(zipfile.ZIP_STORED))).get_start_epoch() == 1
    assert (tmp_path / "train/earlier/1/last-model.pth").exists()


def test_a_kill_while_the_old_training_is_put_aside(
    make_cfg: MakeCfg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(make_cfg(solver_num_epochs=2))
    other = make_cfg(solver_num_epochs=1, solver_lr=1e-3)
    moved: list[str] = []
    real = os.rename

    def dying(src: str, dst: str) -> None:
        if moved:
            raise Killed
        real(src, dst)
        moved.append(src)

    with monkeypatch.context() as m, pytest.raises(Killed):
        m.setattr(os, "rename", dying)
        other.build()

    run(other)

    assert [r["epoch"] for r in read_log_csv(str(tmp_path / "train/log.csv"))] == [0]
    assert sorted(p.name for p in (tmp_path / "train/earlier").iterdir()) == ["1", "2"]


def test_a_model_that_was_handed_over_must_fit(make_cfg: MakeCfg, tmp_path: Path) -> None:
    run(make_cfg())
    other = make_cfg(hub_entrypoint_kwargs={"in_channels": 3, "norm": False})
    model = other.model.build(num_classes=2, in_channels=3, save_dir=str(tmp_path / "code"))

    with pytest.raises(RunError, match=r"The model saved in .*last.ckpt does not fit this run"):
        SemanticSegmentationLearner(other, model=model)
