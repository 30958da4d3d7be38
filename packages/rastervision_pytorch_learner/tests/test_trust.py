from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rastervision.pipeline.errors import UntrustedCodeError
from rastervision.pipeline.rv_config import rv_config_
from rastervision.pytorch_learner import (
    ExternalModuleConfig,
    SemanticSegmentationLearnerConfig,
    torch_hub_load_github,
    torch_hub_load_uri,
    trust,
)
from rastervision.pytorch_learner.torch_hub import build_external
from rastervision.pytorch_learner.trust import check_trusted, note_own_code, note_own_config

MakeCfg = Callable[..., SemanticSegmentationLearnerConfig]
VARIABLE = "RASTERVISION_TRUST_EXTERNAL_CODE"


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As at the start of a process of a user without settings."""
    monkeypatch.setattr(trust, "_own_digests", set())
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("RV_CONFIG_DIR", str(tmp_path / "settings"))
    for name, value in (("_config", None), ("_config_overrides", None), ("rv_home", "")):
        monkeypatch.setattr(rv_config_, name, value)


@pytest.fixture
def code(hub_dir: Path, tmp_path: Path) -> str:
    """The code of ``hub_dir`` as it came in a bundle."""
    shutil.copytree(hub_dir, tmp_path / "unpacked" / "hub")
    return str(tmp_path / "unpacked" / "hub")


def test_code_of_somebody_is_refused_and_the_error_says_how_to_trust_it(code: str) -> None:
    with pytest.raises(
        UntrustedCodeError, match=rf"s3://b/x.zip brings code \(hub\).*{VARIABLE}=1.*--trust-external-code"
    ):
        check_trusted(code, "s3://b/x.zip")


@pytest.mark.parametrize("how", ["argument", "variable", "settings file"])
def test_trusted_code_is_not_refused(how: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "variable":
        monkeypatch.setenv(VARIABLE, "true")
    if how == "settings file":
        (tmp_path / "settings").mkdir()
        (tmp_path / "settings" / "default").write_text("[rastervision]\ntrust_external_code = yes\n")

    check_trusted(code, "a bundle", trust=True if how == "argument" else None)


def test_settings_that_come_with_a_bundle_give_no_trust(code: str) -> None:
    rv_config_.apply_overrides({"rastervision_trust_external_code": "true"})

    with pytest.raises(UntrustedCodeError):
        check_trusted(code, "a bundle")


def test_an_argument_is_stronger_than_the_setting(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")

    with pytest.raises(UntrustedCodeError):
        check_trusted(code, "a bundle", trust=False)


@pytest.mark.parametrize("zipped", [False, True])
def test_code_that_the_own_config_names_is_not_refused(
    zipped: bool, code: str, hub_dir: Path, tmp_path: Path, make_cfg: MakeCfg
) -> None:
    uri = str(hub_dir)
    if zipped:
        uri = str(tmp_path / "hub.zip")
        with zipfile.ZipFile(uri, "w") as archive:
            archive.write(hub_dir / "hubconf.py", "repo-main/hubconf.py")
    (hub_dir / "__pycache__").mkdir()
    (hub_dir / "__pycache__" / "x.pyc").touch()

    note_own_config(make_cfg(hub_uri=uri))

    check_trusted(code, "a bundle")


def test_the_code_of_a_loss_counts_too(code: str, hub_dir: Path, make_cfg: MakeCfg) -> None:
    loss = ExternalModuleConfig(uri=str(hub_dir), entrypoint="halved")

    note_own_config(make_cfg(hub_uri="/nowhere", solver_external_loss_def=loss))

    check_trusted(code, "a bundle")


def test_code_that_ran_from_a_folder_is_not_refused(code: str, hub_dir: Path, tmp_path: Path) -> None:
    build_external(ExternalModuleConfig(uri=str(hub_dir), entrypoint="tiny"), str(tmp_path / "modules"))

    check_trusted(code, "a bundle")
    check_trusted(str(tmp_path / "modules" / "hub"), "the train folder")


def test_own_code_is_remembered_by_later_processes_of_the_user(
    code: str, hub_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        note_own_code(str(hub_dir))
    monkeypatch.setattr(trust, "_own_digests", set())

    check_trusted(code, "a bundle")

    assert len((tmp_path / "settings" / "own-code.txt").read_text().split()) == 1
    monkeypatch.setenv("RV_CONFIG_DIR", str(tmp_path / "another user"))
    monkeypatch.setattr(rv_config_, "_config", None)
    with pytest.raises(UntrustedCodeError):
        check_trusted(code, "a bundle")


def test_without_a_place_to_remember_the_process_does(code: str, hub_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("not a folder")

    note_own_code(str(hub_dir))

    check_trusted(code, "a bundle")


@pytest.mark.parametrize("change", ["content", "more", "fewer", "name"])
def test_any_difference_to_the_own_code_counts(change: str, code: str, hub_dir: Path) -> None:
    (hub_dir / "util.py").write_text("X = 1")
    note_own_code(str(hub_dir))
    shutil.copy(hub_dir / "util.py", code)
    check_trusted(code, "a bundle")

    util = Path(code, "util.py")
    if change == "content":
        util.write_text("X = 2")
    elif change == "more":
        Path(code, "torch.py").touch()
    elif change == "fewer":
        util.unlink()
    else:
        util.rename(Path(code, "utils.py"))

    with pytest.raises(UntrustedCodeError):
        check_trusted(code, "a bundle")


def test_compiled_files_are_removed(code: str, hub_dir: Path) -> None:
    note_own_code(str(hub_dir))
    cache = Path(code, "lib", "__pycache__")
    cache.mkdir(parents=True)
    (cache / "evil.cpython-311.pyc").touch()

    check_trusted(code, "a bundle")

    assert not cache.exists()


def test_a_single_file_may_be_checked_too(tmp_path: Path) -> None:
    (tmp_path / "transforms.py").write_text("X = 1")
    (tmp_path / "same.py").write_text("X = 1")
    with pytest.raises(UntrustedCodeError, match=r"\(transforms.py\)"):
        check_trusted(str(tmp_path / "transforms.py"), "a bundle")

    note_own_code(str(tmp_path / "same.py"))

    check_trusted(str(tmp_path / "transforms.py"), "a bundle")


@pytest.mark.parametrize("source", [{"uri": "https://x.test/code.zip"}, {"github_repo": "owner/name"}])
def test_code_from_the_network_is_refused_though_there_is_a_copy(
    source: dict[str, str], hub_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = ExternalModuleConfig.model_validate({**source, "entrypoint": "tiny", "name": "hub"})
    shutil.copytree(hub_dir, tmp_path / "modules" / "hub")
    with pytest.raises(UntrustedCodeError, match=rf"https://\S+ is on the network.*{VARIABLE}=1"):
        build_external(cfg, str(tmp_path / "modules"))

    monkeypatch.setenv(VARIABLE, "1")

    assert build_external(cfg, str(tmp_path / "modules"))
    with pytest.raises(UntrustedCodeError):  # trusted, but not the user's own
        check_trusted(str(tmp_path / "modules" / "hub"), "a bundle", trust=False)
    assert not (tmp_path / "settings").exists()


def test_functions_that_load_from_the_network_ask_too() -> None:
    with pytest.raises(UntrustedCodeError):
        torch_hub_load_github("owner/name", "tiny")
    with pytest.raises(UntrustedCodeError):
        torch_hub_load_uri("https://x.test/code.zip", "tiny")
