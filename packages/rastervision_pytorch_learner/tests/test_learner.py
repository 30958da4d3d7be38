from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from rastervision.pipeline.errors import BundleError, ConfigError, RunError
from rastervision.pytorch_learner import (
    ExternalModuleConfig,
    NonFiniteLossError,
    SemanticSegmentationLearner,
    SemanticSegmentationLearnerConfig,
    SemanticSegmentationModelConfig,
)
from rastervision.pytorch_learner.bundle import write_learner_bundle
from rastervision.pytorch_learner.checkpoint import load_weights_file
from rastervision.pytorch_learner.onnx_export import ONNXRuntimeAdapter
from rastervision.pytorch_learner.tracking import read_log_csv

MakeCfg = Callable[..., SemanticSegmentationLearnerConfig]


def trained(cfg: SemanticSegmentationLearnerConfig) -> SemanticSegmentationLearner:
    learner: SemanticSegmentationLearner = cfg.build()
    learner.main()
    return learner


def test_main_leaves_weights_logs_plots_and_a_bundle(make_cfg: MakeCfg, tmp_path: Path) -> None:
    learner = trained(make_cfg(log_tensorboard=True, eval_train=True, data_preview_batch_limit=2))

    files = {p.relative_to(tmp_path / "train").as_posix() for p in (tmp_path / "train").rglob("*") if p.is_file()}
    events = {f for f in files if f.startswith("tb-logs/events")}
    best = learner.state.best_epoch
    assert events
    assert files - events == {
        "checkpoints/last.ckpt",
        f"checkpoints/best-model-epoch-{best}.pth",
        "dataloaders/augmentations.png",
        "dataloaders/train.png",
        "dataloaders/valid.png",
        "last-model.pth",
        "learner-config.json",
        "log.csv",
        "loss.png",
        "metrics.png",
        "model-bundle.zip",
        "modules/tiny-hub/hubconf.py",
        "train_confusion_matrix.png",
        "train_metrics.json",
        "train_preds.png",
        "trained-on.json",
        "valid_confusion_matrix.png",
        "valid_metrics.json",
        "valid_preds.png",
    }


def test_log_csv_has_the_columns_of_0_31(make_cfg: MakeCfg, tmp_path: Path) -> None:
    trained(make_cfg())

    header, *rows = (tmp_path / "train/log.csv").read_text().splitlines()

    assert header == (
        "epoch,train_loss,train_time,val_loss,avg_precision,avg_recall,avg_f1,ground_precision,ground_recall,ground_f1,"
        "box_precision,box_recall,box_f1,valid_time"
    )
    assert [r.split(",")[0] for r in rows] == ["0", "1"]


def test_it_learns(make_cfg: MakeCfg) -> None:
    learner = trained(make_cfg(solver_num_epochs=12, solver_lr=0.05))

    history = learner.state.history

    assert history[-1]["train_loss"] < history[0]["train_loss"] / 2
    assert max(row["box_f1"] for row in history) > 0.9


def test_the_bundle_predicts_as_the_learner(make_cfg: MakeCfg, tmp_path: Path) -> None:
    learner = trained(make_cfg())
    x = torch.rand(2, 3, 16, 16)
    (tmp_path / "hub/hubconf.py").unlink()  # the code comes from the bundle

    loaded = SemanticSegmentationLearner.from_model_bundle(str(tmp_path / "train/model-bundle.zip"))

    assert torch.equal(loaded.predict(x, raw_out=True), learner.predict(x, raw_out=True))
    assert not loaded.model.training
    assert not any(p.name.startswith("model-bundle") for p in tmp_path.iterdir())


