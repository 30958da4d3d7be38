from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from rastervision.pipeline import plugins
from rastervision.pipeline.config import build_config, upgrade_config
from rastervision.pipeline.errors import PluginError, RegistryError
from rastervision.pipeline.file_system import LocalFileSystem
from rastervision.pipeline.registry import Registry
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
            "commands": {"bad": "bad_mod:command", "worse": "no_mod:command", "odd": "odd_mod:command"},
            "configs": {"bad_thing": "bad_mod:C"},
            "upgraders": {"bad": "bad_mod:UPGRADERS"},
            "runners": {"bad_runner": "bad_mod:R"},
        },
        {
            "bad_mod.py": "raise RuntimeError('it is broken')",
            "odd_mod.py": "def command(x: 'NoSuchType') -> None: 'Odd.'",
        },
    )

    shown = run_cli("--help")
    listed = run_cli("plugins")
    called = run_cli("bad", "--some", "words")

    assert shown.returncode == 0
    assert "run_command" in shown.stdout
    for name in ("bad", "worse", "odd"):
        assert [line for line in shown.stdout.splitlines() if line.split()[:3] == [name, "[cannot", "be"]]
    assert listed.returncode == 0
    assert "BROKEN bad_thing" in listed.stdout
    assert "it is broken" in listed.stdout
    assert "rastervision_pipeline 1." in listed.stdout
    assert called.returncode == 2
    assert called.stderr.startswith("Error: rastervision.commands 'bad' of package bad-wheel")
    assert "it is broken" in called.stderr
    assert "Traceback" not in called.stderr


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
    with pytest.raises(RegistryError, match=r"no runner 'none'. Use one of: inprocess, local, mine, special"):
        registry.get_runner("none")


def test_packages_written_for_0_31_are_found_and_loaded_when_a_lookup_misses(install_plugin: Any) -> None:
    site = install_plugin(
        "other-wheel",
        {},
        {
            "rastervision/legacy_test/__init__.py": """
                def register_plugin(registry):
                    from rastervision.pipeline.runner import InProcessRunner

                    registry.set_plugin_version("rastervision.legacy_test", 4)
                    registry.set_plugin_aliases("rastervision.legacy_test", ["legacy"])
                    registry.add_rv_config_schema("legacy", ["a"])
                    registry.add_runner("legacy_runner", InProcessRunner)
            """,
            "rastervision/legacy_broken/__init__.py": "raise ImportError('gone')",
        },
    )
    code = """
import logging, sys
logging.basicConfig()
from rastervision.pipeline.registry import registry_
registry_.get_runner("inprocess")
assert "rastervision.legacy_test" not in sys.modules
print(registry_.get_runner("legacy_runner").__name__)
print(registry_.get_plugin_version("rastervision.legacy_test"), registry_.get_plugin_from_alias("legacy"))
print(registry_.get_rv_config_schema()["legacy"])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert (site / "rastervision").is_dir()
    assert out.stdout.splitlines() == ["InProcessRunner", "4 rastervision.legacy_test", "['a']"]
    assert "rastervision.legacy_broken cannot be loaded and is left out: ImportError: gone" in out.stderr


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


def test_commands_of_plugins_of_both_kinds(install_plugin: Any) -> None:
    install_plugin(
        "good-wheel",
        {"commands": {"greet": "good_cli:greet"}},
        {
            "good_cli.py": '''
                from typing import Annotated
                import typer

                def greet(
                    name: Annotated[str, typer.Argument(help="Who.")],
                    order: Annotated[list[int] | None, typer.Option("--order")] = None,
                ) -> None:
                    """Greet somebody."""
                    typer.echo(f"Hello {name} {order}")

                greet.swallow_options = ("--order",)
            ''',
            "rastervision/legacy_cli/__init__.py": """
                class Command:
                    name, help, short_help = "old", "An old command.", None

                    def main(self, args, prog_name, standalone_mode):
                        print("old", args, prog_name, standalone_mode)

                def register_plugin(registry):
                    registry.add_plugin_command(Command())
            """,
        },
    )

    shown = run_cli("--help").stdout
    assert "Greet somebody." in shown
    assert "An old command." in shown
    assert "Who." in run_cli("greet", "--help").stdout
    assert run_cli("greet", "you", "--order", "2", "1", "0").stdout == "Hello you [2, 1, 0]\n"
    assert run_cli("greet", "--order", "2", "--order", "1", "--", "you").stdout == "Hello you [2, 1]\n"
    assert run_cli("greet", "you").stdout.startswith("Hello you ")
    assert run_cli("old", "--x", "1").stdout == "old ['--x', '1'] rastervision old False\n"


def test_all_groups_are_listed() -> None:
    ours = {(ref.group, ref.name) for ref in plugins.all_refs() if ref.wheel == "rastervision_pipeline"}

    assert ("rastervision.file_systems", "https") in ours
    assert ("rastervision.runners", "local") in ours
    assert ("rastervision.configs", "pipeline") in ours
