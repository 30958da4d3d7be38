"""Functions of transforms lie in a file of the user; the bundle of a training takes them along."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rastervision.pipeline import rv_config_
from rastervision.pipeline.errors import UntrustedCodeError
from rastervision.pipeline.io_report import CommandIODefinition
from rastervision.pytorch_learner import SemanticSegmentationLearner, SemanticSegmentationLearnerConfig, trust
from rastervision.pytorch_learner.bundle import open_learner_bundle, write_learner_bundle
from rastervision.pytorch_learner.trained_on import training_basis

MakeCfg = Callable[..., SemanticSegmentationLearnerConfig]
FOLDER = "custom_albumentations_transforms"
WEIGHTS = {"a": torch.ones(1)}


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As at the start of a process of a user without settings."""
    monkeypatch.setattr(trust, "_own_digests", set())
    monkeypatch.setenv("RV_CONFIG_DIR", str(tmp_path / "settings"))
    for name, value in (("_config", None), ("_config_overrides", None), ("rv_home", "")):
        monkeypatch.setattr(rv_config_, name, value)


def write_functions(path: Path, divisor: int = 2) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        "import albumentations as A\n"
        f"def darker(image, **kwargs):\n    return image // {divisor}\n"
        "lambda_transforms = {'darker': A.Lambda(name='darker', image=darker, p=1)}\n"
    )
    return path


def using(path: Path | str) -> dict[str, Any]:
    transform = {"__class_fullname__": "Lambda", "__type__": "Lambda", "__name__": "darker", "p": 1.0}
    return {"__version__": "2.0.8", "transform": transform, "lambda_transforms_path": str(path)}


def paths_in(cfg: SemanticSegmentationLearnerConfig) -> list[str]:
    return [tf["lambda_transforms_path"] for tf in cfg.data.get_custom_albumentations_transforms()]


def test_a_bundle_takes_the_files_along(make_cfg: MakeCfg, tmp_path: Path) -> None:
    first, second = write_functions(tmp_path / "a/fn.py"), write_functions(tmp_path / "b/fn.py", 3)
    cfg = make_cfg(
        data_base_transform=using(first),
        data_aug_transform=using(second),
        data_plot_options={"transform": using(first)},
    )

    write_learner_bundle(str(tmp_path / "x.zip"), cfg, WEIGHTS)
    opened = open_learner_bundle(str(tmp_path / "x.zip"), str(tmp_path / "open"))

    assert paths_in(cfg) == [str(first), str(second), str(first)]
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert {n for n in archive.namelist() if n.endswith(".py")} == {f"{FOLDER}/fn.py", f"{FOLDER}/fn-2.py"}
        saved = json.loads(archive.read("learner-config.json"))
    assert saved["data"]["base_transform"]["lambda_transforms_path"] == f"model-bundle/{FOLDER}/fn.py"
    found = [Path(path) for path in paths_in(opened.cfg)]
    assert [p.parent for p in found] == [tmp_path / "open/model-bundle" / FOLDER] * 3
    assert [p.read_bytes() for p in found] == [first.read_bytes(), second.read_bytes(), first.read_bytes()]
    # a bundle that is written from this one has them too
    write_learner_bundle(str(tmp_path / "y.zip"), opened.cfg, WEIGHTS)
    again = open_learner_bundle(str(tmp_path / "y.zip"), str(tmp_path / "again"))
    assert [Path(path).read_bytes() for path in paths_in(again.cfg)] == [p.read_bytes() for p in found]


@pytest.mark.parametrize("old", ["/home/somebody/fn.py", r"C:\Users\somebody\fn.py", f"model-bundle/{FOLDER}/fn.py"])
def test_bundles_of_0_31_name_the_place_that_the_file_had(make_cfg: MakeCfg, tmp_path: Path, old: str) -> None:
    write_learner_bundle(str(tmp_path / "x.zip"), make_cfg(data_base_transform=using(old)), WEIGHTS)
    with zipfile.ZipFile(tmp_path / "x.zip", "a") as archive:
        archive.writestr(f"{FOLDER}/fn.py", "")

    opened = open_learner_bundle(str(tmp_path / "x.zip"), str(tmp_path / "open"))

    assert paths_in(opened.cfg) == [str(tmp_path / "open/model-bundle" / FOLDER / "fn.py")]


def test_a_file_that_is_gone_is_a_warning(make_cfg: MakeCfg, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cfg = make_cfg(data_aug_transform=using("gone/fn.py"))

    write_learner_bundle(str(tmp_path / "x.zip"), cfg, WEIGHTS)

    assert "gone/fn.py is gone" in caplog.text
    assert paths_in(open_learner_bundle(str(tmp_path / "x.zip"), str(tmp_path)).cfg) == ["gone/fn.py"]


def test_only_a_path_can_name_the_file(make_cfg: MakeCfg) -> None:
    with pytest.raises(ValueError, match="lambda_transforms_path=3 is not the path of a file"):
        make_cfg(data_base_transform={**using(""), "lambda_transforms_path": 3})


def test_training_reads_the_file(make_cfg: MakeCfg, tmp_path: Path) -> None:
    path = write_functions(tmp_path / "a/fn.py")
    io_def = CommandIODefinition()

    make_cfg(data_aug_transform=using(path)).report_io("train", io_def)

    assert str(path) in io_def.inputs


def test_another_training_is_one_with_other_functions_not_with_another_path(make_cfg: MakeCfg, tmp_path: Path) -> None:
    path = write_functions(tmp_path / "a/fn.py")
    before = training_basis(make_cfg(data_aug_transform=using(path)))
    moved = write_functions(tmp_path / "b/moved.py")

    assert training_basis(make_cfg(data_aug_transform=using(moved))) == before
    write_functions(moved, divisor=3)
    assert training_basis(make_cfg(data_aug_transform=using(moved)))["data"] != before["data"]


def test_a_config_is_trained_bundled_and_used(make_cfg: MakeCfg, tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("albumentations")
    path = write_functions(tmp_path / "a/fn.py")
    cfg = make_cfg(data_base_transform=using(path), solver_num_epochs=1)
    uri = str(tmp_path / "train/model-bundle.zip")

    # a config that was read from a file and whose functions were never used here
    SemanticSegmentationLearnerConfig.from_dict(cfg.dict()).build().main()
    path.unlink()

    learner = SemanticSegmentationLearner.from_model_bundle(uri, str(tmp_path / "open"))
    base, _ = learner.cfg.data.get_data_transforms()
    assert base(torch.full((3, 16, 16), 100, dtype=torch.uint8)).unique().tolist() == [50]
    # somebody else, who gets the bundle
    monkeypatch.setattr(trust, "_own_digests", set())
    monkeypatch.setenv("RV_CONFIG_DIR", str(tmp_path / "another user"))
    monkeypatch.setattr(rv_config_, "_config", None)
    stranger = open_learner_bundle(uri, str(tmp_path / "open2"))
    with pytest.raises(UntrustedCodeError, match=r"custom_albumentations_transforms/fn\.py"):
        stranger.cfg.data.get_data_transforms()
    monkeypatch.setenv("RASTERVISION_TRUST_EXTERNAL_CODE", "1")
    assert stranger.cfg.data.get_data_transforms()