def test_the_best_weights_are_bundled_and_the_last_kept(make_cfg: MakeCfg, tmp_path: Path) -> None:
    """0.31 bundled the last weights."""

    class Scripted(SemanticSegmentationLearner):
        scores: Iterator[float] = iter([0.5, 0.9, 0.7, 0.6])

        def validate_end(self, outputs: list[dict[str, Any]]) -> dict[str, float]:
            return {"avg_f1": next(self.scores, 0.0), "val_loss": 1.0}

    cfg = make_cfg(solver_num_epochs=4, save_all_checkpoints=True)
    learner = Scripted(cfg)
    learner.train()
    learner.save_model_bundle()

    folder = tmp_path / "train"
    kept = [load_weights_file(str(folder / f"checkpoints/model-ckpt-epoch-{i}.pth")) for i in range(3)]
    with zipfile.ZipFile(folder / "model-bundle.zip") as archive:
        archive.extract("model.pth", tmp_path)
    bundled, last = load_weights_file(str(tmp_path / "model.pth")), load_weights_file(str(folder / "last-model.pth"))
    assert (learner.state.best_epoch, learner.state.best_score) == (1, 0.9)
    assert all(torch.equal(bundled[k], v) for k, v in kept[1].items())
    assert any(not torch.equal(bundled[k], v) for k, v in last.items())
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == [
        "best-model-epoch-1.pth",
        "last.ckpt",
        *(f"model-ckpt-epoch-{i}.pth" for i in range(3)),
    ]


def test_nan_loss_stops_training_and_names_the_chips(make_cfg: MakeCfg, hub_dir: Path, tmp_path: Path) -> None:
    cfg = make_cfg(
        solver_external_loss_def=ExternalModuleConfig(
            uri=str(hub_dir), name="nan-loss", entrypoint="nan_after", entrypoint_args=[7]
        )
    )
    learner = cfg.build()

    # 3 training and 2 validation batches in the first epoch
    with pytest.raises(
        NonFiniteLossError, match=r"nan in batch 2 of 'epoch 2/2: train' \(.*train/img/\d.png; .*png\).*nan-batch.pth"
    ):
        learner.main()

    assert [row["epoch"] for row in read_log_csv(str(tmp_path / "train/log.csv"))] == [0]
    assert not (tmp_path / "train/model-bundle.zip").exists()
    assert not [p for p in (tmp_path / "train").rglob(".tmp-*")]
    kept = load_weights_file(str(tmp_path / "train/nan-batch.pth"))
    assert (kept["x"].shape, kept["y"].shape) == ((2, 3, 16, 16), (2, 16, 16))
    assert len(kept["chips"].split("; ")) == 2
    assert "nan in batch 2" in kept["error"]


def test_unknown_class_ids_name_the_chip(make_cfg: MakeCfg, chips_dir: Path) -> None:
    """0.31 crashed with an index error of PyTorch."""
    Image.fromarray(np.full((16, 16), 5, np.uint8)).save(chips_dir / "train/labels/4.png")

    with pytest.raises(ConfigError, match=r"class id 5, but there are 2 classes \(0 to 1: ground, box\), in .*4.png"):
        make_cfg(data_augmentors=[]).build().train()


def test_chips_without_labels_are_refused(make_cfg: MakeCfg) -> None:
    ds = TensorDataset(torch.rand(4, 3, 8, 8), torch.full((4,), float("nan")))

    with pytest.raises(ConfigError, match=r"chips without labels \(item"):
        SemanticSegmentationLearner(make_cfg(), train_ds=ds, valid_ds=ds).train()


def dataset(count: int) -> TensorDataset:
    return TensorDataset(torch.rand(count, 3, 8, 8), torch.ones(count, 8, 8, dtype=torch.long))


@pytest.mark.parametrize(("count", "batch_sz", "batches"), [(1, 4, 1), (3, 4, 1), (5, 4, 1), (6, 4, 2), (3, 1, 3)])
def test_a_last_batch_of_one_chip_is_left_out(make_cfg: MakeCfg, count: int, batch_sz: int, batches: int) -> None:
    cfg = make_cfg(solver_batch_sz=batch_sz, hub_entrypoint_kwargs={"norm": False})
    learner = SemanticSegmentationLearner(cfg, train_ds=dataset(count), valid_ds=dataset(1))

    learner.train(epochs=1)

    assert len(learner.train_dl) == batches
    assert learner.get_start_epoch() == 1


def test_one_chip_is_not_enough_for_batch_norm(make_cfg: MakeCfg) -> None:
    with pytest.raises(ConfigError, match="The training data is a single chip"):
        SemanticSegmentationLearner(make_cfg(), train_ds=dataset(1), valid_ds=dataset(1))
    cfg = make_cfg(solver_batch_sz=1)
    cfg.model = SemanticSegmentationModelConfig(backbone="mobilenet_v3_large", pretrained=False)
    learner = SemanticSegmentationLearner(cfg, train_ds=dataset(2), valid_ds=dataset(1))
    with pytest.raises(ConfigError, match=r"Raise solver.batch_sz"):
        learner.train()


