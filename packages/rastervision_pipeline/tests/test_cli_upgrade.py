from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from rastervision.pipeline.cli_upgrade import describe_changes, upgrade, upgrade_bundle
from rastervision.pipeline.config import Config
from rastervision.pipeline.errors import BundleError, ConfigError, MissingPluginError, NotReadableError
from rastervision.pipeline.registry import registry_

WEIGHTS = os.urandom(3_000_000)


@pytest.fixture(autouse=True)
def shapes(install_plugin: Any) -> None:
    install_plugin(
        "shapes-wheel",
        {
            "configs": {"circle": "shapes.configs:CircleConfig", "shapes": "shapes.configs:ShapesConfig"},
            "upgraders": {"shapes": "shapes.history:UPGRADERS"},
        },
        {
            "shapes/__init__.py": "",
            "shapes/configs.py": """
                from rastervision.pipeline.config import Config, register_config

                @register_config("circle")
                class CircleConfig(Config):
                    radius: int

                @register_config("shapes")
                class ShapesConfig(Config):
                    shapes: list[CircleConfig] = []
            """,
            "shapes/history.py": """
                from rastervision.pipeline.upgrade import Upgraders, by_version

                def halved(cfg):
                    cfg["radius"] = cfg.pop("diameter") // 2

                def unwrap(cfg):
                    return {**cfg["learner"], "plugin_versions": cfg["plugin_versions"]}

                UPGRADERS = Upgraders(
                    version=1, steps={"circle": by_version({0: halved}), "learner_pipeline": by_version({0: unwrap})}
                )
            """,
        },
    )


def old(*diameters: Any) -> dict[str, Any]:
    circles = [{"type_hint": "circle", "diameter": d} for d in diameters]
    return {"type_hint": "shapes", "shapes": circles, "plugin_versions": {"shapes": 0}}


def today(*radii: Any) -> dict[str, Any]:
    circles = [{"type_hint": "circle", "radius": r} for r in radii]
    return {"type_hint": "shapes", "shapes": circles, "plugin_versions": registry_.plugin_versions}


def write(path: Path, content: Any, **kwargs: Any) -> str:
    path.write_text(json.dumps(content, **kwargs))
    return str(path)


def test_a_file_is_replaced_and_what_changed_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "a.json", old(4, 4))

    upgrade(file)

    lines = capsys.readouterr().out.splitlines()
    assert "removed shapes[].diameter: 4 (2 times)" in lines
    assert "added shapes[].radius: 2 (2 times)" in lines
    assert "changed plugin_versions.shapes: 0 -> 1" in lines
    assert lines[-1] == f"{file} is replaced by its upgrade."
    assert json.loads(Path(file).read_text()) == today(2, 2)
    assert Config.deserialize(file).shapes[0].radius == 2  # type: ignore[attr-defined]
    assert sorted(os.listdir(tmp_path)) == ["a.json", "site"]


def test_an_upgraded_file_is_not_touched_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "a.json", old(4))
    upgrade(file)
    os.utime(file, (1, 1))
    capsys.readouterr()

    upgrade(file)

    assert capsys.readouterr().out == f"{file} is up to date: there is nothing to change.\n"
    assert os.stat(file).st_mtime == 1


def test_a_file_of_another_installation_is_up_to_date_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    upgrade(write(tmp_path / "a.json", {**today(1), "plugin_versions": {"shapes": 1, "other.plugin": 3}}))

    assert "is up to date" in capsys.readouterr().out


def test_the_result_goes_elsewhere_if_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = write(tmp_path / "a.json", old(4)), str(tmp_path / "new" / "b.json")

    upgrade(file, out)
    assert json.loads(Path(file).read_text()) == old(4)
    assert json.loads(Path(out).read_text()) == today(2)
    assert capsys.readouterr().out.endswith(f"The upgrade of {file} is {out}.\n")

    upgrade(out, str(tmp_path / "c.json"))
    assert (tmp_path / "c.json").read_bytes() == Path(out).read_bytes()
    assert "It is copied to" in capsys.readouterr().out


def test_lists_of_configs_and_files_that_people_read(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", [old(4), today(7)], indent=4)

    upgrade(file)

    assert json.loads(Path(file).read_text()) == [today(2), today(7)]
    assert Path(file).read_text().startswith('[\n  {\n    "type_hint"')


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("{", ConfigError, "is not JSON"),
        ("\udcff", ConfigError, "not UTF-8"),
        ('{"means": []}', ConfigError, "is not a saved config: it has no type_hint"),
        ("[1]", ConfigError, "is not a saved config"),
        (json.dumps(old("x")), ConfigError, r"shapes\[0\]: this circle cannot be upgraded from version 0 of shapes"),
        (
            json.dumps({**old(4), "plugin_versions": {"shapes": 2}}),
            ConfigError,
            "version 2 of plugin shapes, but version 1",
        ),
        (
            json.dumps({"type_hint": "shapes", "shapes": [{"type_hint": "cube"}], "plugin_versions": {"cubes": 3}}),
            MissingPluginError,
            r"shapes\[0\]: type_hint 'cube' needs plugin cubes \(version 3 in this file\)",
        ),
        (json.dumps({**old(4), "colour": "red"}), ValueError, "colour"),
    ],
)
def test_what_cannot_be_upgraded_stays_as_it_is(tmp_path: Path, content: str, error: Any, message: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content.encode(errors="surrogateescape"))

    with pytest.raises(error, match=message):
        upgrade(str(file))

    assert file.read_bytes() == content.encode(errors="surrogateescape")


