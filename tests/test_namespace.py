"""All packages share the namespace `rastervision`, and every declared name loads."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import subprocess
import sys

import pytest

PACKAGES = ["pipeline", "core", "pytorch_backend", "pytorch_learner", "testing"]


def test_namespace_has_one_entry_per_package() -> None:
    import rastervision

    assert getattr(rastervision, "__file__", None) is None
    assert len(list(rastervision.__path__)) >= len(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_lazy_names_all_exist(package: str) -> None:
    code = f"import rastervision.{package} as p\nfor name in p.__all__: getattr(p, name)"

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "EAGER_IMPORT": "1"},
    )

    assert done.returncode == 0, done.stderr


def test_entry_points_load_the_class_that_is_registered() -> None:
    from rastervision.pipeline.registry import registry_

    for entry_point in importlib.metadata.entry_points(group="rastervision.configs"):
        cls = entry_point.load()
        assert cls.registered_type_hint == entry_point.name
        assert registry_.get_config(entry_point.name) is cls


@pytest.mark.parametrize("group", ["builders", "upgraders", "file_systems", "runners", "commands"])
def test_other_entry_points_load(group: str) -> None:
    for entry_point in importlib.metadata.entry_points(group=f"rastervision.{group}"):
        assert entry_point.load() is not None


def test_old_module_paths_give_the_same_objects() -> None:
    from rastervision.pipeline.moved import MOVED

    for old, new in MOVED.items():
        with pytest.warns(DeprecationWarning, match=old):
            sys.modules.pop(old, None)
            old_module = importlib.import_module(old)
        new_module = importlib.import_module(new)
        for name in getattr(new_module, "__all__", []):
            assert getattr(old_module, name) is getattr(new_module, name)
