"""Packages written for 0.31, modules that the settings name, and packages outside the namespace ``rastervision``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LEGACY = """
    def register_plugin(registry):
        from rastervision.legacy_test.things import LegacyRunner, OldFs

        registry.set_plugin_version("rastervision.legacy_test", 2)
        registry.set_plugin_aliases("rastervision.legacy_test", ["rastervision.legacy"])
        registry.register_renamed_type_hints("legacy_thing_of_old", "legacy_thing")
        registry.add_rv_config_schema("legacy", ["key"])
        registry.add_runner("legacy_runner", LegacyRunner)
        registry.add_runner("inprocess", LegacyRunner)
        registry.add_file_system(OldFs)
"""
LEGACY_THINGS = """
    from rastervision.pipeline.config import Config, register_config
    from rastervision.pipeline.file_system import LocalFileSystem
    from rastervision.pipeline.runner import InProcessRunner

    def upgrade(cfg, version):
        if version == 1:
            cfg["size"] = cfg.pop("sz")
        return cfg

    @register_config("legacy_thing", upgrader=upgrade)
    class ThingConfig(Config):
        size: int = 1

    class LegacyRunner(InProcessRunner):
        pass

    class OldFs(LocalFileSystem):
        @staticmethod
        def matches_uri(uri, mode):
            return uri.startswith("old://")
"""
LEGACY_FILES = {
    "rastervision/legacy_test/__init__.py": LEGACY,
    "rastervision/legacy_test/things.py": LEGACY_THINGS,
}
# configs of 0.31 are found by importing the package that has them, as here
LEGACY_IMPORT = {"rastervision/legacy_test/__init__.py": f"{LEGACY}\n    from rastervision.legacy_test import things\n"}


def run_python(code: str, *args: str) -> list[str]:
    """Return the lines that a fresh interpreter prints; what it logs comes last."""
    script = f"import logging, sys\nlogging.basicConfig(stream=sys.stdout)\n{code}"
    out = subprocess.run([sys.executable, "-c", script, *args], capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stderr
    return out.stdout.splitlines()


def run_cli(*args: str) -> subprocess.CompletedProcess[str]:
    cmd = [sys.executable, "-m", "rastervision.pipeline.cli", *args]
    return subprocess.run(cmd, capture_output=True, text=True, timeout=60)


def test_legacy_packages_are_imported_only_when_a_lookup_misses(install_plugin: Any) -> None:
    broken = {"rastervision/legacy_broken/__init__.py": "raise ImportError('gone')"}
    install_plugin("other-wheel", {}, {**LEGACY_FILES, **broken})

    lines = run_python("""
from rastervision.pipeline.registry import registry_
registry_.get_runner("inprocess"), registry_.get_file_system("a.txt"), registry_.get_config("pipeline")
print(registry_.plugin_versions, "rastervision.legacy_test" in sys.modules)
print(registry_.get_runner("legacy_runner").__name__)
print(registry_.get_plugin_version("rastervision.legacy_test"))
print(registry_.get_plugin_from_alias("rastervision.legacy"), registry_.get_plugin_from_alias("none"))
print(registry_.get_renamed_type_hint("legacy_thing_of_old"), registry_.get_renamed_type_hint("none"))
print(registry_.get_rv_config_schema()["legacy"], registry_.plugin_versions["rastervision.legacy_test"])
print(registry_.get_file_system("old://a").__name__)
try:
    registry_.get_config("nothing")
except Exception as e:
    print(e)
""")

    assert "False" in lines[0]
    assert "legacy" not in lines[0]
    warned = [line for line in lines if line.startswith("WARNING")]
    assert len(warned) == 1
    assert "rastervision.legacy_broken cannot be loaded and is left out: ImportError: gone" in warned[0]
    *printed, error = [line for line in lines[1:] if not line.startswith("WARNING")]
    assert printed == [
        "LegacyRunner",
        "2",
        "rastervision.legacy_test None",
        "legacy_thing none",
        "['key'] 2",
        "OldFs",
    ]
    assert error.endswith("These could not be loaded: rastervision.legacy_broken (ImportError: gone).")


def test_what_a_name_stands_for_does_not_depend_on_what_was_looked_up_before(install_plugin: Any) -> None:
    install_plugin("other-wheel", {}, LEGACY_FILES)

    lines = run_python("""
from rastervision.pipeline.registry import registry_
from rastervision.pipeline.runner import LocalRunner
registry_.legacy_plugins()
print(registry_.get_runner("inprocess").__name__)
registry_.add_runner("inprocess", LocalRunner)
print(registry_.get_runner("inprocess").__name__)
""")

    assert lines == ["InProcessRunner", "LocalRunner"]


def test_configs_of_legacy_packages_are_saved_with_their_version_and_upgraded(
    install_plugin: Any, tmp_path: Path
) -> None:
    install_plugin("other-wheel", {}, {**LEGACY_FILES, **LEGACY_IMPORT})
    saved = {"type_hint": "legacy_thing_of_old", "sz": 3, "plugin_versions": {"rastervision.legacy": 1}}
    (tmp_path / "old.json").write_text(json.dumps(saved))

    lines = run_python(
        """
