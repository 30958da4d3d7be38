from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rastervision.pipeline.errors import ConfigError, MissingPackageError, NotReadableError
from rastervision.pytorch_learner import (
    ExternalModuleConfig,
    get_hubconf_dir_from_cfg,
    torch_hub,
    torch_hub_load_github,
    torch_hub_load_local,
    torch_hub_load_uri,
)
from rastervision.pytorch_learner.torch_hub import build_external


def config(**kwargs: Any) -> ExternalModuleConfig:
    return ExternalModuleConfig(**{"entrypoint": "tiny", **kwargs})


def zip_of(folder: Path, path: Path, inner: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "hubconf.py", f"{inner}hubconf.py")
    return path


def test_loads_from_a_folder_and_keeps_a_copy(hub_dir: Path, tmp_path: Path) -> None:
    model = build_external(config(uri=str(hub_dir)), str(tmp_path / "modules"))

    assert isinstance(model, nn.Module)
    assert (tmp_path / "modules" / "hub" / "hubconf.py").is_file()
    assert sorted(os.listdir(tmp_path / "modules")) == ["hub"]


def test_an_argument_of_the_entrypoint_may_be_called_uri(hub_dir: Path, tmp_path: Path) -> None:
    cfg = config(uri=str(hub_dir), entrypoint_kwargs={"uri": "s3://x", "num_classes": 4})

    model = build_external(cfg, str(tmp_path / "modules"))

    assert model(torch.rand(1, 3, 8, 8)).shape == (1, 4, 8, 8)


def test_positional_arguments_do_not_collide(hub_dir: Path, tmp_path: Path) -> None:
    cfg = config(uri=str(hub_dir), entrypoint_args=["x", 5, 2])

    assert build_external(cfg, str(tmp_path))(torch.rand(1, 5, 8, 8)).shape[1] == 2


def test_a_changed_folder_is_copied_again(hub_dir: Path, tmp_path: Path) -> None:
    cfg = config(uri=str(hub_dir), entrypoint="version")
    (hub_dir / "hubconf.py").write_text("def version(): return 1")
    assert build_external(cfg, str(tmp_path / "m")) == 1
    (hub_dir / "hubconf.py").write_text("def version(): return 2")

    assert build_external(cfg, str(tmp_path / "m")) == 2


