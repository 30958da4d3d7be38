"""Training in two processes on the CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner import DDPContextManager, SemanticSegmentationLearner
from rastervision.pytorch_learner.checkpoint import load_checkpoint, load_weights_file
from rastervision.pytorch_learner.distributed import ShareSampler, broadcast, gather, spawn_training, taking_turns
from rastervision.pytorch_learner.tracking import read_log_csv

MakeCfg = Callable[..., Any]
AUGMENTORS = ["RandomRotate90", "HorizontalFlip", "GaussNoise"]

# train one epoch, make a new learner, and train to the end; rank 0 says what was in its batches
SCRIPT = """
import sys
from rastervision.pytorch_learner import LearnerConfig
cfg = LearnerConfig.from_file(sys.argv[1])
learner = cfg.build()
assert (learner.distributed, learner.is_ddp_process, learner.ddp_world_size) == (True, True, 2)
assert learner.reduce_distributed_metrics({"a": float(learner.ddp_rank), "t": "x"}) == {"a": 0.5, "t": "x"}
orders = []
for epoch in (0, 1):
    learner.train_dl.sampler.set_epoch(epoch, 5)
    orders.append(list(learner.train_dl.sampler))
assert orders[0] != orders[1], orders
learner.train(epochs=1)
cfg.build().main()
"""


@pytest.fixture
def args(tmp_path: Path) -> dict[str, Any]:
    return {
        "solver_num_epochs": 3,
        "solver_batch_sz": 4,
        "solver_ema_decay": 0.5,
        "data_augmentors": AUGMENTORS,
        "save_all_checkpoints": True,
    }


def run_two(script: str, *argv: str) -> None:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    common = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, *argv],
            env=common | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        outs = [p.communicate(timeout=240)[0] for p in processes]
    finally:
        for p in processes:
            p.kill()
    assert [p.returncode for p in processes] == [0, 0], "\n".join(outs)


def test_two_processes_train_one_model_and_go_on_exactly(
    make_cfg: MakeCfg, tmp_path: Path, args: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    whole = make_cfg(output_uri=str(tmp_path / "whole"), **args)
    spawn_training(SemanticSegmentationLearner, {"cfg": whole}, 2, "spawn", None)
    parts = make_cfg(output_uri=str(tmp_path / "parts"), **args)
    parts.to_file(str(tmp_path / "cfg.json"))

    run_two(SCRIPT, str(tmp_path / "cfg.json"))

    first, second = (load_weights_file(str(tmp_path / d / "last-model.pth")) for d in ("whole", "parts"))
    assert all(torch.equal(first[k], v) for k, v in second.items())
    rows = read_log_csv(str(tmp_path / "parts/log.csv"))
    assert [r["epoch"] for r in rows] == [0, 1, 2]
    assert [r["train_loss"] for r in rows] == [r["train_loss"] for r in read_log_csv(str(tmp_path / "whole/log.csv"))]
    assert (tmp_path / "parts/model-bundle.zip").exists()
    assert (tmp_path / "parts/valid_preds.png").exists()
    assert not list((tmp_path / "parts").rglob(".tmp-*"))
    # both processes' random numbers are kept, and they differ
    rngs = load_checkpoint(str(tmp_path / "parts/checkpoints/last.ckpt"))[2]
    assert len(rngs) == 2
    assert not torch.equal(rngs[0]["torch"], rngs[1]["torch"])
    # each validation chip counts once: the metrics are those of one process
    learner = SemanticSegmentationLearner(parts)
    learner.train()
    best = max(rows, key=lambda r: (r["avg_f1"], r["epoch"]))
    assert learner.validate()["avg_f1"] == pytest.approx(best["avg_f1"], abs=1e-6)


def test_the_processes_share_a_batch(make_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make_cfg(solver_batch_sz=5).build()

    learner._set_ranks(2, 1, 1)

    assert learner.batch_sz_of_process(True) == 2
    assert learner.batch_sz_of_process(False) == 5
    loader = learner.build_dataloader("train", distributed=True)
    assert (loader.batch_size, len(loader.sampler)) == (2, 3)
    assert list(learner.build_sampler(learner.valid_ds, "valid", distributed=True)) == [1]
    learner._set_ranks(6, 1, 1)
    with pytest.raises(ConfigError, match=r"solver.batch_sz=5 is smaller than the 6 processes"):
        learner.build_dataloaders(distributed=True)


def test_alone_nothing_is_shared(make_cfg: MakeCfg) -> None:
    learner = make_cfg().build()

    with learner.ddp() as context:
        assert isinstance(context, DDPContextManager)
        assert context.noop
        assert broadcast("a") == "a"
        assert gather("a") == ["a"]
        with taking_turns(False):
            pass
    assert not learner.distributed
    assert learner.is_ddp_master
    assert learner.reduce_distributed_metrics({"a": 1.0}) == {"a": 1.0}


def test_a_process_can_join_later(make_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        monkeypatch.setenv("MASTER_PORT", str(s.getsockname()[1]))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    learner = make_cfg().build()

    with learner.ddp(rank=0, world_size=1):
        assert learner.is_ddp_process
        learner.train(epochs=1)

    assert learner.get_start_epoch() == 1


def test_shares_are_disjoint_and_complete() -> None:
    shares = [list(ShareSampler(7, rank, 3)) for rank in range(3)]

    assert shares == [[0, 3, 6], [1, 4], [2, 5]]
    assert len(ShareSampler(7, 2, 3)) == 2


def test_several_gpus_are_used_if_the_config_says_it_all(
    make_cfg: MakeCfg, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    learner = make_cfg().build()
    assert (learner.distributed, learner.is_ddp_process, learner.ddp_world_size) == (True, False, 2)

    given = SemanticSegmentationLearner(make_cfg(), model=learner.model)
    assert not given.distributed
    assert "only one of 2 GPUs is used" in caplog.text
    monkeypatch.setenv("RASTERVISION_USE_DDP", "no")
    assert not make_cfg().build().distributed