from rastervision.pipeline.config import Config
cfg = Config.from_file(sys.argv[1])
cfg.to_file(sys.argv[2])
print(repr(cfg))
""",
        str(tmp_path / "old.json"),
        str(tmp_path / "new.json"),
    )
    written = run_python(
        """
from rastervision.legacy_test.things import ThingConfig
ThingConfig(size=3).to_file(sys.argv[1])
""",
        str(tmp_path / "direct.json"),
    )

    assert lines == ["ThingConfig(size=3)"]
    assert not written
    for name in ("new.json", "direct.json"):
        content = json.loads((tmp_path / name).read_text())
        assert content["size"] == 3
        assert content["plugin_versions"]["rastervision.legacy_test"] == 2


def test_a_package_that_declares_entry_points_is_not_asked_to_register(install_plugin: Any) -> None:
    # so that one package can serve 0.31 and today
    install_plugin(
        "both-wheel",
        {"runners": {"both": "rastervision.both_test.runner:BothRunner"}},
        {
            "rastervision/both_test/__init__.py": "def register_plugin(registry): raise RuntimeError('not wanted')",
            "rastervision/both_test/runner.py": """
                from rastervision.pipeline.runner import InProcessRunner

                class BothRunner(InProcessRunner):
                    pass
            """,
        },
    )

    lines = run_python("""
from rastervision.pipeline.registry import registry_
print(registry_.get_runner("both").__name__, registry_.legacy_plugins())
""")

    assert lines == ["BothRunner {}"]


def test_a_legacy_package_may_look_names_up_while_it_registers(install_plugin: Any) -> None:
    install_plugin(
        "other-wheel",
        {},
        {
            "rastervision/legacy_looks/__init__.py": """
                def register_plugin(registry):
                    from rastervision.pipeline.registry import registry_

                    for r in (registry, registry_):
                        try:
                            r.get_runner("none")
                        except Exception as e:
                            print(type(e).__name__)
                    registry.add_runner("looks", registry.get_runner("inprocess"))
            """
        },
    )

    lines = run_python("from rastervision.pipeline.registry import registry_\nprint(registry_.get_runner('looks'))")

    assert lines[:2] == ["RegistryError", "RegistryError"]
    assert "InProcessRunner" in lines[2]


def test_legacy_packages_are_listed_with_what_they_register(install_plugin: Any) -> None:
    site = install_plugin(
        "other-wheel",
        {},
        {
            **LEGACY_FILES,
            **LEGACY_IMPORT,
            "rastervision/legacy_broken.py": "raise ImportError('gone')",
        },
    )
    (site / "other_wheel-0.1.dist-info" / "RECORD").write_text("rastervision/legacy_test/__init__.py,,\n")

    brief = run_cli("plugins")
    full = run_cli("plugins", "-v")

    assert brief.returncode == full.returncode == 0
    assert "  rastervision.legacy_test (other-wheel 0.1)\n" in brief.stdout
    assert "legacy_thing" not in brief.stdout
    assert "gone" not in brief.stdout + brief.stderr
    lines = full.stdout.splitlines()
    at = lines.index("  rastervision.legacy_test (other-wheel 0.1)")
    assert [line.strip() for line in lines[at + 1 : at + 6]] == [
        "plugin rastervision.legacy_test, version 2",
        "configs: legacy_thing",
        "file systems: OldFs",
        "runners: inprocess, legacy_runner",
        "settings: legacy",
    ]
    assert "    BROKEN ImportError: gone" in lines


def test_click_commands_of_legacy_packages(install_plugin: Any) -> None:
    pytest.importorskip("click")
    install_plugin(
        "other-wheel",
        {},
        {
            "rastervision/legacy_cli/__init__.py": '''
                import click

                @click.command("shout")
                @click.argument("word")
                @click.option("--times", default=1, type=int)
                def shout(word, times):
                    """Say a word loudly."""
                    if not word:
                        raise click.ClickException("there is no word")
                    click.echo((word + "! ") * times)

                @click.group("group")
                def group():
                    """Several of them."""

                @group.command()
                def inner():
                    click.echo("inside")

                def register_plugin(registry):
                    registry.add_plugin_command(shout)
                    registry.add_plugin_command(group)
                    registry.add_plugin_command(object())
            '''
        },
    )

    shown = run_cli("--help")
    assert shown.returncode == 0
    assert "Say a word loudly." in shown.stdout
    assert "object" in shown.stdout
    assert run_cli("shout", "hey", "--times", "2").stdout == "hey! hey! \n"
    assert "Usage: rastervision shout [OPTIONS] WORD" in run_cli("shout", "--help").stdout
    assert run_cli("group", "inner").stdout == "inside\n"
    for args, text in [(["shout"], "Missing argument 'WORD'"), (["shout", ""], "there is no word")]:
        failed = run_cli(*args)
        assert failed.returncode in (1, 2)
        assert text in failed.stderr
        assert "Traceback" not in failed.stderr


def test_functions_are_commands_of_legacy_packages_too(install_plugin: Any) -> None:
    install_plugin(
        "other-wheel",
        {},
        {
            "rastervision/legacy_cli/__init__.py": '''
                def shout(word: str) -> None:
                    """Say a word loudly."""
                    print(word + "!")

                def register_plugin(registry):
                    registry.add_plugin_command(shout)
            '''
        },
    )

    assert "Say a word loudly." in run_cli("--help").stdout
    assert run_cli("shout", "hey").stdout == "hey!\n"


MODULE = """
    from rastervision.pipeline.config import Config, register_config
    from rastervision.pipeline.runner import InProcessRunner

    @register_config("named_thing")
    class NamedConfig(Config):
        pass

    def register_plugin(registry):
        registry.set_plugin_version("named_module", 3)
        registry.add_runner("named_runner", InProcessRunner)
