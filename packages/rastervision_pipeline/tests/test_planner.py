"""Which commands are planned, in which order, and which are left out."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.io_report import CommandIODefinition
from rastervision.pipeline.pipeline import Pipeline, PipelineConfig
from rastervision.pipeline.plan_graph import CommandNode
from rastervision.pipeline.planner import Plan, PlanOptions, make_plan
from rastervision.pipeline.run_pipelines import carry_out
from rastervision.pipeline.run_plan import RunOptions
from rastervision.pipeline.runner import InProcessRunner
from rastervision.testing.contracts.runner import ContractPipelineConfig
from rastervision.testing.pipelines import TextPipelineConfig

ALL = ["analyze", "chip", "train", "predict", "eval", "bundle"]


@pytest.fixture
def images(tmp_path: Path) -> list[str]:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text(name * 9)
    return [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]


@pytest.fixture
def config(tmp_path: Path, images: list[str]) -> TextPipelineConfig:
    return TextPipelineConfig(root_uri=str(tmp_path / "out"), images=images)


def plan(*configs: PipelineConfig, commands: list[str] | None = None, **options: Any) -> Plan:
    return make_plan([("", cfg) for cfg in configs], tempfile.gettempdir(), PlanOptions(commands or (), **options))


def run(*configs: PipelineConfig, **options: Any) -> list[str]:
    """Run what is not up to date and return it."""
    planned = plan(*configs, **options)
    names = [node.command for node in planned.in_state("run")]
    carry_out(planned, InProcessRunner(), RunOptions(), options.get("num_splits", 1))
    return names


def commands_in(planned: Plan, *states: str) -> list[str]:
    return [node.command for node in planned.in_state(*states)]


def needs(planned: Plan) -> dict[str, list[str]]:
    return {str(n): [str(m) for m in n.needs if m.state == "run"] for n in planned.in_state("run")}


def node(planned: Plan, command: str, pipeline: int = 0) -> CommandNode:
    return next(n for n in planned.nodes if n.command == command and n.rank[0] == pipeline)


def files_below(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*")}


def test_scenario_30_six_commands_in_order_and_nothing_written(config: TextPipelineConfig, tmp_path: Path) -> None:
    before = files_below(tmp_path)

    planned = plan(config)

    out = config.root_uri
    assert needs(planned) == {
        f"analyze from {out}": [],
        f"chip from {out}": [],
        f"train from {out}": [f"analyze from {out}", f"chip from {out}"],
        f"predict from {out}": [f"train from {out}"],
        f"eval from {out}": [f"predict from {out}"],
        f"bundle from {out}": [f"analyze from {out}", f"train from {out}"],
    }
    assert commands_in(planned, "run") == ALL
    assert files_below(tmp_path) == before
    assert config.chip_uri is None  # the caller's config is not touched


def test_scenario_31_what_is_there_is_skipped_and_not_waited_for(config: TextPipelineConfig) -> None:
    run(config, commands=["analyze", "chip"])

    planned = plan(config)

    assert commands_in(planned, "up to date") == ["analyze", "chip"]
    assert commands_in(planned, "run") == ["train", "predict", "eval", "bundle"]
    assert needs(planned)[f"train from {config.root_uri}"] == []
    assert planned.run_plan().steps[0].needs == ()


def test_scenario_32_nothing_runs_twice_unless_asked_for(config: TextPipelineConfig) -> None:
    assert run(config) == ALL

    assert run(config) == []
    assert commands_in(plan(config, rerun=True), "run") == ALL
    assert commands_in(plan(config, commands=["train"], rerun=True), "run") == ["train"]


def test_scenario_33_one_missing_output_of_two(config: TextPipelineConfig) -> None:
    run(config)
    os.remove(f"{config.root_uri}/predict/a.txt")

    planned = plan(config)

    assert commands_in(planned, "run") == ["predict", "eval"]
    assert node(planned, "predict").reasons == [f"there is no {config.root_uri}/predict/a.txt"]
    assert node(planned, "eval").reasons == ["it reads what predict makes anew"]


def test_scenario_34_an_empty_folder_or_chips_without_record_are_not_done(
    config: TextPipelineConfig, tmp_path: Path, one_command: Callable[..., PipelineConfig]
) -> None:
    os.makedirs(tmp_path / "out/chip")
    (tmp_path / "out/chip/1.zip").write_text("left over")
    (tmp_path / "empty").mkdir()

    assert "chip" in commands_in(plan(config), "run")
    assert commands_in(plan(one_command("x", outputs={str(tmp_path / "empty"): "dir"})), "run") == ["work"]
    (tmp_path / "empty/file").touch()
    assert commands_in(plan(one_command("x", outputs={str(tmp_path / "empty"): "dir"})), "up to date") == ["work"]


def test_scenario_35_missing_sources_are_told_together(config: TextPipelineConfig, images: list[str]) -> None:
    for uri in images:
        os.remove(uri)

    with pytest.raises(ConfigError) as caught:
        plan(config)

    assert all(f"{uri} (for analyze from {config.root_uri} and chip" in str(caught.value) for uri in images)
    assert commands_in(plan(config, check_sources=False), "run") == ALL


def test_scenario_36_predictions_that_nobody_makes(config: TextPipelineConfig) -> None:
    run(config, commands=["analyze", "chip", "train"])

    with pytest.raises(ConfigError, match=r"missing(.|\n)*out/predict/a.txt \(for eval"):
        plan(config, commands=["eval"])
    assert commands_in(plan(config, commands=["predict", "eval"]), "run") == ["predict", "eval"]


def test_scenario_37_sources_of_what_is_done_may_go(config: TextPipelineConfig, images: list[str]) -> None:
    run(config)
    os.remove(images[0])

    assert commands_in(plan(config), "run") == []


def shared_chips(config: TextPipelineConfig, tmp_path: Path, **changes: Any) -> list[TextPipelineConfig]:
    one = config.model_copy(update={"chip_uri": str(tmp_path / "chips")})
    return [one, one.model_copy(update={"root_uri": str(tmp_path / "out2"), **changes})]


def test_scenario_38_shared_commands_run_once(config: TextPipelineConfig, tmp_path: Path) -> None:
    one, two = shared_chips(config, tmp_path)

    planned = plan(one, two)

    assert [str(n) for n in planned.in_state("duplicate")] == [f"chip from {two.root_uri}"]
    chip = f"chip from {one.root_uri}"
    assert chip in needs(planned)[f"train from {one.root_uri}"]
    assert chip in needs(planned)[f"train from {two.root_uri}"]
    run(one, two)
    assert (tmp_path / "out2/ran.txt").read_text().split() == ["analyze", "train", "predict", "eval", "bundle"]
    assert run(two) == []  # the record of chip is there too
    assert run(two.model_copy(update={"chip_sz": 3}), commands=["chip"]) == ["chip"]


def test_scenario_39_the_same_place_with_other_settings_is_a_conflict(
    config: TextPipelineConfig, tmp_path: Path
) -> None:
    one, two = shared_chips(config, tmp_path, chip_sz=5)

    with pytest.raises(ConfigError) as caught:
        plan(one, two)

    for part in (f"chip from {one.root_uri}", f"chip from {two.root_uri}", f"{tmp_path}/chips/.done-0-of-1"):
        assert part in str(caught.value)


def test_scenario_40_two_configs_for_one_place(config: TextPipelineConfig, tmp_path: Path) -> None:
    other = config.model_copy(update={"chip_sz": 5, "root_uri": f"{tmp_path}/./out/"})

    with pytest.raises(ConfigError, match=r"Two pipelines .*out/pipeline-config.json"):
        plan(config, other)

    assert not (tmp_path / "out").exists()
    assert commands_in(plan(config, config), "run") == ALL


def test_scenario_41_a_shared_part_is_not_shared_by_the_plans(tmp_path: Path, forget_new_configs: None) -> None:
    @register_config("shared_part", plugin="rastervision.testing")
    class Part(Config):
        uri: str | None = None

        def report_io(self, command: str, io_def: CommandIODefinition) -> None:
            io_def.add_output(self.uri)

    @register_config("sharing_pipeline", plugin="rastervision.testing")
    class Sharing(PipelineConfig):
        part: Part

        def update(self) -> None:
            self.part.uri = self.part.uri or f"{self.root_uri}/out"

        def build(self, tmp_dir: str) -> Pipeline:
            return _OneCommand(self, tmp_dir)

    shared = Part()
    configs = [Sharing(root_uri=str(tmp_path / name), part=shared) for name in ("one", "two")]
    assert configs[0].part is configs[1].part

    planned = plan(*configs)

    assert [list(n.io.outputs) for n in planned.nodes] == [[f"{tmp_path}/one/out"], [f"{tmp_path}/two/out"]]
    assert shared.uri is None


class _OneCommand(Pipeline):
    commands = ("work",)
    split_commands = ()
    gpu_commands = ()

    def work(self) -> None:
        for uri in getattr(self.config, "outputs", {}):
            Path(uri).write_text(Path(uri).read_text() + "+" if os.path.exists(uri) else "new")


@pytest.fixture
def one_command(tmp_path: Path, forget_new_configs: None) -> Callable[..., PipelineConfig]:
    @register_config("one_command", plugin="rastervision.testing")
    class OneCommandConfig(PipelineConfig):
        inputs: dict[str, Any] = {}
        outputs: dict[str, Any] = {}
        missing: str = ""

        def report_io(self, command: str, io_def: CommandIODefinition) -> None:
            for uri, kind in self.inputs.items():
                io_def.add_input(uri, kind)
            for uri, kind in self.outputs.items():
                io_def.add_output(uri, kind)
            if self.missing:
                io_def.add_missing(self.missing)

        def build(self, tmp_dir: str) -> Pipeline:
            return _OneCommand(self, tmp_dir)

    return lambda name, **kwargs: OneCommandConfig(root_uri=str(tmp_path / name), **kwargs)


def test_scenario_42_a_circle_is_shown_and_in_place_is_none(
    tmp_path: Path, one_command: Callable[..., PipelineConfig]
) -> None:
    a, b = f"{tmp_path}/a", f"{tmp_path}/b"

    with pytest.raises(ConfigError) as caught:
        plan(
            one_command("one", inputs={a: "file"}, outputs={b: "file"}),
            one_command("two", inputs={b: "file"}, outputs={a: "file"}),
        )

    one, two = f"work from {tmp_path}/one", f"work from {tmp_path}/two"
    assert f"{one} -> {two} -> {one}" in str(caught.value) or f"{two} -> {one} -> {two}" in str(caught.value)
    in_place = one_command("one", inputs={a: "file"}, outputs={a: "file"})
    assert run(in_place) == ["work"]
    assert run(in_place) == []


def test_scenario_43_the_second_pipeline_may_come_first(
    tmp_path: Path, one_command: Callable[..., PipelineConfig]
) -> None:
    made = {f"{tmp_path}/made/x": "file"}
    first = one_command("first", inputs=made, outputs={f"{tmp_path}/end": "file"})
    second = one_command("second", outputs=made)

    planned = plan(first, second)

    assert [str(n) for n in planned.nodes] == [f"work from {tmp_path}/second", f"work from {tmp_path}/first"]
    assert [s.needs for s in planned.run_plan().steps] == [(), (0,)]


def test_scenario_44_commands_that_report_nothing_always_run_in_the_order_asked_for(tmp_path: Path) -> None:
    config = ContractPipelineConfig(root_uri=str(tmp_path / "old"))

    for _ in range(2):
        steps = plan(config, commands=["third", "first", "second"], num_splits=2).run_plan().steps
        assert [(s.command, s.split_ind, s.needs) for s in steps] == [
            ("third", 0, ()),
            ("first", 0, (0,)),
            ("second", 0, (1,)),
            ("second", 1, (1,)),
        ]
        assert run(config, num_splits=2) == ["first", "second", "third"]
    assert not (tmp_path / "old/.rv").exists()


def test_commands_that_report_nothing_stand_between_the_others(config: TextPipelineConfig) -> None:
    mixed = config.model_copy(update={"silent": ["train", "bundle"]})

    planned = plan(mixed)

    out = config.root_uri
    assert needs(planned)[f"train from {out}"] == [f"analyze from {out}", f"chip from {out}"]
    assert needs(planned)[f"predict from {out}"] == [f"train from {out}"]
    assert needs(planned)[f"bundle from {out}"] == [f"{c} from {out}" for c in ("train", "predict", "eval")]
    assert run(mixed) == ALL
    again = plan(mixed)
    assert commands_in(again, "up to date") == ["analyze", "chip"]
    assert node(again, "predict").reasons == ["it reads what train makes anew"]
    kept = plan(config.model_copy(update={"silent": ["eval"]}))
    assert commands_in(kept, "run") == ["eval"]  # nothing reads what nobody makes


def test_scenario_45_consumers_of_what_is_made_anew(config: TextPipelineConfig) -> None:
    run(config)
    os.remove(f"{config.root_uri}/train/model.zip")

    assert commands_in(plan(config), "run") == ["train", "predict", "eval", "bundle"]
    kept = plan(config, keep_downstream=True)
    assert commands_in(kept, "run") == ["train"]
    assert commands_in(kept, "stale") == ["predict", "eval", "bundle"]
    assert any("eval from" in w and "kept as it is" in w for w in kept.warnings)
    assert node(kept, "eval").reasons == ["it reads what predict made, which is out of date"]
    # also when what was made anew was made by an earlier run
    run(config, keep_downstream=True)
    Path(f"{config.root_uri}/train/model.zip").write_text("another")
    assert commands_in(plan(config, keep_downstream=True), "stale") == ["predict", "eval", "bundle"]
    assert commands_in(plan(config), "run") == ["predict", "eval", "bundle"]


def test_scenario_46_more_parts_than_images(config: TextPipelineConfig, tmp_path: Path) -> None:
    assert run(config, num_splits=3) == ALL

    ran = (tmp_path / "out/ran.txt").read_text().split()
    assert ran == ["analyze", "chip-0", "chip-1", "chip-2", "train", "predict-0", "predict-1", "predict-2", *ALL[4:]]
    assert sorted(p.name for p in (tmp_path / "out/.rv").glob("chip*")) == [f"chip-{i}-of-3.json" for i in range(3)]
    assert run(config, num_splits=3) == []
    assert run(config, num_splits=2) == []
    assert "(in 3 parts)" in node(plan(config), "chip").reasons[0]


def test_a_part_that_was_not_done_makes_all_of_the_command_run(config: TextPipelineConfig, tmp_path: Path) -> None:
    run(config, num_splits=3)
    os.remove(tmp_path / "out/.rv/predict-1-of-3.json")

    planned = plan(config, num_splits=3)

    assert commands_in(planned, "run") == ["predict", "eval"]
    assert node(planned, "predict").reasons == ["its last run was not completed"]


@pytest.mark.parametrize("num_splits", [1, 2])
def test_a_failed_command_runs_again_although_its_outputs_are_there(
    config: TextPipelineConfig, num_splits: int
) -> None:
    run(config)
    failing = config.model_copy(update={"fail_in": "chip"})
    with pytest.raises(Exception, match="told to fail"):
        run(failing, commands=["chip"], rerun=True, num_splits=num_splits)

    planned = plan(config)

    assert node(planned, "chip").reasons == ["its last run was not completed"]
    assert commands_in(planned, "run") == ["chip", "train", "predict", "eval", "bundle"]
    run(config)
    assert run(config) == []


def test_a_changed_config_or_input_runs_what_depends_on_it(config: TextPipelineConfig, images: list[str]) -> None:
    run(config)

    other = config.model_copy(update={"chip_sz": 5})
    assert node(plan(other), "chip").reasons == ["its config has changed"]
    assert commands_in(plan(other), "run") == ["chip", "train", "predict", "eval", "bundle"]
    Path(images[1]).write_text("changed")
    assert node(plan(config), "predict").reasons == [f"inputs have changed: {images[1]}"]
    assert run(config) == ALL
    assert run(config) == []


def test_another_version_of_a_plugin_runs_its_commands(
    config: TextPipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rastervision.pipeline.registry import registry_

    run(config)
    monkeypatch.setitem(registry_._added_versions, "rastervision.testing", 1)
    monkeypatch.setitem(registry_._added_versions, "rastervision.other", 1)

    assert node(plan(config), "eval").reasons == ["plugin rastervision.testing went from version 0 to 1"]


def test_outputs_of_0_31_count_as_done(config: TextPipelineConfig, tmp_path: Path) -> None:
    import shutil

    run(config)
    shutil.rmtree(tmp_path / "out/.rv")

    planned = plan(config.model_copy(update={"chip_sz": 5}))

    assert commands_in(planned, "run") == []
    assert "without a record" in node(planned, "train").reasons[0]


def test_the_setting_always_run(config: TextPipelineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run(config)
    monkeypatch.setenv("RASTERVISION_ALWAYS_RUN", "yes")

    planned = plan(config)

    assert commands_in(planned, "run") == ALL
    assert node(planned, "train").reasons == ["the setting rastervision.always_run is on"]


def test_a_command_without_outputs_always_runs(one_command: Callable[..., PipelineConfig], images: list[str]) -> None:
    config = one_command("x", inputs={images[0]: "file"})

    assert run(config) == run(config) == ["work"]
    assert node(plan(config), "work").reasons == ["it does not say what it writes"]


def test_what_cannot_be_told_from_the_config_is_told_together(
    config: TextPipelineConfig, one_command: Callable[..., PipelineConfig], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        plan(one_command("x", missing="stats_uri is not set."), one_command("y", missing="no bundle."), config)

    assert str(caught.value).splitlines()[1:] == [
        f"  work from {tmp_path}/x: stats_uri is not set.",
        f"  work from {tmp_path}/y: no bundle.",
    ]


@pytest.mark.parametrize(
    ("one", "two", "conflict"),
    [
        ({"d/a": "file"}, {"d/a": "file"}, True),
        ({"d": "dir"}, {"d": "dir"}, True),
        ({"d": "dir"}, {"d/e": "dir"}, True),
        ({"d/e/f": "file"}, {"d": "dir"}, True),
        ({"d": "dir"}, {"d/e/f": "file"}, True),
        ({"d/link/../a": "file"}, {"d/a": "file"}, True),
        ({"d": "prefix"}, {"d": "prefix"}, False),
        ({"d": "prefix"}, {"d/a": "file"}, False),
        ({"d": "dir"}, {"da": "dir"}, False),
    ],
)
def test_outputs_at_one_place(
    one_command: Callable[..., PipelineConfig], tmp_path: Path, one: Any, two: Any, conflict: bool
) -> None:
    outputs = [{f"{tmp_path}/{uri}": kind for uri, kind in uris.items()} for uris in (one, two)]
    configs = [one_command(name, outputs=uris) for name, uris in zip(("x", "y"), outputs, strict=True)]

    if not conflict:
        assert len(plan(*configs).nodes) == 2
        return
    with pytest.raises(ConfigError, match=f"work from {tmp_path}/x and work from {tmp_path}/y both write"):
        plan(*configs)


def test_folders_make_and_need_what_is_in_them(one_command: Callable[..., PipelineConfig], tmp_path: Path) -> None:
    maker = one_command("maker", outputs={f"{tmp_path}/d": "dir"})
    reader = one_command("reader", inputs={f"{tmp_path}/d/x/y.txt": "file"}, outputs={f"{tmp_path}/e/f": "file"})
    last = one_command("last", inputs={f"{tmp_path}/e": "dir"}, outputs={f"{tmp_path}/g": "file"})

    planned = plan(last, reader, maker)

    assert [n.owner.id.rpartition("/")[2] for n in planned.nodes] == ["maker", "reader", "last"]


def test_commands_are_found_in_any_case_and_each_once(config: TextPipelineConfig) -> None:
    assert commands_in(plan(config, commands=["CHIP", "Analyze", "chip"]), "run") == ["analyze", "chip"]
    with pytest.raises(ConfigError, match=r"TextPipeline has no command 'chop'. Use some of: analyze, chip"):
        plan(config, commands=["chop"])


def test_pipelines_are_asked_for_the_commands_they_have(
    config: TextPipelineConfig, one_command: Callable[..., PipelineConfig], tmp_path: Path
) -> None:
    other = one_command("other", outputs={f"{tmp_path}/x": "file"})

    assert commands_in(plan(config, other, commands=["work"]), "run") == ["work"]
    with pytest.raises(ConfigError, match=r"TextPipeline and _OneCommand has no command 'chop'"):
        plan(config, other, commands=["chop"])


def test_configs_are_updated_for_each_command_from_the_top_down(
    tmp_path: Path, forget_new_configs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str, list[str]]] = []

    @register_config("hooked_part", plugin="rastervision.testing")
    class Inner(Config):
        uri: str | None = None

        def update_for_command(self, command: str, pipeline: Any = None, context: Any = None) -> None:
            calls.append(("inner", command, [type(c).__name__ for c in context]))
            self.uri = f"{pipeline.root_uri}/inner"

        def report_io(self, command: str, io_def: CommandIODefinition) -> None:
            io_def.add_output(self.uri)

    @register_config("hooked_pipeline", plugin="rastervision.testing")
    class Outer(PipelineConfig):
        parts: dict[str, list[Inner]]

        def update_for_command(self, command: str, pipeline: Any = None, context: Any = None) -> None:
            calls.append(("outer", command, context))

        def build(self, tmp_dir: str) -> Pipeline:
            return _OneCommand(self, tmp_dir)

    planned = plan(Outer(root_uri=str(tmp_path), parts={"a": [Inner()]}))

    assert calls == [("outer", "work", []), ("inner", "work", ["Outer"])]
    assert list(planned.nodes[0].io.outputs) == [f"{tmp_path}/inner"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reads=st.lists(st.sets(st.integers(0, 4)), min_size=5, max_size=5), touched=st.integers(0, 4))
def test_any_pipelines_run_after_what_they_read_and_again_only_after_a_change(
    one_command: Callable[..., PipelineConfig], reads: list[set[int]], touched: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = [f"{folder}/{i}/made" for i in range(5)]
        configs = [
            one_command(
                f"{folder}/{i}", inputs=dict.fromkeys([made[j] for j in sorted(js)], "file"), outputs={made[i]: "file"}
            )
            for i, js in enumerate(reads)
        ]
        graph = {i: js - {i} for i, js in enumerate(reads)}
        try:
            list(TopologicalSorter(graph).static_order())
        except CycleError:
            with pytest.raises(ConfigError, match="wait for each other"):
                plan(*configs)
            return

        order = [n.rank[0] for n in plan(*configs).nodes]

        assert all(order.index(j) < order.index(i) for i, js in graph.items() for j in js)
        assert len(run(*configs)) == 5
        assert run(*configs) == []
        with open(made[touched], "a") as f:
            f.write("more")
        below = {i for i, js in graph.items() if touched in js}
        for i in order:
            below |= {i} if graph[i] & below else set()
        assert {n.rank[0] for n in plan(*configs).in_state("run")} == below
