from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from rastervision.pipeline import cli, cli_plugins, plugins
from rastervision.pipeline.config import build_config, upgrade_config
from rastervision.pipeline.errors import PluginError, RegistryError
from rastervision.pipeline.file_system import LocalFileSystem
from rastervision.pipeline.registry import Registry, registry_
from rastervision.pipeline.runner import InProcessRunner

GOOD_CONFIG = """
    from rastervision.pipeline.config import Config, Field, register_config

    @register_config("good_thing")
    class GoodConfig(Config):
        size: int = Field(1, description="How large.")
"""


def run_cli(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rastervision.pipeline.cli", *args], capture_output=True, text=True, timeout=60
    )


def test_a_config_is_imported_only_when_its_type_hint_is_asked_for(install_plugin: Any) -> None:
    install_plugin("good-wheel", {"configs": {"good_thing": "good_mod:GoodConfig"}}, {"good_mod.py": GOOD_CONFIG})
    registry = Registry()
    assert "good_mod" not in sys.modules

    cfg = build_config({"type_hint": "good_thing", "size": 3})

    assert cfg.size == 3
    assert sys.modules["good_mod"].GoodConfig is type(cfg)
    assert registry.get_config("good_thing") is type(cfg)
    assert registry.get_plugin("good_thing") == "good_mod"


def test_a_name_that_two_wheels_declare_names_both_and_hurts_no_other(install_plugin: Any) -> None:
    for wheel in ("first-wheel", "second-wheel"):
        module = wheel.partition("-")[0]
        install_plugin(wheel, {"configs": {"twice": f"{module}_mod:C", f"{module}_own": f"{module}_mod:C"}}, {})
    install_plugin("good-wheel", {"configs": {"good_thing": "good_mod:GoodConfig"}}, {"good_mod.py": GOOD_CONFIG})

    with pytest.raises(RegistryError, match=r"'twice' is declared by (first|second)-wheel.* and (first|second)-wheel"):
        Registry().get_config("twice")
    assert Registry().get_config("good_thing").__name__ == "GoodConfig"
    listed = run_cli("plugins")
    assert listed.returncode == 0
    clashes = [line for line in listed.stdout.splitlines() if line.startswith("    BROKEN twice: ")]
    assert len(clashes) == 2
    assert all("first-wheel (first_mod:C)" in line and "second-wheel (second_mod:C)" in line for line in clashes)


def test_the_same_wheel_twice_on_the_path_is_no_clash(install_plugin: Any) -> None:
    points = {"configs": {"good_thing": "good_mod:GoodConfig"}}
    install_plugin("good-wheel", points, {"good_mod.py": GOOD_CONFIG})
    install_plugin("good-wheel", points, {}, version="0.2")

    assert Registry().get_config("good_thing").__name__ == "GoodConfig"


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        ("raise OSError('lib.so')", "lib.so"),
        ("x = 1", "GoodConfig"),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_named_with_its_cause(install_plugin: Any, source: str, cause: str) -> None:
    install_plugin("bad-wheel", {"configs": {"bad_thing": "bad_mod:GoodConfig"}}, {"bad_mod.py": source})

    with pytest.raises(PluginError, match=rf"'bad_thing' of package bad-wheel \(bad_mod:GoodConfig\).*{cause}"):
        build_config({"type_hint": "bad_thing"})