"""


@pytest.mark.parametrize("value", ["named_module, other_module", '["named_module", "other_module"]'])
@pytest.mark.parametrize("where", ["environment", "file"])
def test_modules_that_the_settings_name_are_plugins(
    install_plugin: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, value: str, where: str
) -> None:
    install_plugin("some-wheel", {}, {"named_module.py": MODULE, "other_module.py": "def register_plugin(registry): 1"})
    if where == "environment":
        monkeypatch.setenv("PLUGINS_MODULES", value)
    else:
        (tmp_path / "settings").write_text(f"[PLUGINS]\nmodules = {value}\n")
        monkeypatch.setenv("RV_CONFIG", str(tmp_path / "settings"))

    lines = run_python("""
from rastervision.pipeline.config import build_config
from rastervision.pipeline.registry import registry_
from rastervision.pipeline.rv_config import rv_config_
print("named_module" in registry_.plugin_versions, "named_module" in sys.modules)
print(repr(build_config({"type_hint": "named_thing"})), registry_.get_runner("named_runner").__name__)
print(registry_.plugin_versions["named_module"], registry_.get_plugin("named_thing"))
print(rv_config_.get_config_dict(registry_.get_rv_config_schema())["plugins_modules"])
""")

    assert lines == ["False False", "NamedConfig() InProcessRunner", "3 named_module", value]


def test_modules_of_the_settings_are_known_where_a_saved_command_runs(
    install_plugin: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pipeline = """
        from rastervision.pipeline.config import register_config
        from rastervision.pipeline.pipeline import PipelineConfig

        @register_config("named_pipeline")
        class NamedPipelineConfig(PipelineConfig):
            pass

        def register_plugin(registry):
            pass
    """
    install_plugin("some-wheel", {}, {"named_module.py": pipeline})
    monkeypatch.setenv("PLUGINS_MODULES", "named_module")
    save = """
from named_module import NamedPipelineConfig
from rastervision.pipeline.config import save_pipeline_config
save_pipeline_config(NamedPipelineConfig(root_uri="out"), sys.argv[1])
"""
    assert not run_python(save, str(tmp_path / "saved.json"))
    monkeypatch.delenv("PLUGINS_MODULES")

    done = run_cli("run_command", str(tmp_path / "saved.json"), "test_cpu")

    assert done.returncode == 0, done.stderr


def test_a_module_of_the_settings_that_cannot_be_used_is_named(
    install_plugin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin("some-wheel", {}, {"plain_module.py": "x = 1"})
    monkeypatch.setenv("PLUGINS_MODULES", "no_such_module,plain_module")

    lines = run_python("""
from rastervision.pipeline.registry import registry_
try:
    registry_.get_runner("none")
except Exception as e:
    print(e)
