"""Fake packages for tests of plugins: a folder on ``sys.path`` with modules and a ``*.dist-info``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from rastervision.pipeline.registry import registry_

InstallPlugin = Callable[..., Path]


@pytest.fixture
def install_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InstallPlugin]:
    """Return ``install(name, entry_points, modules)``: a wheel as it is once installed."""
    site = tmp_path / "site"
    site.mkdir()
    before = set(sys.modules)
    configs, hints = dict(registry_.configs), dict(registry_.type_hint_to_plugin)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))

    def install(
        name: str,
        entry_points: Mapping[str, Mapping[str, str]],
        modules: Mapping[str, str],
        version: str = "0.1",
    ) -> Path:
        info = site / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        groups = (
            f"[rastervision.{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items())
            for group, names in entry_points.items()
        )
        (info / "entry_points.txt").write_text("\n".join(groups))
        for path, text in modules.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_text(dedent(text))
        registry_.discover_plugins()
        return site

    yield install
    registry_.discover_plugins()
    for module in set(sys.modules) - before:
        file = getattr(sys.modules[module], "__file__", None)
        if file is not None and file.startswith(str(site)):
            del sys.modules[module]
    registry_.configs, registry_.type_hint_to_plugin = configs, hints


@pytest.fixture
def forget_new_configs() -> Iterator[None]:
    """Take configs that a test defines out of the registry again."""
    configs, hints = dict(registry_.configs), dict(registry_.type_hint_to_plugin)
    upgraders = dict(registry_.type_hint_to_upgrader)
    yield
    registry_.configs, registry_.type_hint_to_plugin = configs, hints
    registry_.type_hint_to_upgrader = upgraders