def test_training_data_is_needed_but_validation_data_is_not(make_cfg: MakeCfg, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="The training data is empty"):
        SemanticSegmentationLearner(make_cfg(), train_ds=dataset(0), valid_ds=dataset(1))

    learner = SemanticSegmentationLearner(make_cfg(), train_ds=dataset(4), valid_ds=dataset(0))
    learner.main()

    assert learner.state.best_epoch == 1
    assert (tmp_path / "train/model-bundle.zip").exists()
    with pytest.raises(ConfigError, match="There is no valid data"):
        learner.validate("valid")


def test_what_a_learner_needs_is_asked_for(make_cfg: MakeCfg) -> None:
    with pytest.raises(ConfigError, match="output_uri are not set"):
        SemanticSegmentationLearner(make_cfg(output_uri=None), train_ds=dataset(2), valid_ds=dataset(2))
    cfg = make_cfg()
    cfg.solver = None
    with pytest.raises(ConfigError, match=r"learner.solver is not set"):
        SemanticSegmentationLearner(cfg, train_ds=dataset(2), valid_ds=dataset(2))
    cfg = make_cfg()
    cfg.model = None
    with pytest.raises(ConfigError, match=r"learner.model is not set"):
        SemanticSegmentationLearner(cfg, training=False)


def test_parts_can_be_given(make_cfg: MakeCfg, tmp_path: Path) -> None:
    model = nn.Conv2d(3, 2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    loss = nn.CrossEntropyLoss()

    learner = SemanticSegmentationLearner(
        make_cfg(),
        output_dir=str(tmp_path / "other"),
        train_ds=dataset(4),
        valid_ds=dataset(2),
        model=model,
        loss=loss,
        optimizer=optimizer,
        epoch_scheduler=schedule,
        tmp_dir=str(tmp_path / "tmp"),
    )
    learner.train()

    assert (learner.model, learner.loss, learner.opt) == (model, loss, optimizer)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.025)
    assert (tmp_path / "other/last-model.pth").exists()
    assert learner.step_scheduler is None


def test_the_model_is_compiled_if_asked_for(make_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))

    learner = make_cfg(solver_compile_model=True).build()
    make_cfg().build()

    assert compiled == [learner.model]


def test_own_models_are_laid_out_with_channels_last(make_cfg: MakeCfg) -> None:
    cfg = make_cfg()
    external = cfg.build()
    cfg.model = SemanticSegmentationModelConfig(backbone="resnet18", pretrained=False)
    own = SemanticSegmentationLearner(cfg, train_ds=dataset(2), valid_ds=dataset(2))

    assert not external.model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert own.model.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[union-attr]


def test_init_weights_are_loaded_and_must_fit(make_cfg: MakeCfg, tmp_path: Path) -> None:
    first = SemanticSegmentationLearner(make_cfg(), train_ds=dataset(2), valid_ds=dataset(2))
    first.save_weights(str(tmp_path / "init.pth"))
    cfg = make_cfg(output_uri=str(tmp_path / "second"), solver_seed=99)
    assert cfg.model is not None
    cfg.model.init_weights = str(tmp_path / "init.pth")

    second = SemanticSegmentationLearner(cfg, train_ds=dataset(2), valid_ds=dataset(2))

    for key, value in first.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[key], value)
    torch.save({"0.weight": torch.ones(1)}, tmp_path / "bad.pth")
    with pytest.raises(RunError, match=r"bad.pth do not fit the model"):
        second.load_weights(str(tmp_path / "bad.pth"))