def test_broken_plugins_do_not_take_the_command_line_down(install_plugin: Any) -> None:
    install_plugin(
        "bad-wheel",
        {
            "commands": {
                "bad": "bad_mod:command",
                "exits": "exit_mod:command",
                "odd": "odd_mod:command",
                "worse": "no_mod:command",
            },
            "configs": {"bad_thing": "bad_mod:C"},
            "upgraders": {"bad": "bad_mod:UPGRADERS"},
            "runners": {"bad_runner": "bad_mod:R", "no_runner": "bad_mod.none:R"},
        },
        {
            "bad_mod.py": "raise RuntimeError('it is broken')",
            "exit_mod.py": "raise SystemExit(7)",
            "odd_mod.py": "def command(x: 'NoSuchType') -> None: 'Odd.'",
        },
    )

    shown = run_cli("--help")
    listed = run_cli("plugins")
    loaded = run_cli("plugins", "-v")
    called = run_cli("bad", "--some", "words")

    assert shown.returncode == 0
    assert "run_command" in shown.stdout
    for name in ("bad", "exits", "odd", "worse"):
        assert [line for line in shown.stdout.splitlines() if line.split()[:3] == [name, "[cannot", "be"]]
    assert listed.returncode == loaded.returncode == 0
    # without -v, nothing but the versions of plugins is loaded
    assert "BROKEN worse: package bad-wheel has no module no_mod" in listed.stdout
    assert "BROKEN no_runner: package bad-wheel has no module bad_mod.none" in listed.stdout
    assert "BROKEN bad_thing" not in listed.stdout
    assert "rastervision_pipeline 1." in listed.stdout
    for name in ("bad", "bad_thing", "bad_runner", "exits", "no_runner", "worse"):
        assert f"BROKEN {name}: " in loaded.stdout
    assert "it is broken" in loaded.stdout
    assert "SystemExit: 7" in loaded.stdout
    assert called.returncode == 2
    assert called.stderr.startswith("Error: rastervision.commands 'bad' of package bad-wheel")
    assert "it is broken" in called.stderr
    assert "Traceback" not in called.stderr


