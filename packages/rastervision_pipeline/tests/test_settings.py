from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rastervision.pipeline import RVConfig, Verbosity, rv_config_
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.rv_config import load_conf_list
from rastervision.pipeline.settings import Settings


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("RV_CONFIG", "RV_CONFIG_DIR", "RV_PROFILE", "TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    level = logging.getLogger("rastervision").level
    yield
    logging.getLogger("rastervision").setLevel(level)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_environment_beats_overrides_beat_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path / "home/.rastervision/default",
        "[BATCH]\nattempts = 1\ncpu_job_def = file\n[other]\nx=file\n",
    )
    monkeypatch.setenv("BATCH_ATTEMPTS", "3")
    config = RVConfig()
    config.set_everett_config(config_overrides={"batch_attempts": "2", "batch_cpu_job_def": "override"})

    assert config.get_namespace_option("batch", "attempts") == "3"
    assert config.get_namespace_option("batch", "cpu_job_def") == "override"
    assert config.get_namespace_option("other", "X") == "file"
    assert config.get_namespace_option("batch", "nothing") is None
    assert config.get_namespace_option("batch", "nothing", default=5) == 5


def test_only_the_first_file_that_exists_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "cwd/.rastervision", "[a]\nx = cwd\n")
    monkeypatch.chdir(tmp_path / "cwd")
    assert RVConfig().get_namespace_option("a", "x") == "cwd"

    write(tmp_path / "home/.rastervision/default", "[a]\nx = home\n")
    assert RVConfig().get_namespace_option("a", "x") == "home"

    monkeypatch.setenv("RV_CONFIG_DIR", str(tmp_path / "dir"))
    write(tmp_path / "dir/default", "[a]\nx = dir\n")
    assert RVConfig().get_namespace_option("a", "x") == "dir"

    monkeypatch.setenv("RV_CONFIG", str(write(tmp_path / "file.ini", "[a]\ny = file\n")))
    assert RVConfig().get_namespace_option("a", "x") is None
    assert RVConfig().get_namespace_option("a", "y") == "file"


def test_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "home/.rastervision/other", "[a]\nx = other\n")
    config = RVConfig()
    config.set_everett_config(profile="other")
    assert config.profile == "other"
    assert config.get_namespace_option("a", "x") == "other"

    monkeypatch.setenv("RV_PROFILE", "other")
    assert RVConfig().get_namespace_option("a", "x") == "other"

    with pytest.raises(ConfigError, match=r"profile 'missing'. Write .*missing"):
        RVConfig().set_everett_config(profile="missing")


def test_overrides_keep_the_profile(tmp_path: Path) -> None:
    write(tmp_path / "home/.rastervision/other", "[a]\nx = other\ny = other\n")
    config = RVConfig()
    config.set_everett_config(profile="other")

    config.apply_overrides({"a_x": "saved"})

    assert config.get_namespace_option("a", "x") == "saved"
    assert config.get_namespace_option("a", "y") == "other"


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("Yes", True), ("TRUE", True), ("y", True), ("0", False), ("on", False)]
)
def test_booleans(text: str, value: bool) -> None:
    config = RVConfig()
    config.set_everett_config(config_overrides={"rastervision_use_onnx": text})

    assert config.get_namespace_option("rastervision", "USE_ONNX", as_bool=True) is value
    assert config.get_namespace_option("rastervision", "other", default=True, as_bool=True) is True


def test_sections_are_callable_with_a_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_ATTEMPTS", "3")
    monkeypatch.setenv("BATCH_BAD", "three")
    section = RVConfig().get_namespace_config("batch")

    assert section("attempts", parser=int) == 3
    assert section("none", default="4", parser=int) == 4
    assert section("none", default=None) is None
    assert section("none", raise_error=False) is None
    with pytest.raises(ConfigError, match="BATCH_NONE is missing"):
        section("none")
    with pytest.raises(ConfigError, match="BATCH_BAD is 'three'"):
        section("bad", parser=int)
    assert RVConfig().config("attempts", namespace="batch") == "3"
    assert RVConfig().config("attempts", namespace=["batch"]) == "3"