@pytest.mark.parametrize("inner", ["", "repo-main/"])
def test_zip_files_may_have_a_top_folder(hub_dir: Path, tmp_path: Path, inner: str) -> None:
    uri = zip_of(hub_dir, tmp_path / "code.zip", inner)

    assert isinstance(torch_hub_load_uri(str(uri), "tiny", num_classes=3), nn.Module)
    assert isinstance(build_external(config(uri=str(uri)), str(tmp_path / "modules")), nn.Module)
    assert (tmp_path / "modules" / "code" / "hubconf.py").is_file()


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for github.com/owner, and trust in what comes from there."""
    (tmp_path / "owner").mkdir()
    monkeypatch.setattr(torch_hub, "GITHUB_ZIP_URL", f"{tmp_path}/{{repo}}-{{ref}}.zip")
    monkeypatch.setenv("RASTERVISION_TRUST_EXTERNAL_CODE", "1")
    return tmp_path / "owner"


def test_force_reload_gets_a_zip_again(hub_dir: Path, tmp_path: Path, github: Path) -> None:
    def load(**kwargs: Any) -> Any:
        cfg = config(github_repo="owner/repo", entrypoint="version", **kwargs)
        return build_external(cfg, str(tmp_path / "m"))

    for version in (1, 2):
        (hub_dir / "hubconf.py").write_text(f"def version(): return {version}")
        zip_of(hub_dir, github / "repo-HEAD.zip")
        if version == 1:
            first = load()

    assert (first, load(), load(force_reload=True)) == (1, 1, 2)


def test_a_changed_local_zip_is_unpacked_again(hub_dir: Path, tmp_path: Path) -> None:
    cfg = config(uri=str(tmp_path / "code.zip"), entrypoint="version")
    versions = []
    for version in (1, 2):
        (hub_dir / "hubconf.py").write_text(f"def version(): return {version}")
        zip_of(hub_dir, tmp_path / "code.zip")
        versions.append(build_external(cfg, str(tmp_path / "m")))

    assert versions == [1, 2]


def test_code_that_is_already_in_its_place_stays_as_it_is(hub_dir: Path) -> None:
    (hub_dir / ".git").mkdir()

    assert isinstance(build_external(config(uri=str(hub_dir)), str(hub_dir.parent)), nn.Module)
    assert (hub_dir / ".git").is_dir()


def test_a_definition_folder_is_used_as_it_is(hub_dir: Path, tmp_path: Path) -> None:
    cfg = config(uri="/nowhere/at/all")

    assert isinstance(build_external(cfg, str(tmp_path / "modules"), str(hub_dir)), nn.Module)
    assert not (tmp_path / "modules").exists()


def test_other_ranks_do_not_save(hub_dir: Path, tmp_path: Path) -> None:
    assert isinstance(build_external(config(uri=str(hub_dir)), str(tmp_path / "m"), ddp_rank=1), nn.Module)
    assert not (tmp_path / "m").exists()


def test_github_repositories_come_as_zip(hub_dir: Path, tmp_path: Path, github: Path) -> None:
    zip_of(hub_dir, github / "repo-v1.zip", "repo-1/")
    zip_of(hub_dir, github / "repo-HEAD.zip", "repo-1/")
    cfg = config(github_repo="owner/repo:v1")

    assert isinstance(build_external(cfg, str(tmp_path / "modules")), nn.Module)
    assert isinstance(build_external(cfg, str(tmp_path / "modules"), ddp_rank=1), nn.Module)
    assert isinstance(torch_hub_load_github("owner/repo", "tiny", dst_dir=str(tmp_path / "kept")), nn.Module)
    assert (tmp_path / "modules" / "owner_repo_v1" / "hubconf.py").is_file()
    assert (tmp_path / "kept" / "hubconf.py").is_file()


def test_names_of_folders() -> None:
    assert get_hubconf_dir_from_cfg(config(uri="s3://b/models.zip"), "p") == "p/models"
    assert get_hubconf_dir_from_cfg(config(uri="/a/b/", name="mine")) == "mine"
    assert get_hubconf_dir_from_cfg(config(github_repo="o/r:b")) == "o_r_b"


@pytest.mark.parametrize("name", ["..", ".", "/etc", "../../x", "a/b", "a\\b"])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not the name of a folder"):
        get_hubconf_dir_from_cfg(config(uri="s3://b/models.zip", name=name), "p")


def test_loading_leaves_no_compiled_files(hub_dir: Path) -> None:
    (hub_dir / "lib.py").write_text("X = 3")
    (hub_dir / "hubconf.py").write_text("def late():\n    import lib\n    return lib.X")

    assert torch_hub_load_local(str(hub_dir), "late") == 3
    assert sorted(os.listdir(hub_dir)) == ["hubconf.py", "lib.py"]


def test_two_folders_do_not_share_their_hubconf(tmp_path: Path) -> None:
    for i in (1, 2):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "hubconf.py").write_text(f"def number(): return {i}")

    assert [torch_hub_load_local(str(tmp_path / str(i)), "number") for i in (1, 2)] == [1, 2]


def test_errors_name_the_cause(hub_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(NotReadableError, match=r"no hubconf.py in .*empty"):
        (tmp_path / "empty").mkdir()
        torch_hub_load_local(str(tmp_path / "empty"), "tiny")
    with pytest.raises(ConfigError, match=r"no entrypoint 'huge'.*tiny"):
        torch_hub_load_local(str(hub_dir), "huge")
    with pytest.raises(ConfigError, match=r"'tiny' of .* failed .*unexpected keyword"):
        torch_hub_load_local(str(hub_dir), "tiny", depth=3)
    with pytest.raises(NotReadableError, match=r"missing.zip is neither a folder nor a zip file"):
        torch_hub_load_uri(str(tmp_path / "missing.zip"), "tiny")
    (tmp_path / "empty" / "a.txt").touch()
    with pytest.raises(NotReadableError, match=r"no hubconf.py"):
        build_external(config(uri=str(tmp_path / "empty")), str(tmp_path / "m"))


@pytest.mark.parametrize("code", ["import no_such_package", 'dependencies = ["no_such_package"]'])
def test_missing_packages_are_named(hub_dir: Path, code: str) -> None:
    (hub_dir / "hubconf.py").write_text(code)

    with pytest.raises(MissingPackageError, match="pip install no_such_package"):
        torch_hub_load_local(str(hub_dir), "tiny")
