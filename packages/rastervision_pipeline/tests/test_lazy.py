from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import rastervision.pipeline as package
from rastervision.pipeline import moved
from rastervision.pipeline.errors import MissingPackageError
from rastervision.pipeline.lazy import load_object
from rastervision.pipeline.pipeline import PipelineConfig


def test_objects_are_loaded_by_name() -> None:
    assert load_object("rastervision.pipeline.pipeline:PipelineConfig") is PipelineConfig
    with pytest.raises(AttributeError, match="Nothing"):
        load_object("rastervision.pipeline.pipeline:Nothing")


def test_a_missing_wheel_is_answered_with_the_pip_line() -> None:
    with pytest.raises(
        MissingPackageError,
        match=r"Thing needs the package rastervision_no_such.*pip install rastervision_no_such$",
    ):
        load_object("rastervision.no_such.deep.module:Thing")
    with pytest.raises(MissingPackageError, match="pip install no_such_top"):
        load_object("no_such_top:Thing")


def test_a_missing_dependency_of_an_installed_module_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lazy_test_mod.py").write_text("import no_such_dependency")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(ModuleNotFoundError, match="no_such_dependency") as caught:
        load_object("lazy_test_mod:Thing")
    assert not isinstance(caught.value, MissingPackageError)


def test_every_public_name_can_be_imported() -> None:
    for name in package.__all__:
        assert getattr(package, name) is not None
    for sub in ("file_system", "runner"):
        module = importlib.import_module(f"rastervision.pipeline.{sub}")
        for name in module.__all__:
            assert getattr(module, name) is not None
    assert "registry_" in dir(package)
    with pytest.raises(AttributeError, match="no_such_name"):
        package.no_such_name  # noqa: B018


def test_old_module_paths_give_the_same_classes_with_a_warning() -> None:
    sys.modules.pop("rastervision.pipeline.pipeline_config", None)
    with pytest.warns(DeprecationWarning, match=r"pipeline_config moved to rastervision.pipeline.pipeline"):
        old = importlib.import_module("rastervision.pipeline.pipeline_config")

    assert old.PipelineConfig is PipelineConfig
    by_old_name = pickle.dumps(PipelineConfig(root_uri="a"), protocol=0).replace(
        b"rastervision.pipeline.pipeline\n", b"rastervision.pipeline.pipeline_config\n"
    )
    assert pickle.loads(by_old_name) == PipelineConfig(root_uri="a")


def test_rows_can_be_added_to_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moved, "MOVED", dict(moved.MOVED))
    moved.add({"rastervision.pipeline.was_here": "rastervision.pipeline.utils"})
    moved.install()

    with pytest.warns(DeprecationWarning, match="was_here"):
        old = importlib.import_module("rastervision.pipeline.was_here")

    assert old.grouped([1], 1) == [[1]]
    del sys.modules["rastervision.pipeline.was_here"]


def test_importing_the_package_does_and_costs_next_to_nothing() -> None:
    code = (
        "import sys, logging\n"
        "import pydantic, typer\n"
        "before = len(sys.modules)\n"
        "import rastervision.pipeline\n"
        "from rastervision.pipeline import *\n"
        "import rastervision.pipeline.config\n"
        "handlers = len(logging.getLogger().handlers)\n"
        "print(len(sys.modules) - before, handlers, rastervision.pipeline.__version__)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert int(out[0]) <= 250
    assert out[1] == "0"
    assert out[2] != "0+unknown"
