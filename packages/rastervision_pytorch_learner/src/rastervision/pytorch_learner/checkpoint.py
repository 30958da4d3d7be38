"""Save everything that training needs to go on exactly where it was, and load it again.

A checkpoint is one file, written whole or not at all, that can be read with ``weights_only=True``.
"""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rastervision.pipeline.errors import NotReadableError, NotWritableError, RunError
from rastervision.pipeline.file_system.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "TrainState",
    "get_rng_state",
    "keep_copy",
    "load_checkpoint",
    "load_weights_file",
    "preserve_rng",
    "restore_parts",
    "save_checkpoint",
    "save_torch",
    "seed_everything",
    "set_rng_state",
]


@dataclass
class TrainState:
    """How far training got.

    Args:
        epoch: The last epoch that is done; -1 for none.
        history: Metrics of each epoch.
        best_epoch: The epoch with the best score.
        best_score: The score; greater is better.
        plan: Numbers that the schedules depend on; see `Learner.load_checkpoint`.
        seed: Of the order of the chips where several processes share them.
    """

    epoch: int = -1
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int | None = None
    best_score: float | None = None
    plan: dict[str, int] = field(default_factory=dict)
    seed: int = 0


def save_checkpoint(
    path: str, state: TrainState, parts: Mapping[str, Any], rng: Sequence[dict[str, Any]] | None = None
) -> None:
    """Save the state of training, of each part, and of all random numbers.

    Args:
        path: Local file.
        state: How far training got.
        parts: Objects with a ``state_dict`` by name, such as model and optimizer; None is left out.
        rng: State of random numbers of each process; of this one if not given.

    Raises:
        NotWritableError: The file cannot be written.
    """
    states = {name: part.state_dict() for name, part in parts.items() if part is not None}
    rng = [get_rng_state()] if rng is None else list(rng)
    save_torch({"train_state": asdict(state), "parts": states, "rng": rng}, path)


def load_checkpoint(path: str) -> tuple[TrainState, dict[str, Any], list[dict[str, Any]]]:
    """Return the state of training, the states of the parts by name, and of random numbers of each process.

    Raises:
        NotReadableError: The file is damaged or not a checkpoint.
    """
    content = load_weights_file(path)
    try:
        return TrainState(**content["train_state"]), content["parts"], list(content["rng"])
    except (KeyError, TypeError) as e:
        raise NotReadableError(
            f"{path} is not a checkpoint of this release. Delete it to train from the last weights, or use "
            "another output_uri."
        ) from e


def restore_parts(path: str, parts: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """Load the state of each part that has one saved.

    Raises:
        RunError: A saved state does not fit: the model or optimiser is another one.
    """
    for name, part in parts.items():
        if part is None or name not in states:
            continue
        try:
            part.load_state_dict(states[name])
        except (RuntimeError, ValueError, KeyError) as e:
            raise RunError(
                f"The {name} saved in {path} does not fit this run ({_first_line(e)}). Use another "
                "output_uri, or delete the train folder to start anew."
            ) from e


def _first_line(e: Exception) -> str:
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300]


def save_torch(content: Any, path: str) -> None:
    """Write with ``torch.save``; the file appears under its name once it is whole.

    Raises:
        NotWritableError: The disk is full or the folder cannot be written to.
    """
    try:
        with replacing(path) as tmp, open(tmp, "wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as e:
        # torch reports a full disk as RuntimeError
        raise NotWritableError(f"{path} cannot be written: {_first_line(e)}. Free space or correct output_uri.") from e


def load_weights_file(path: str) -> dict[str, Any]:
    """Return what a file of weights holds, on the CPU: safetensors, or one of ``torch.save``. No code is run.

    Raises:
        NotReadableError: The file is missing, damaged, or holds more than tensors and plain values.
    """
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            return dict(load_file(path))
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch, pickle and safetensors raise a dozen kinds for a damaged file
        raise NotReadableError(
            f"{path} cannot be read as weights: {_first_line(e) or type(e).__name__}. Use a file of tensors "
            "only, saved with safetensors or torch.save(model.state_dict())."
        ) from e
    return content


def get_rng_state() -> dict[str, Any]:
    """Return the state of the random numbers of Python, NumPy and torch, as tensors and plain values."""
    legacy: Any = np.random.get_state()
    name, keys, pos, has_gauss, cached = legacy
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), pos, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore the state of the random numbers of Python, NumPy and torch."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, pos, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), pos, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def preserve_rng() -> Iterator[None]:
    """Restore the state of random numbers at the end, so that what is done here changes nothing elsewhere."""
    state = get_rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


def seed_everything(seed: int) -> None:
    """Seed the random numbers of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def keep_copy(path: str, copy_path: str) -> None:
    """Make ``copy_path`` the same file as ``path``, linked where the disk can.

    Nothing is done if there is no such file, or a copy already.
    """
    import shutil

    if not os.path.isfile(path) or os.path.isfile(copy_path):
        return
    with replacing(copy_path) as tmp:
        try:
            os.link(path, tmp)
        except OSError:
            shutil.copyfile(path, tmp)