def test_yaml_is_not_replaced_but_can_become_json(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("type_hint: circle\ndiameter: 6  # in metres\nplugin_versions: {shapes: 0}\n")

    with pytest.raises(ConfigError, match="comments would be lost"):
        upgrade(str(file))
    upgrade(str(file), str(tmp_path / "a.json"))

    assert Config.deserialize(str(tmp_path / "a.json")) == Config.deserialize(str(file))


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(NotReadableError, match="there is no such file"):
        upgrade("/no/such/file.json")


def bundle(path: Path, config: Any, learner: Any, learner_name: str = "learner-config.json") -> str:
    inner = path.with_name("inner.zip")
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr(learner_name, json.dumps(learner))
        archive.writestr(zipfile.ZipInfo("modules/"), "")
        archive.writestr("model.pth", WEIGHTS)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("analyze/stats/a/stats.json", '{"type_hint": "none of ours"}')
        archive.writestr("pipeline-config.json", json.dumps(config))
        archive.write(inner, "model-bundle.zip", compress_type=zipfile.ZIP_STORED)
    inner.unlink()
    return str(path)


def contents(path: str | Path, folder: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        outer = {name: archive.read(name) for name in archive.namelist()}
    folder.mkdir()
    (folder / "inner.zip").write_bytes(outer["model-bundle.zip"])
    with zipfile.ZipFile(folder / "inner.zip") as archive:
        return outer, {name: archive.read(name) for name in archive.namelist()}


def test_configs_in_bundles_are_upgraded_and_all_else_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = bundle(tmp_path / "model-bundle.zip", old(4), old(6))

    upgrade(file)

    outer, inner = contents(file, tmp_path / "x")
    assert list(outer) == ["analyze/stats/a/stats.json", "pipeline-config.json", "model-bundle.zip"]
    assert outer["analyze/stats/a/stats.json"] == b'{"type_hint": "none of ours"}'
    assert json.loads(outer["pipeline-config.json"]) == today(2)
    assert json.loads(inner["learner-config.json"]) == today(3)
    assert inner["model.pth"] == WEIGHTS
    assert "modules/" in inner
    lines = capsys.readouterr().out.splitlines()
    assert "pipeline-config.json: added shapes[].radius: 2" in lines
    assert "model-bundle.zip: learner-config.json: added shapes[].radius: 3" in lines
    with zipfile.ZipFile(file) as archive:
        kinds = {info.filename: info.compress_type for info in archive.infolist()}
    assert kinds["model-bundle.zip"] == zipfile.ZIP_STORED
    assert kinds["pipeline-config.json"] == zipfile.ZIP_DEFLATED

    before = Path(file).read_bytes()
    upgrade(file)
    assert Path(file).read_bytes() == before
    assert "is up to date" in capsys.readouterr().out


def test_the_learner_of_old_bundles_gets_a_file_of_todays_name(tmp_path: Path) -> None:
    learner = {"type_hint": "learner_pipeline", "learner": old(6), "plugin_versions": {"shapes": 0}}
    del learner["learner"]["plugin_versions"]
    file = bundle(tmp_path / "b.zip", today(1), learner, "pipeline-config.json")

    upgrade(file, str(tmp_path / "new.zip"))

    _, inner = contents(tmp_path / "new.zip", tmp_path / "x")
    assert json.loads(inner["learner-config.json"]) == today(3)
    assert "pipeline-config.json" not in inner
    assert inner["model.pth"] == WEIGHTS


def test_bundles_that_cannot_be_upgraded_stay_as_they_are(tmp_path: Path) -> None:
    file = bundle(tmp_path / "b.zip", today(1), old("x"))
    before = Path(file).read_bytes()
    with pytest.raises(ConfigError, match=r"shapes\[0\]"):
        upgrade(file)
    assert Path(file).read_bytes() == before

    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(before.replace(WEIGHTS[1000:1010], bytes(10)))
    with pytest.raises(BundleError, match="is damaged"):
        upgrade(str(damaged))

    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("x.txt", "x")
    with pytest.raises(BundleError, match="is not a model bundle"):
        upgrade_bundle(str(tmp_path / "other.zip"), str(tmp_path / "out.zip"))
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".tmp-")) == []


def test_changes_are_one_line_per_field() -> None:
    changes = describe_changes(
        {"a": [{"x": 1}, {"x": 2}], "b": [1], "c": {"type_hint": "p", "x": 1}, "d": {"type_hint": "p"}, "e": 1},
        {"a": [{"x": 1}, {"x": 3}], "b": [1, 2], "c": {"type_hint": "q", "y": 1}, "f": "z" * 100, "e": 1},
    )

    assert changes == [
        "changed a[].x: 2 -> 3",
        "changed b: [1] -> [1, 2]",
        "changed c: a p -> a q",
        "removed d: a p",
        f'added f: "{"z" * 56}...',
    ]
    assert describe_changes({"type_hint": "a"}, {"type_hint": "b", "x": 1}) == ["changed config: a a -> a b"]
