"""Tell whether a started training is the one that is asked for, so that it is gone on with only then.

The output folder keeps a small file with digests of what decides about the weights: model, loss and optimiser, data
options, and the data itself. How long to train is not among them: more epochs go on with the same training.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.file_system.utils import file_to_json, is_local, json_to_file
from rastervision.pipeline.io_report import CommandIODefinition
from rastervision.pytorch_backend.learner_config import ImageDataConfig
from rastervision.pytorch_learner.data import data_roots
from rastervision.pytorch_learner.trust import code_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rastervision.pytorch_backend.learner_config import DataConfig, LearnerConfig

__all__ = ["EARLIER_DIRNAME", "put_aside_other_training", "training_basis"]

log = logging.getLogger(__name__)

EARLIER_DIRNAME = "earlier"
BASIS_FILENAME = "trained-on.json"
_SMALL = 16 * 2**20

# what has no influence on the weights after a given epoch, or is told by other means
_NOT_IN_SOLVER = ("num_epochs", "test_num_epochs", "sync_interval", "early_stopping_patience", "compile_model")
_NOT_IN_DATA = ("uri", "group_uris", "num_workers", "plot_options", "preview_batch_limit")


def training_basis(cfg: LearnerConfig, tmp_dir: str | None = None) -> dict[str, str]:
    """Return what decides about the weights of a training: part of the config -> digest.

    Args:
        cfg: The learner, with a solver.
        tmp_dir: Local folder for downloads.
    """
    saved = cfg.json()
    parts: dict[str, Any] = {
        "model": saved["model"],
        "solver": {k: v for k, v in saved["solver"].items() if k not in _NOT_IN_SOLVER},
        "data": {k: _without_path(v) for k, v in saved["data"].items() if k not in _NOT_IN_DATA},
        "files": list(_data_files(cfg.data, tmp_dir)),
    }
    return {name: hashlib.sha256(json.dumps(part).encode()).hexdigest()[:16] for name, part in parts.items()}


def _without_path(value: Any) -> Any:
    """Return what a field of the data holds, a transform with the digest of its file of functions, not its path."""
    path = value.get("lambda_transforms_path") if isinstance(value, dict) else None
    if path is None or not os.path.isfile(path):
        return value
    return {**value, "lambda_transforms_path": code_digest(path)}


def _data_files(data: DataConfig, tmp_dir: str | None) -> Iterator[Sequence[Any]]:
    """Yield names and traits of the files that are trained on; the same for chips that were made again alike."""
    if isinstance(data, ImageDataConfig):
        groups = data.group_uris if data.group_uris is not None else [data.uri or []]
        for i, uri in enumerate(groups):
            for root in data_roots(uri, tmp_dir):
                yield from ((i, *item) for item in _chips(root))
        return
    io_def = CommandIODefinition()
    transforms = {"base_transform": None, "aug_transform": None, "plot_options": None}
    data.model_copy(update=transforms).report_io("train", io_def)
    for path in filter(is_local, io_def.inputs):
        if os.path.isfile(path):
            yield _traits(path)


def _chips(root: str) -> Iterator[Sequence[Any]]:
    if root.endswith("!"):
        with zipfile.ZipFile(root.removesuffix("!")) as archive:
            yield from sorted((info.filename, info.file_size, info.CRC) for info in archive.infolist())
    else:
        for path in sorted(p for p in Path(root).rglob("*") if p.is_file()):
            yield (path.relative_to(root).as_posix(), path.stat().st_size)


def _traits(path: str) -> Sequence[Any]:
    stat = os.stat(path)
    if stat.st_size > _SMALL:
        return (path, stat.st_size, stat.st_mtime_ns)
    with open(path, "rb") as file:
        return (path, hashlib.file_digest(file, "sha256").hexdigest())


def put_aside_other_training(output_dir: str, basis: dict[str, str], started: bool) -> None:
    """Move a training on another basis out of the way, to ``earlier/<number>`` in the output folder.

    A folder of an earlier release, which does not say what it was trained on, is gone on with.

    Args:
        output_dir: Local folder of the training.
        basis: See `training_basis`.
        started: Whether the folder holds a training that would be gone on with.
    """
    basis_path = os.path.join(output_dir, BASIS_FILENAME)
    old = file_to_json(basis_path) if os.path.isfile(basis_path) else basis
    changed = [name for name, digest in basis.items() if old.get(name) != digest]
    if changed and started:
        numbers = (int(p.name) for p in Path(output_dir, EARLIER_DIRNAME).glob("*") if p.name.isdigit())
        earlier = Path(output_dir, EARLIER_DIRNAME, str(max(numbers, default=0) + 1))
        earlier.mkdir(parents=True)
        # the file that tells the difference goes last, so that a kill in between is made good by the next run
        for name in sorted(set(os.listdir(output_dir)) - {EARLIER_DIRNAME, BASIS_FILENAME}):
            os.rename(os.path.join(output_dir, name), earlier / name)
        log.warning(
            "training starts anew, because %s changed since the training in %s; that one is now in %s. "
            "Delete it if it is not needed; to start from its weights, set model.init_weights.",
            " and ".join(changed), output_dir, earlier,
        )  # fmt: skip
    if changed or not os.path.isfile(basis_path):
        json_to_file(basis, basis_path)
