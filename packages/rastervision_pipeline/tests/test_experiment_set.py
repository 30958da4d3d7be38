from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from rastervision.pipeline.cli import _main
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.experiment_set import experiment_source, load_experiments

EXPERIMENTS = """
    from other_experiments import Imported
    from rastervision.pipeline.experiment_set import ExperimentSet
    from rastervision.pipeline.pipeline import PipelineConfig

    class Trees(ExperimentSet):
        def exp_small(self, out="out"):
            return PipelineConfig(root_uri=f"{out}/small")

        def exp_both(self, out="out", suffix=""):
            large = PipelineConfig(root_uri=f"{out}/large{suffix}")
            return [("trees-large", large), PipelineConfig(root_uri=f"{out}/huge")]

        def helper(self):
            raise AssertionError("not an experiment")

        def try_something(self, runner):
            return PipelineConfig(root_uri=f"something-{runner}")
"""
OTHER = """
    from rastervision.pipeline.experiment_set import ExperimentSet
    from rastervision.pipeline.pipeline import PipelineConfig

    class Imported(ExperimentSet):
        def exp_roads(self):
            return PipelineConfig(root_uri="roads")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Return ``module(name, source)``, which writes a module that can be imported and returns its path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(name: str, source: str) -> str:
        path = tmp_path / f"{name}.py"
        path.write_text(dedent(source))
        importlib.invalidate_caches()
        return str(path)

    write("other_experiments", OTHER)
    write("experiments", EXPERIMENTS)
    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


def names(source: str, args: dict[str, Any] | None = None, **options: Any) -> list[str]:
    return [name for name, _ in load_experiments(source, "local", args or {}, **options)]


@pytest.mark.usefixtures("module")
def test_all_methods_of_all_sets_in_the_order_of_their_definition() -> None:
    found = load_experiments("experiments", "local", {})

    assert [name for name, _ in found] == ["roads", "out/small", "trees-large", "out/huge"]
    assert [cfg.root_uri for _, cfg in found] == ["roads", "out/small", "out/large", "out/huge"]


def test_prefix_methods_filters_and_args_select(module: Callable[..., str], tmp_path: Path) -> None:
    path = str(tmp_path / "experiments.py")

    assert names("experiments", prefix="try_") == ["something-local"]
    assert names("experiments", {"out": "x", "suffix": "-2"}) == ["roads", "x/small", "trees-large", "x/huge"]
    assert names("experiments", methods=["*.Trees.exp_s*", "*.Imported.*"]) == ["roads", "out/small"]
    assert names(path, methods=["experiments.Trees.exp_both"]) == ["trees-large", "out/huge"]
    assert names(path, methods=["*.trees.*"]) == []
    assert names("experiments", filters=["trees-*", "*/small"]) == ["out/small", "trees-large"]
    assert names("experiments", filters=["TREES-*"]) == []


def test_functions_come_before_sets_unless_only_sets_are_asked_for(module: Callable[..., str]) -> None:
    source = EXPERIMENTS + (
        "\n    def get_configs(runner, n='1'):"
        "\n        return [PipelineConfig(root_uri=f'{runner}-{i}') for i in range(int(n))]\n"
    )
    path = module("mixed", source)

    assert names(path, {"n": "2"}) == ["local-0", "local-1"]
    assert names(path, {"n": "2"}, filters=["*-1"]) == ["local-1"]
    assert names(path, methods=["mixed.get_configs"]) == ["local-0"]
    assert names(path, methods=["mixed.Trees.*"]) == []
    assert names(path, sets_only=True) == ["roads", "out/small", "trees-large", "out/huge"]


def test_saved_configs_go_by_their_root_uri(tmp_path: Path) -> None:
    path = tmp_path / "saved.json"
    path.write_text('[{"type_hint": "pipeline", "root_uri": "a"}, {"type_hint": "pipeline"}]')

    assert names(str(path)) == ["a", str(path)]


@pytest.mark.parametrize(
    ("body", "args", "message"),
    [
        ("def exp_a(self, out, *, n): ...", {"out": "x"}, r"wrong\.Set\.exp_a needs n\. Add -a n VALUE\."),
        ("def exp_a(self, out): ...", {"ot": "x"}, r"No experiment of wrong has an argument 'ot'\. Did you mean out\?"),
        ("def exp_a(self): ...", {"ot": "x"}, "They take none"),
        ("def exp_a(self): return None", {}, r"wrong\.Set\.exp_a returns a NoneType, but a PipelineConfig"),
        ("def exp_a(self): return [PipelineConfig(), 3]", {}, "returns a int"),
        ("def exp_a(self): return ('a', 'b', 'c')", {}, "returns a tuple"),
        ("def exp_a(self): return [('n', PipelineConfig(root_uri=u)) for u in 'ab']", {}, "Two experiments .*'n'"),
        ("def __init__(self, n): ...", {}, r"wrong\.Set cannot be made without arguments"),
    ],
)
def test_what_is_no_experiment_is_told_with_its_place(
    module: Callable[..., str], body: str, args: dict[str, str], message: str
) -> None:
    path = module(
        "wrong",
        "from rastervision.pipeline.experiment_set import ExperimentSet\n"
        "from rastervision.pipeline.pipeline import PipelineConfig\n"
        f"class Set(ExperimentSet):\n    {body}\n",
    )

    with pytest.raises(ConfigError, match=message):
        load_experiments(path, "local", args)


def test_a_module_without_experiments_is_told(module: Callable[..., str]) -> None:
    module("empty", "from rastervision.pipeline.experiment_set import ExperimentSet")

    with pytest.raises(ConfigError, match=r"empty has no function get_configs or get_config, and no subclass"):
        load_experiments("empty", "local", {})


def test_methods_that_take_anything_get_all_args(module: Callable[..., str]) -> None:
    path = module(
        "anything",
        """
        from rastervision.pipeline.experiment_set import ExperimentSet
        from rastervision.pipeline.pipeline import PipelineConfig

        class Base(ExperimentSet):
            def exp_first(self): return PipelineConfig(root_uri=type(self).__name__)

        class Derived(Base):
            def exp_second(self, **kwargs): return PipelineConfig(root_uri=str(kwargs))
        """,
    )

    assert names(path, {"a": "1"}) == ["Base", "Derived", "{'a': '1'}"]


def test_one_source_of_experiments_is_enough() -> None:
    assert experiment_source("a.b", None) == "a.b"
    assert experiment_source(None, "b.py") == "b.py"
    assert experiment_source(None, None) is None
    with pytest.raises(ConfigError, match=r"-e a and --path b\.py both say where"):
        experiment_source("a", "b.py")


def test_an_experiment_without_root_uri_goes_by_its_method(module: Callable[..., str]) -> None:
    path = module(
        "rootless",
        "from rastervision.pipeline.experiment_set import ExperimentSet\n"
        "from rastervision.pipeline.pipeline import PipelineConfig\n"
        "class Set(ExperimentSet):\n    def exp_a(self): return PipelineConfig()\n",
    )

    assert names(path) == ["rootless.Set.exp_a"]


def cli(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        _main(list(args))
    shown = capsys.readouterr()
    code = caught.value.code
    return (code if isinstance(code, int) else 0), shown.out, shown.err


@pytest.mark.usefixtures("module")
def test_scenario_51_ls_prints_one_name_per_pipeline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "experiments.py")

    assert cli(capsys, "ls", path) == (0, "roads\nout/small\ntrees-large\nout/huge\n", "")
    assert (
        cli(capsys, "ls", "-e", "experiments", "-a", "out", "x", "-a", "suffix", "-y")[1].splitlines()[1] == "x/small"
    )
    assert cli(capsys, "ls", "--path", path, "-m", "*both", "-f", "*huge")[1] == "out/huge\n"
    assert cli(capsys, "ls", path, "--prefix", "try_", "--runner", "batch")[1] == "something-batch\n"


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["ls"], "Name one file or module"),
        (["ls", "a.py", "-e", "b"], "Name one file or module"),
        (["ls", "-e", "a", "--path", "b.py"], "both say where the experiments are"),
        (["ls", "experiments", "-a", "out"], "needs two words, KEY and VALUE"),
        (["ls", "experiments", "-a", "colour", "red"], "has an argument 'colour'"),
        (["ls", "no_such_module"], "There is no module 'no_such_module'"),
        (["run", "nowhere", "experiments"], "There is no runner 'nowhere'. Use one of: .*inprocess, local"),
    ],
)
def test_scenario_51_mistakes_are_told_and_end_with_2(
    capsys: pytest.CaptureFixture[str], args: list[str], message: str
) -> None:
    code, out, err = cli(capsys, *args)

    assert code == 2
    assert out == ""
    assert re.search(message, " ".join(err.split()))
    assert "Traceback" not in err
