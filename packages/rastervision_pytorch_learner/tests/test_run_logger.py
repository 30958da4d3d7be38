from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rastervision.pipeline.errors import MissingPackageError, RegistryError
from rastervision.pipeline.registry import registry_
from rastervision.pytorch_learner.mlflow_logger import MLflowLogger
from rastervision.pytorch_learner.run_logger import RunLoggers
from rastervision.pytorch_learner.wandb_logger import WandbLogger

MakeCfg = Callable[..., Any]


class Diary:
    """A logger as somebody else would write it."""

    events: list[tuple[Any, ...]]
    fails = False

    def start(self, config: dict[str, Any], output_dir: str) -> None:
        random.seed(1)
        torch.rand(1)
        self.events.append(("start", config["solver"]["lr"], Path(output_dir).name))

    def log(self, metrics: dict[str, float], step: int) -> None:
        if self.fails:
            raise ConnectionError("the server is down")
        self.events.append(("log", step, sorted(metrics)))

    def artifact(self, path: str) -> None:
        self.events.append(("artifact", Path(path).name))

    def finish(self) -> None:
        self.events.append(("finish",))


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Diary]]:
    monkeypatch.setattr(Diary, "events", [], raising=False)
    registry_.add_run_logger("diary", Diary)
    yield Diary
    del registry_.run_loggers["diary"]


def test_a_logger_is_told_of_the_whole_run(make_cfg: MakeCfg, diary: type[Diary]) -> None:
    make_cfg(loggers=["diary"]).build().main()

    first, *middle, last = diary.events
    assert first == ("start", 0.01, "train")
    assert [e[1] for e in middle if e[0] == "log"] == [0, 1]
    names = middle[0][2]
    assert {"train_loss", "val_loss", "avg_f1", "box_f1"} <= set(names)
    assert "epoch" not in names
    assert "train_time" not in names
    files = {e[1] for e in middle if e[0] == "artifact"}
    assert files == {"log.csv", "loss.png", "valid_metrics.json", "valid_preds.png", "model-bundle.zip"}
    assert last == ("finish",)


def test_loggers_do_not_change_the_training(make_cfg: MakeCfg, diary: type[Diary], tmp_path: Path) -> None:
    learners = [
        make_cfg(output_uri=str(tmp_path / name), loggers=loggers, data_augmentors=["GaussNoise"]).build()
        for name, loggers in (("a", []), ("b", ["diary"]))
    ]
    for learner in learners:
        torch.manual_seed(3)
        learner.train()

    a, b = (learner.model.state_dict() for learner in learners)
    assert all(torch.equal(a[k], v) for k, v in b.items())


def test_a_logger_that_fails_is_left_out(
    make_cfg: MakeCfg, diary: type[Diary], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(diary, "fails", True)

    make_cfg(loggers=["diary"]).build().train()

    assert diary.events == [("start", 0.01, "train")]
    assert "the logger diary failed and is left out from here on: ConnectionError: the server is down" in caplog.text


def test_names_are_checked(make_cfg: MakeCfg, diary: type[Diary]) -> None:
    with pytest.raises(RegistryError, match=r"no logger 'dairy'.*diary, mlflow, wandb"):
        make_cfg(loggers=["dairy"]).build().train()
    with pytest.raises(RegistryError, match="already registered"):
        registry_.add_run_logger("diary", Diary)
    assert registry_.get_run_logger("mlflow") is MLflowLogger
    assert registry_.get_run_logger("wandb") is WandbLogger


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_missing_packages_are_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, name, None)

    with pytest.raises(MissingPackageError, match=rf"pip install rastervision_pytorch_learner\[{name}\]"):
        RunLoggers([name], {}, str(tmp_path)).__enter__()


CONFIG = {"model": {"backbone": "resnet18"}, "solver": {"optimizer": {"name": "adam"}, "lr": 0.1}, "data": {}}


def log_twice(logger: type[Any], folder: Path) -> None:
    """Log an epoch, as before a kill, and another one after going on."""
    (folder / "file.txt").write_text("x")
    for step in (0, 1):
        one = logger()
        one.start(CONFIG, str(folder))
        one.log({"val_loss": 1.0 - step, "a, b_f1": 0.5}, step)
        one.artifact(str(folder / "file.txt"))
        one.finish()


@pytest.mark.filterwarnings("ignore")  # those of other packages
def test_mlflow_keeps_one_run_in_the_train_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)

    log_twice(MLflowLogger, tmp_path)

    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("rastervision").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["solver.optimizer.name"] == "adam"
    assert [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "val_loss")] == [(0, 1.0), (1, 0.0)]
    assert [a.path for a in client.list_artifacts(run.info.run_id)] == ["file.txt"]


@pytest.mark.filterwarnings("ignore")
def test_wandb_works_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)

    log_twice(WandbLogger, tmp_path)

    runs = sorted(p.name for p in (tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2
    assert len({name.rpartition("-")[2] for name in runs}) == 1
    assert list((tmp_path / "wandb").rglob("file.txt"))