def test_slow_plugins_do_not_hold_the_list_of_commands_up(
    install_plugin: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stubborn = "import time\nfor _ in range(3):\n    try: time.sleep(60)\n    except Exception: pass\ntime.sleep(60)"
    install_plugin(
        "slow-wheel",
        {"commands": {"slow": "slow_mod:command", "stubborn": "stubborn_mod:command"}},
        {
            "slow_mod.py": "import time; time.sleep(60)",
            "stubborn_mod.py": stubborn,
            "rastervision/legacy_slow_one.py": "import time; time.sleep(60)",
            "rastervision/legacy_slow_two.py": "import time; time.sleep(60)",
        },
    )
    monkeypatch.setattr(cli_plugins, "_LISTING_LIMIT_S", 0.2)

    cli.main(["--help"], standalone_mode=False)

    shown = capsys.readouterr().out
    assert registry_.legacy_errors["rastervision.legacy_slow_two"].endswith("loading takes longer than 0.2 s")
    for name in ("slow", "stubborn"):
        assert [line for line in shown.splitlines() if line.split()[:3] == [name, "[not", "shown,"]]
    assert "run_command" in shown


def test_declarations_that_cannot_be_read_are_listed(install_plugin: Any) -> None:
    install_plugin("good-wheel", {"configs": {"good_thing": "good_mod:GoodConfig"}}, {"good_mod.py": GOOD_CONFIG})
    site = install_plugin("garbled-wheel", {}, {})
    (site / "garbled_wheel-0.1.dist-info" / "entry_points.txt").write_bytes(b"[rastervision.configs]\nx\xff\n")

    listed = run_cli("plugins", "-v")

    assert Registry().get_config("good_thing").__name__ == "GoodConfig"
    assert listed.returncode == 0
    assert "garbled_wheel\n    BROKEN its entry points cannot be read: UnicodeDecodeError" in listed.stdout


@pytest.mark.parametrize(
    ("group", "source", "cause"),
    [
        ("configs", "from rastervision.pipeline.config import Config as X", "not a config registered as 'thing'"),
        ("upgraders", "X = {}", "not an Upgraders"),
        ("runners", "X = 1", "not a class"),
        ("file_systems", "X = 1", "not a class"),
    ],
)
def test_an_object_that_does_not_fit_its_group_is_named(
    install_plugin: Any, group: str, source: str, cause: str
) -> None:
    install_plugin("odd-wheel", {group: {"thing": "odd_mod:X"}}, {"odd_mod.py": source})

    with pytest.raises(PluginError, match=rf"{group} 'thing' of package odd-wheel \(odd_mod:X\).*{cause}"):
        plugins.entry_points_of(f"rastervision.{group}")["thing"].load()


def test_what_is_installed_meanwhile_is_found_when_told_to_look(install_plugin: Any) -> None:
    registry = Registry()
    with pytest.raises(RegistryError):
        registry.get_config("good_thing")

    install_plugin("good-wheel", {"configs": {"good_thing": "good_mod:GoodConfig"}}, {"good_mod.py": GOOD_CONFIG})
    registry.discover_plugins()

    assert registry.get_config("good_thing").__name__ == "GoodConfig"


def test_broken_upgraders_are_told_once_and_others_still_work(
    install_plugin: Any, caplog: pytest.LogCaptureFixture
) -> None:
    install_plugin("bad-wheel", {"upgraders": {"bad": "no_mod:UPGRADERS"}}, {})
    registry = Registry()

    assert registry.plugin_versions["rastervision.pipeline"] == 0
    assert "bad" not in registry.plugin_versions
    assert registry.get_renamed_type_hint("x") == "x"
    assert registry.get_plugin_from_alias("x") is None
    assert [r for r in caplog.records if "bad-wheel" in r.getMessage()] == caplog.records
    assert len(caplog.records) == 1


def test_upgraders_of_a_plugin_rename_and_step(install_plugin: Any) -> None:
    install_plugin(
        "good-wheel",
        {
            "configs": {"good_thing": "good_mod:GoodConfig"},
            "upgraders": {"good_mod": "good_upgrades:UPGRADERS"},
        },
        {
            "good_mod.py": GOOD_CONFIG,
            "good_upgrades.py": """
                from rastervision.pipeline.upgrade import Upgraders

                def step(d, version):
                    if version < 2:
                        return {**d, "size": d.get("size", 0) + 1}
                    return {k: v for k, v in d.items() if k != "old"}

                UPGRADERS = Upgraders(
                    version=3,
                    aliases=["was_good"],
                    renames={"thing": "good_thing"},
                    steps={"good_thing": step},
                )
            """,
        },
    )
    saved = {"type_hint": "thing", "size": 5, "old": 1, "plugin_versions": {"was_good": 1}}

    upgraded = upgrade_config(saved, Registry())

    assert {k: upgraded[k] for k in ("type_hint", "size")} == {"type_hint": "good_thing", "size": 6}
    assert "old" not in upgraded
    assert saved["size"] == 5
    assert Registry().plugin_versions["good_mod"] == 3


def test_file_systems_and_runners_of_plugins_and_code(install_plugin: Any) -> None:
    install_plugin(
        "good-wheel",
        {"file_systems": {"mem": "good_fs:MemFs"}, "runners": {"mine": "good_fs:MyRunner"}},
        {
            "good_fs.py": """
                from rastervision.pipeline.file_system import LocalFileSystem
                from rastervision.pipeline.runner import InProcessRunner

                class MemFs(LocalFileSystem):
                    @staticmethod
                    def matches_uri(uri, mode):
                        return mode == "r"

                class MyRunner(InProcessRunner):
                    pass
            """
        },
    )
    registry = Registry()

    assert registry.get_file_system("mem://x").__name__ == "MemFs"
    assert registry.get_runner("mine").__name__ == "MyRunner"
    with pytest.raises(RegistryError, match="can write mem://x"):
        registry.get_file_system("mem://x", "w")

    class Special(LocalFileSystem):
        @staticmethod
        def matches_uri(uri: str, mode: str) -> bool:
            return uri.startswith("mem://")

    registry.add_file_system(Special)
    assert registry.get_file_system("mem://x", "w") is Special
    registry.add_runner("special", InProcessRunner)
    assert registry.get_runner("special") is InProcessRunner
    with pytest.raises(RegistryError, match="already registered"):
        registry.add_runner("special", InProcessRunner)
    with pytest.raises(RegistryError, match=r"no runner 'none'. Use one of: .*inprocess, local, mine, .*special"):
        registry.get_runner("none")


def test_settings_of_plugins_travel_by_their_fields(install_plugin: Any) -> None:
    install_plugin(
        "good-wheel",
        {"settings": {"good": "good_settings:GoodSettings"}},
        {
            "good_settings.py": """
                from pydantic import BaseModel

                class GoodSettings(BaseModel):
                    key: str = ""
            """
        },
    )

    assert Registry().get_rv_config_schema()["good"] == ["key"]


def test_all_groups_are_listed() -> None:
    ours = {(ref.group, ref.name) for ref in plugins.all_refs() if ref.wheel == "rastervision_pipeline"}

    assert ("rastervision.file_systems", "https") in ours
    assert ("rastervision.runners", "local") in ours
    assert ("rastervision.configs", "pipeline") in ours
