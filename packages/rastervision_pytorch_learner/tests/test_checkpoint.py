from __future__ import annotations

import os
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rastervision.pipeline.errors import NotReadableError, NotWritableError, RunError
from rastervision.pytorch_learner.checkpoint import (
    TrainState,
    get_rng_state,
    keep_copy,
    load_checkpoint,
    load_weights_file,
    restore_parts,
    save_checkpoint,
    save_torch,
    seed_everything,
    set_rng_state,
)


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_checkpoint_restores_parts_state_and_random_numbers(tmp_path: Path) -> None:
    path = str(tmp_path / "last.ckpt")
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    state = TrainState(epoch=3, history=[{"epoch": 3, "val_loss": 0.5, "time": "0:01"}], best_epoch=2, best_score=0.9)
    save_checkpoint(path, state, {"model": model, "scheduler": None})
    expected = draw()

    loaded, states, (rng,) = load_checkpoint(path)
    restore_parts(path, {"model": other, "scheduler": None}, states)
    set_rng_state(rng)

    assert loaded == state
    assert torch.equal(other.weight, model.weight)
    assert draw() == expected
    assert list(states) == ["model"]


def test_seed_repeats_all_random_numbers() -> None:
    seed_everything(5)
    first = draw()
    seed_everything(5)

    assert draw() == first
    set_rng_state(get_rng_state())


def test_parts_that_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"The model saved in a.ckpt does not fit .*size mismatch"):
        restore_parts("a.ckpt", {"model": nn.Linear(2, 2)}, {"model": nn.Linear(3, 2).state_dict()})


@pytest.mark.parametrize("content", [{"weights": torch.ones(1)}, {"train_state": {"no": 1}, "parts": {}, "rng": {}}])
def test_other_files_are_no_checkpoints(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.ckpt")

    with pytest.raises(NotReadableError, match="is not a checkpoint of this release"):
        load_checkpoint(str(tmp_path / "a.ckpt"))


def test_an_unfinished_file_never_has_the_final_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    save_torch({"a": 1}, str(path))

    def full(content: Any, file: Any) -> None:
        file.write(b"half")
        raise RuntimeError(
            "[enforce fail at inline_container.cc] PytorchStreamWriter failed writing file: No space left"
        )

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(NotWritableError, match=r"last.ckpt cannot be written: .*No space left.*Free space"):
        save_torch({"a": 2}, str(path))

    assert load_weights_file(str(path)) == {"a": 1}
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_weights_come_from_safetensors_zip_and_legacy_files(tmp_path: Path) -> None:
    weights = {"w": torch.arange(3.0)}
    save_file(weights, tmp_path / "a.safetensors")
    torch.save(weights, tmp_path / "a.pth")
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)

    for name in ("a.safetensors", "a.pth", "old.pth"):
        assert torch.equal(load_weights_file(str(tmp_path / name))["w"], weights["w"])


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def test_weights_never_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    torch.save({"w": Evil()}, tmp_path / "evil2.pth")

    for name in ("evil.pth", "evil2.pth", "missing.pth", "missing.safetensors"):
        with pytest.raises(NotReadableError, match=f"{name} cannot be read as weights"):
            load_weights_file(str(tmp_path / name))
    assert not (tmp_path / "pwned").exists()


def test_copies_are_independent_of_later_replacements(tmp_path: Path) -> None:
    keep_copy(str(tmp_path / "a"), str(tmp_path / "b"))
    assert not (tmp_path / "b").exists()
    save_torch({"v": 1}, str(tmp_path / "a"))
    keep_copy(str(tmp_path / "a"), str(tmp_path / "b"))
    save_torch({"v": 2}, str(tmp_path / "a"))

    assert load_weights_file(str(tmp_path / "b")) == {"v": 1}


def test_copies_work_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*args: Any) -> None:
        raise OSError("not on this disk")

    monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "a").write_text("x")

    keep_copy(str(tmp_path / "a"), str(tmp_path / "b"))

    assert (tmp_path / "b").read_text() == "x"