def test_file_with_comments_quotes_and_main_section(tmp_path: Path) -> None:
    path = write(tmp_path / "home/.rastervision/default", 'top = t # why\n# no\n[a]\nx = "with space" \ny = 50%\n')
    config = RVConfig()

    assert config.config("top") == "t"
    assert config.get_namespace_option("a", "x") == "with space"
    assert config.get_namespace_option("a", "y") == "50%"
    path.write_text("[a\nx")
    with pytest.raises(ConfigError, match=r"settings file .*default cannot be read"):
        _ = RVConfig().config


def test_config_dict_has_what_a_schema_names_and_has_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_S3_REQUESTER_PAYS", "yes")

    found = RVConfig().get_config_dict({"aws_s3": ["requester_pays"], "batch": ["attempts"]})

    assert found == {"aws_s3_requester_pays": "yes"}


def test_load_conf_list() -> None:
    assert load_conf_list("a, b") == ["a", "b"]
    assert load_conf_list('["a", "b"]') == ["a", "b"]
    assert load_conf_list(["a"]) == ["a"]
    assert load_conf_list("") == []


def test_settings_with_their_own_environment() -> None:
    settings = Settings({"a_b": "1"}, environ={}).with_namespace("a")

    assert settings.get("B") == "1"


def test_the_temporary_root_that_is_asked_for_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMP", str(tmp_path / "env"))
    config = RVConfig()
    assert config.get_tmp_dir_root() == str(tmp_path / "env")
    assert config.tmp_dir_root_given is None

    config.set_tmp_dir_root(str(tmp_path / "asked"))
    assert config.get_tmp_dir_root() == str(tmp_path / "asked")
    with config.get_tmp_dir() as tmp_dir:
        assert os.path.dirname(tmp_dir) == str(tmp_path / "asked")
    assert config.get_cache_dir() == str(tmp_path / "asked" / "cache")
    assert os.listdir(tmp_path / "asked") == ["cache"]


def test_an_unusable_root_that_is_asked_for_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    config = RVConfig()

    config.set_tmp_dir_root(str(tmp_path / "file" / "sub"))

    assert "cannot be used" in caplog.text
    assert config.get_tmp_dir_root().startswith(tempfile.gettempdir())


def test_without_wishes_a_folder_of_the_user_is_taken_silently(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(RVConfig, "DEFAULT_TMP_DIR_ROOT", str(tmp_path / "none"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    root = RVConfig().get_tmp_dir_root()

    assert os.path.dirname(root) == str(tmp_path)
    assert os.stat(root).st_mode & 0o077 == 0
    assert caplog.text == ""
    assert not (tmp_path / "none").exists()

    os.rmdir(root)
    os.symlink(tmp_path / "home", root)
    assert RVConfig().get_tmp_dir_root() != root


def test_0_31s_root_is_used_where_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RVConfig, "DEFAULT_TMP_DIR_ROOT", str(tmp_path))

    assert RVConfig().get_tmp_dir_root() == str(tmp_path)


@pytest.mark.parametrize(
    ("verbosity", "flag", "level"),
    [(0, "", logging.WARNING), (1, "", logging.INFO), (2, "-v", logging.DEBUG), (4, "-vvv", logging.DEBUG)],
)
def test_verbosity_sets_the_level_and_gives_its_flag(verbosity: int, flag: str, level: int) -> None:
    config = RVConfig()

    config.set_verbosity(verbosity)

    assert config.get_verbosity() == Verbosity(verbosity)
    assert config.get_verbosity_cli_opt() == flag
    assert logging.getLogger("rastervision").level == level


def test_the_default_instance_tells_the_verbosity() -> None:
    assert Verbosity.get() is rv_config_.get_verbosity()
    assert [v.value for v in Verbosity] == [0, 1, 2, 3, 4]
