from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rastervision.pipeline.errors import BundleError, NotReadableError, NotWritableError
from rastervision.pytorch_learner import SemanticSegmentationLearnerConfig, bundle
from rastervision.pytorch_learner.bundle import (
    get_learner_config_from_bundle_dir,
    open_learner_bundle,
    write_learner_bundle,
)
from rastervision.pytorch_learner.trust import note_own_code

MakeCfg = Callable[..., SemanticSegmentationLearnerConfig]
WEIGHTS = {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.ones(3)}
WEIGHTS["shared"] = WEIGHTS["b"]


@pytest.fixture
def bundle_path(make_cfg: MakeCfg, hub_dir: Path, tmp_path: Path) -> Path:
    note_own_code(str(hub_dir))
    modules = tmp_path / "modules"
    modules.mkdir()
    hub_dir.rename(modules / "tiny-hub")
    (modules / "tiny-hub" / "__pycache__").mkdir()
    (modules / "tiny-hub" / "__pycache__" / "x.pyc").touch()
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    write_learner_bundle(
        str(tmp_path / "model-bundle.zip"), make_cfg(), WEIGHTS, str(modules), str(tmp_path / "model.onnx")
    )
    return tmp_path / "model-bundle.zip"


def test_bundle_has_all_that_inference_needs(bundle_path: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle_path) as archive:
        assert sorted(archive.namelist()) == [
            "learner-config.json",
            "model.onnx",
            "model.pth",
            "modules/tiny-hub/hubconf.py",
        ]
        archive.extractall(tmp_path / "x")
    weights = torch.load(tmp_path / "x/model.pth", weights_only=True)
    assert all(torch.equal(weights[k], v) and weights[k].is_contiguous() for k, v in WEIGHTS.items())
    assert len(weights) == 3
    assert "plugin_versions" in json.loads((tmp_path / "x/learner-config.json").read_text())


def test_opening_finds_all_parts(bundle_path: Path, tmp_path: Path, make_cfg: MakeCfg) -> None:
    opened = open_learner_bundle(str(bundle_path), str(tmp_path / "open"))

    assert opened.cfg.json() == make_cfg().json()
    assert opened.weights_path.endswith("model.pth")
    assert opened.onnx_path == str(tmp_path / "open/model-bundle/model.onnx")
    assert opened.cfg.model is not None
    assert opened.module_dir(opened.cfg.model.external_def) == str(tmp_path / "open/model-bundle/modules/tiny-hub")
    assert opened.module_dir(None) is None
    assert torch.equal(opened.load_weights()["b"], torch.ones(3))


def test_weights_may_be_safetensors_and_another_config_may_be_used(
    bundle_path: Path, tmp_path: Path, make_cfg: MakeCfg
) -> None:
    save_file({"b": torch.ones(3)}, tmp_path / "w.safetensors")
    with zipfile.ZipFile(bundle_path, "a") as archive:
        archive.write(tmp_path / "w.safetensors", "model.safetensors")
    other = make_cfg(solver_lr=0.5)

    opened = open_learner_bundle(str(bundle_path), str(tmp_path / "open"), cfg=other)

    assert opened.weights_path.endswith("model.safetensors")
    assert list(opened.load_weights()) == ["b"]
    assert opened.cfg is other


def rezip(source: Path, target: Path, drop: str = "", replace: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(source) as a, zipfile.ZipFile(target, "w") as b:
        for name in a.namelist():
            if name != drop:
                b.writestr(name, (replace or {}).get(name, a.read(name)))
    return target


def test_configs_up_to_0_21_are_part_of_a_pipeline_config(make_cfg: MakeCfg, tmp_path: Path) -> None:
    cfg = make_cfg()
    content = cfg.dict(with_rv_metadata=True, mode="json")
    versions = content.pop("plugin_versions")
    (tmp_path / "pipeline-config.json").write_text(json.dumps({"learner": content, "plugin_versions": versions}))

    assert get_learner_config_from_bundle_dir(str(tmp_path)).json() == cfg.json()


def test_damaged_bundles_are_bundle_errors(bundle_path: Path, tmp_path: Path) -> None:
    def opening(path: Path) -> Any:
        return open_learner_bundle(str(path), str(tmp_path / path.stem))

    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(BundleError, match=r"text.zip is not a model bundle, or is damaged"):
        opening(tmp_path / "text.zip")
    data = bundle_path.read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(BundleError, match=r"cut.zip is not a model bundle, or is damaged"):
        opening(tmp_path / "cut.zip")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "")
    with pytest.raises(BundleError, match=r"other.zip has no model.safetensors or model.pth"):
        opening(tmp_path / "other.zip")
    with pytest.raises(BundleError, match=r"has no learner-config.json"):
        opening(rezip(bundle_path, tmp_path / "nocfg.zip", drop="learner-config.json"))
    for text in ("{", '{"type_hint": "semantic_segmentation_learner", "no_such_field": 1}', '{"learner": 1}'):
        with pytest.raises(BundleError, match="The config in the bundle"):
            opening(rezip(bundle_path, tmp_path / "badcfg.zip", replace={"learner-config.json": text}))
    with pytest.raises(NotReadableError, match="no model bundle at"):
        opening(tmp_path / "missing.zip")
    with pytest.raises(BundleError, match="weights in the bundle are damaged"):
        opening(rezip(bundle_path, tmp_path / "badw.zip", replace={"model.pth": "x"})).load_weights()


def test_a_full_disk_leaves_the_old_bundle(
    bundle_path: Path, make_cfg: MakeCfg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bundle_path.read_bytes()
    names = sorted(os.listdir(tmp_path))

    def full(files: Any, target: str) -> None:
        Path(target).write_bytes(b"PK half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle, "_zip", full)
    with pytest.raises(NotWritableError, match=r"model-bundle.zip cannot be written: .*No space left"):
        write_learner_bundle(str(bundle_path), make_cfg(), WEIGHTS)

    assert bundle_path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == names
