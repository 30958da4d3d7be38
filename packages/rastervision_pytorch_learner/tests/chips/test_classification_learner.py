from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rastervision.core.data import ClassConfig
from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner import (
    ClassificationImageDataConfig,
    ClassificationLearner,
    ClassificationLearnerConfig,
    ClassificationModelConfig,
    ExternalModuleConfig,
    SolverConfig,
)

CLASSES = ["red", "green", "blue"]

MakeConfig = Callable[..., ClassificationLearnerConfig]


@pytest.fixture
def make_cc_cfg(tmp_path: Path, hub: dict[str, Any], write_class_folders: Callable[..., None]) -> MakeConfig:
    """Make a learner config; ``model`` has fields of the model, other arguments are fields of the solver."""
    for split, count in (("train", 16), ("valid", 8)):
        write_class_folders(tmp_path / "chips" / split, dict.fromkeys(CLASSES, count), seed=count)

    def make(model: dict[str, Any] | None = None, names: list[str] = CLASSES, **solver: Any) -> Any:
        tiny = ExternalModuleConfig(**hub, entrypoint_kwargs={"num_classes": 3})
        return ClassificationLearnerConfig(
            model=ClassificationModelConfig(**(model or {"external_def": tiny})),
            solver=SolverConfig(**{"num_epochs": 8, "batch_sz": 8, "lr": 0.02, "seed": 1, **solver}),
            data=ClassificationImageDataConfig(
                uri=str(tmp_path / "chips"),
                img_sz=16,
                num_workers=0,
                img_channels=3,
                class_config=ClassConfig(names=names),
            ),
            output_uri=str(tmp_path / "train"),
            log_tensorboard=False,
        )

    return make


def test_learns_colours_and_its_bundle_predicts_the_same(make_cc_cfg: MakeConfig, tmp_path: Path) -> None:
    learner = make_cc_cfg().build(tmp_dir=str(tmp_path / "tmp"))

    learner.main()

    header, *rows = [line.split(",") for line in (tmp_path / "train" / "log.csv").read_text().splitlines()]
    assert header[:7] == ["epoch", "train_loss", "train_time", "val_loss", "avg_precision", "avg_recall", "avg_f1"]
    assert header[7:10] == ["red_precision", "red_recall", "red_f1"]
    # recall, averaged with the frequencies of the classes as weights, is accuracy
    assert max(float(row[5]) for row in rows) > 0.9
    assert (tmp_path / "train" / "valid_preds.png").is_file()
    x = torch.stack([learner.valid_ds[i][0] for i in range(0, 24, 3)])
    loaded = ClassificationLearner.from_model_bundle(str(tmp_path / "train" / "model-bundle.zip"))
    torch.testing.assert_close(loaded.predict(x, raw_out=True), learner.predict(x, raw_out=True))


def test_predicts_class_ids_or_what_the_model_gives(make_cc_cfg: MakeConfig, tmp_path: Path) -> None:
    learner = make_cc_cfg().build(tmp_dir=str(tmp_path / "tmp"), training=False)
    x = torch.rand(4, 3, 16, 16)

    scores, ids = learner.predict(x, raw_out=True), learner.predict(x)

    assert scores.shape == (4, 3)
    assert ids.tolist() == scores.argmax(1).tolist()
    assert learner.predict(x[0]).tolist() == ids[:1].tolist()


@pytest.mark.parametrize("backbone", ["resnet18", "shufflenet_v2_x1_0"])
def test_trains_backbones_of_torchvision(backbone: str, make_cc_cfg: MakeConfig, tmp_path: Path) -> None:
    cfg = make_cc_cfg({"backbone": backbone, "pretrained": False}, num_epochs=1)
    learner = cfg.build(tmp_dir=str(tmp_path / "tmp"))

    learner.train()

    assert learner.validate()["val_loss"] > 0


def test_metrics_leave_out_the_ignored_class(make_cc_cfg: MakeConfig, tmp_path: Path) -> None:
    learner = make_cc_cfg(ignore_class_index=2).build(tmp_dir=str(tmp_path / "tmp"))
    conf_mat = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1]])

    metrics = learner.validate_end([{"val_loss": torch.tensor(1.0), "conf_mat": conf_mat}])

    assert "blue_f1" not in metrics
    assert (metrics["avg_precision"], metrics["avg_recall"]) == pytest.approx((0.8333, 0.6667), abs=1e-4)
    assert metrics["avg_f1"] == pytest.approx(0.7407, abs=1e-4)


def test_a_class_id_beyond_the_classes_names_the_chips(make_cc_cfg: MakeConfig, tmp_path: Path) -> None:
    learner = make_cc_cfg().build(tmp_dir=str(tmp_path / "tmp"))

    with pytest.raises(ConfigError, match=r"class id 3, but there are 3 classes .*in chip 7"):
        learner.check_batch((None, torch.tensor([0, 3])), lambda: "chip 7")
    with pytest.raises(ConfigError, match=r"without labels \(chip 7\)"):
        learner.check_batch((None, torch.tensor([float("nan")])), lambda: "chip 7")


def test_folders_that_are_no_class_are_an_error_if_nothing_is_left(make_cc_cfg: MakeConfig, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"no images in .*train/<class> for the classes \['x', 'y'\]"):
        make_cc_cfg(names=["x", "y"]).build(tmp_dir=str(tmp_path / "tmp"))


def test_a_kill_changes_no_weights(make_cc_cfg: MakeConfig, check_goes_on: Callable[[Any], None]) -> None:
    check_goes_on(make_cc_cfg())