""")
    shown = run_cli("--help")
    brief, full = run_cli("plugins"), run_cli("plugins", "-v")

    assert "no_such_module (ModuleNotFoundError: No module named 'no_such_module')" in lines[-1]
    assert "plain_module (it has no function register_plugin(registry))" in lines[-1]
    assert shown.returncode == 0
    assert "run_command" in shown.stdout
    assert "  no_such_module (named by the setting [PLUGINS] modules)\n    BROKEN" in brief.stdout
    assert "    BROKEN it has no function register_plugin(registry)" in full.stdout


def test_settings_that_cannot_be_read_do_not_take_help_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "settings").write_text("[PLUGINS\n")
    monkeypatch.setenv("RV_CONFIG", str(tmp_path / "settings"))

    shown = run_cli("--help")

    assert shown.returncode == 0
    assert "run_command" in shown.stdout
    assert "cannot be read" in shown.stderr


@pytest.mark.parametrize("plugin", ["outside_pkg", "outside-plugin", "company.outside"])
def test_a_plugin_outside_of_the_namespace_has_the_name_that_its_wheel_declares(
    install_plugin: Any, plugin: str
) -> None:
    install_plugin(
        "outside-wheel",
        {
            "configs": {"outside_thing": "outside_pkg.thing:ThingConfig"},
            "upgraders": {plugin: "outside_pkg.upgraders:UPGRADERS"},
        },
        {
            "outside_pkg/__init__.py": "",
            "outside_pkg/thing.py": """
                from rastervision.pipeline.config import Config, register_config

                @register_config("outside_thing")
                class ThingConfig(Config):
                    size: int = 1
            """,
            "outside_pkg/upgraders.py": """
                from rastervision.pipeline.upgrade import Upgraders

                def step(cfg, version):
                    return {**cfg, "size": cfg["size"] + 1}

                UPGRADERS = Upgraders(version=2, steps={"outside_thing": step})
            """,
        },
    )

    lines = run_python(f"""
from rastervision.pipeline.config import Config
from rastervision.pipeline.registry import registry_
cfg = Config.from_dict({{"type_hint": "outside_thing", "size": 1, "plugin_versions": {{{plugin!r}: 0}}}})
print(repr(cfg), registry_.get_plugin("outside_thing"))
print([(k, v) for k, v in cfg.dict(with_rv_metadata=True)["plugin_versions"].items() if "outside" in k])
print(registry_.has_plugin({plugin!r}))
""")

    assert lines == [f"ThingConfig(size=3) {plugin}", f"[({plugin!r}, 2)]", "True"]


def test_a_plugin_without_upgraders_is_saved_as_version_0(install_plugin: Any) -> None:
    install_plugin(
        "plain-wheel",
        {"configs": {"plain_thing": "plain_pkg:ThingConfig"}},
        {
            "plain_pkg.py": """
                from rastervision.pipeline.config import Config, register_config

                @register_config("plain_thing")
                class ThingConfig(Config):
                    pass
            """
        },
    )

    lines = run_python("""
from rastervision.pipeline.config import build_config
from rastervision.pipeline.registry import registry_
print(registry_.has_plugin("plain_pkg"), "plain_pkg" in registry_.plugin_versions)
print(build_config({"type_hint": "plain_thing"}).dict(with_rv_metadata=True)["plugin_versions"]["plain_pkg"])
""")

    assert lines == ["True False", "0"]


def test_several_threads_may_ask_for_the_same_names_at_once(install_plugin: Any) -> None:
    thing = """
        from __future__ import annotations
        from rastervision.pipeline.config import Config, register_config

        # long enough for other threads to come in between
        sum(range(300_000))

        @register_config("{0}_thing")
        class ThingConfig(Config):
            size: int = 1
            inner: "Inner | None" = None

        sum(range(300_000))
        Inner = Config
    """
    install_plugin(
        "new-wheel",
        {
            "configs": {"new_thing": "new_pkg:ThingConfig"},
            "upgraders": {"new_pkg": "new_upgraders:UPGRADERS"},
        },
        {
            "new_pkg.py": thing.format("new"),
            "new_upgraders.py": """
                from rastervision.pipeline.upgrade import Upgraders

                UPGRADERS = Upgraders(version=1, steps={"new_thing": lambda cfg, version: cfg})
            """,
            "rastervision/legacy_broken.py": "raise ImportError('gone')",
            "rastervision/legacy_slow/__init__.py": thing.format("legacy")
            + """
        def register_plugin(registry):
            sum(range(300_000))
            registry.add_runner("legacy", object)
            """,
        },
    )

    lines = run_python("""
import threading
from rastervision.pipeline.registry import registry_

sys.setswitchinterval(1e-6)
start, failed, found = threading.Barrier(16), [], set()

def ask(i):
    start.wait()
    try:
        hint = ("new_thing", "legacy_thing")[i % 2]
        cfg = registry_.get_config(hint)(inner={"type_hint": "new_thing", "size": 2})
        registry_.get_runner("legacy"), registry_.plugin_versions
        found.add((hint, id(type(cfg)), id(type(cfg.inner))))
    except BaseException as e:
        failed.append(repr(e))

threads = [threading.Thread(target=ask, args=(i,)) for i in range(16)]
for t in threads: t.start()
for t in threads: t.join()
print(*failed, len(found))
""")

    assert [line for line in lines if "legacy_broken cannot be loaded" not in line] == ["2"]
    assert len(lines) == 2