def test_weights_with_other_keys_pass_if_not_strict(
    make_cfg: MakeCfg, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learner = SemanticSegmentationLearner(make_cfg(), training=False)
    torch.save({"other": torch.ones(1)}, tmp_path / "w.pth")

    learner.load_weights(str(tmp_path / "w.pth"), strict=False)

    assert "1 not used" in caplog.text


def test_pretrained_weights_are_not_fetched_when_others_follow(
    make_cfg: MakeCfg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = make_cfg(data_img_channels=5)
    cfg.model = SemanticSegmentationModelConfig(backbone="resnet18", pretrained=True)
    fetched: list[bool] = []
    monkeypatch.setattr(
        "rastervision.pytorch_learner.models.segmentation.backbone_weights", lambda name: fetched.append(True)
    )
    first = SemanticSegmentationLearner(cfg, training=False)
    assert fetched == [True]
    first.model_bundle_uri = str(tmp_path / "model-bundle.zip")
    first.save_model_bundle()

    loaded = SemanticSegmentationLearner.from_model_bundle(first.model_bundle_uri)

    assert fetched == [True]
    assert "backbone.conv1.1.1.weight" in loaded.model.state_dict()


def test_predictions_have_the_precision_of_validation(make_cfg: MakeCfg) -> None:
    x = dataset(3).tensors[0]
    exact = SemanticSegmentationLearner(make_cfg(), training=False)
    learner = SemanticSegmentationLearner(make_cfg(solver_mixed_precision="bf16"), training=False)
    learner.model.load_state_dict(exact.model.state_dict())

    logits = learner.predict_logits(x)

    assert logits.dtype == learner.predict(x, raw_out=True).dtype == torch.float32
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(logits, learner.model(x).float())
    assert not torch.equal(logits, exact.predict_logits(x))


def test_predictions_come_in_each_format(make_cfg: MakeCfg) -> None:
    learner = SemanticSegmentationLearner(make_cfg(), training=False)
    ds = dataset(3)
    x = ds.tensors[0]

    probs = learner.predict(x, raw_out=True)

    assert probs.shape == (3, 2, 8, 8)
    torch.testing.assert_close(probs.sum(1), torch.ones(3, 8, 8))
    assert torch.equal(learner.predict(x), probs.argmax(1))
    assert torch.equal(learner.predict_onnx(x), probs.argmax(1))
    assert learner.predict(x[0], out_shape=(16, 12)).shape == (1, 16, 12)
    torch.testing.assert_close(learner.predict_logits(x).softmax(1), learner.predict_probs(x))
    assert learner.predict_probs(x, (4, 4)).shape == (3, 2, 4, 4)
    zs = list(learner.predict_dataset(ds, dataloader_kw={"batch_size": 2}, progress_bar=False))
    torch.testing.assert_close(torch.stack(zs), probs)
    for y, z in learner.predict_dataset(ds, "yz", raw_out=False, numpy_out=True):
        assert isinstance(z, np.ndarray)
        assert y.shape == z.shape
    xyz = next(learner.predict_dataset(ds, "xyz", predict_kw={"out_shape": (4, 4)}, dataloader_kw={"batch_size": 3}))
    assert [p.shape for p in xyz] == [(3, 8, 8), (8, 8), (2, 4, 4)]
    with pytest.raises(ValueError, match="return_format='zyx'"):
        learner.predict_dataset(ds, "zyx").__next__()  # type: ignore[arg-type]


def test_small_outputs_are_compared_at_the_size_of_the_labels(make_cfg: MakeCfg) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AvgPool2d(4))
    learner = SemanticSegmentationLearner(make_cfg(), train_ds=dataset(2), valid_ds=dataset(2), model=model)

    learner.train(epochs=1)

    assert learner.state.history[0]["val_loss"] > 0


def test_input_helpers(make_cfg: MakeCfg) -> None:
    learner = SemanticSegmentationLearner(make_cfg(), training=False)

    assert learner.normalize_input(np.full(1, 65535, np.uint16)).tolist() == [1]
    assert learner.normalize_input(np.full(1, 7, np.int16)).tolist() == [7]
    moved = learner.to_device({"a": [torch.ones(1)], "b": "text"}, "cpu")
    assert moved["b"] == "text"


def test_plots_leave_random_numbers_alone(make_cfg: MakeCfg) -> None:
    learner = make_cfg(data_augmentors=["GaussNoise"]).build()
    before = torch.get_rng_state()

    learner.plot_dataloaders()
    learner.plot_predictions("train")

    assert torch.equal(torch.get_rng_state(), before)


def test_dataloaders_can_be_plotted(make_cfg: MakeCfg, tmp_path: Path) -> None:
    learner = make_cfg().build()

    learner.plot_dataloader(learner.train_dl, str(tmp_path / "x.png"), batch_limit=1)

    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (600, 300)


def test_remote_output_is_synced(make_cfg: MakeCfg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder stands for a bucket: paths below ``mem://`` are copied there."""
    from rastervision.pipeline.file_system import utils

    bucket = tmp_path / "bucket"
    real = utils.sync_to_dir
    calls: list[str] = []

    def sync_to_dir(src: str, dst: str, *args: Any, **kwargs: Any) -> None:
        calls.append(dst)
        real(src, str(bucket))

    monkeypatch.setattr(utils, "get_local_path", lambda uri, folder: os.path.join(folder, "local"))
    monkeypatch.setattr(utils, "file_exists", lambda uri, **kw: os.path.exists(uri) or bucket.exists())
    monkeypatch.setattr(utils, "sync_from_dir", lambda src, dst: real(str(bucket), dst))
    monkeypatch.setattr(utils, "sync_to_dir", sync_to_dir)
    cfg = make_cfg(output_uri="s3://bucket/train", save_model_bundle=False, solver_sync_interval=2)

    trained(cfg)

    assert calls == ["s3://bucket/train"] * 2
    assert (bucket / "last-model.pth").exists()
    again = cfg.build()
    assert again.get_start_epoch() == 2


def test_tensorboard_runs_while_training(make_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Process:
        def terminate(self) -> None:
            events.append("terminated")

        def wait(self) -> None:
            events.append("waited")

    monkeypatch.setattr("rastervision.pytorch_learner.learner_training.start_tensorboard", lambda folder: Process())
    cfg = make_cfg(log_tensorboard=True, run_tensorboard=True, save_model_bundle=False)

    trained(cfg)

    assert events == ["terminated", "waited"]


@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_onnx_models_of_bundles_are_used_if_asked_for(
    make_cfg: MakeCfg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    first = SemanticSegmentationLearner(make_cfg(), train_ds=dataset(2), valid_ds=dataset(2))
    first.export_to_onnx(str(tmp_path / "model.onnx"), dynamo=False)
    bundle_uri = str(tmp_path / "bundle.zip")
    onnx_path = str(tmp_path / "model.onnx")
    # its code is not needed, and so need not be trusted
    write_learner_bundle(bundle_uri, first.cfg, first.model.state_dict(), onnx_path=onnx_path)

    learner = SemanticSegmentationLearner.from_model_bundle(bundle_uri, use_onnx_model=True)

    assert learner.onnx_mode
    x = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(learner.predict(x, raw_out=True), first.predict(x, raw_out=True), rtol=1e-4, atol=1e-5)
    assert isinstance(learner.load_onnx_model(onnx_path), ONNXRuntimeAdapter)
    monkeypatch.setenv("RASTERVISION_USE_ONNX", "no")
    first.save_model_bundle()
    assert not SemanticSegmentationLearner.from_model_bundle(first.model_bundle_uri).onnx_mode


def test_corrupt_bundles_are_bundle_errors(tmp_path: Path) -> None:
    (tmp_path / "bad.zip").write_text("no zip")

    with pytest.raises(BundleError, match=r"bad.zip"):
        SemanticSegmentationLearner.from_model_bundle(str(tmp_path / "bad.zip"))


def test_training_can_go_on_from_a_bundle(make_cfg: MakeCfg, tmp_path: Path) -> None:
    first = trained(make_cfg())

    learner = SemanticSegmentationLearner.from_model_bundle(
        first.model_bundle_uri, training=True, output_dir=str(tmp_path / "more"), tmp_dir=str(tmp_path / "tmp")
    )

    for key, value in first.model.state_dict().items():
        assert torch.equal(learner.model.state_dict()[key], value)
    learner.train(epochs=1)
    assert (tmp_path / "more/last-model.pth").exists()


def test_metrics_file_holds_what_is_returned(make_cfg: MakeCfg, tmp_path: Path) -> None:
    learner = make_cfg().build()

    metrics = learner.validate("valid")

    assert json.loads((tmp_path / "train/valid_metrics.json").read_text()) == metrics
    assert {"val_loss", "avg_f1", "box_f1"} <= set(metrics)
