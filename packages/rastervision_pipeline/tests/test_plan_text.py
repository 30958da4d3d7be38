"""How a plan is shown."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from rastervision.pipeline.errors import MissingPackageError
from rastervision.pipeline.plan_drawing import plan_to_png
from rastervision.pipeline.plan_text import describe_plan, describe_skipped, plan_to_json, plan_to_mermaid
from rastervision.pipeline.planner import Plan, PlanOptions, make_plan
from rastervision.pipeline.run_pipelines import carry_out
from rastervision.pipeline.run_plan import RunOptions
from rastervision.pipeline.runner import InProcessRunner
from rastervision.testing.pipelines import TextPipelineConfig


@pytest.fixture
def configs(tmp_path: Path) -> list[TextPipelineConfig]:
    """Two pipelines that share chips; of the first, analyze and chip are done."""
    (tmp_path / "b.txt").write_text("b" * 9)
    (tmp_path / "a.txt").write_text("a" * 9)
    images = [str(tmp_path / "b.txt"), str(tmp_path / "a.txt")]
    shared = {"images": images, "chip_uri": str(tmp_path / "chips")}
    made = [TextPipelineConfig(root_uri=str(tmp_path / name), **shared) for name in ("one", "two")]
    first = make_plan([("", made[0])], str(tmp_path), PlanOptions(("analyze", "chip")))
    carry_out(first, InProcessRunner(), RunOptions())
    return made


def plan(configs: list[TextPipelineConfig], **options: Any) -> Plan:
    return make_plan([("", cfg) for cfg in configs], "/tmp", PlanOptions(**options))


def test_scenario_49_names_then_uris_then_configs(configs: list[TextPipelineConfig], tmp_path: Path) -> None:
    planned = plan(configs[:1], commands=("chip", "train", "predict"), num_splits=2)

    names, uris, config = (describe_plan(planned, verbosity).replace(str(tmp_path), "") for verbosity in (0, 1, 2))

    assert names.splitlines() == [
        "Skipped, because they are up to date (--rerun runs them anyway):",
        "chip from /one",
        "  BECAUSE: its outputs are there and nothing that they depend on has changed",
        "To run, in this order:",
        "train from /one",
        "  BECAUSE: there is no /one/train/model.zip",
        "predict-0 from /one",
        "  DEPENDS ON: train from /one",
        "  BECAUSE: there is no /one/predict/b.txt, /one/predict/a.txt",
        "predict-1 from /one",
        "  DEPENDS ON: train from /one",
        "  BECAUSE: there is no /one/predict/b.txt, /one/predict/a.txt",
    ]
    assert [line for line in uris.splitlines() if line in names.splitlines()] == names.splitlines()
    inputs = [
        "  INPUTS:",
        "    /a.txt",
        "    /b.txt",
        "    /one/train/model.zip",
        "  OUTPUTS:",
        "    /one/predict/a.txt",
    ]
    assert uris.splitlines()[-7:-1] == inputs
    assert "CONFIG" not in uris
    at = config.splitlines().index("  CONFIG:")
    assert config.splitlines()[at : at + 2] == ["  CONFIG:", "    {"]
    assert '      "chip_sz": 4,' in config.splitlines()


def test_duplicates_warnings_and_nothing_to_run(configs: list[TextPipelineConfig], tmp_path: Path) -> None:
    planned = plan(configs, commands=("chip",))

    text = describe_plan(planned, style=lambda text, color: f"<{color}>{text}")

    assert text.replace(str(tmp_path), "").splitlines() == [
        "<yellow>Duplicates, run once for all pipelines:",
        "chip from /two",
        "  BECAUSE: it does the same as chip from /one",
        "<yellow>Skipped, because they are up to date (--rerun runs them anyway):",
        "chip from /one",
        "  BECAUSE: its outputs are there and nothing that they depend on has changed",
        "<red>Nothing to run.",
    ]
    assert describe_skipped(planned).splitlines()[-1] == "Nothing to run."
    assert describe_skipped(plan(configs[:1], commands=("train",))) == ""


def test_json_has_nodes_and_edges(configs: list[TextPipelineConfig], tmp_path: Path) -> None:
    content = json.loads(plan_to_json(plan(configs, num_splits=2)))

    nodes = {(n["pipeline"].rpartition("/")[2], n["command"], n["split"]): n for n in content["nodes"]}
    assert [n["id"] for n in content["nodes"]] == list(range(len(content["nodes"])))
    done, train = nodes["one", "chip", None], nodes["two", "train", None]
    assert (done["state"], train["state"], nodes["two", "chip", None]["state"]) == ("up to date", "run", "duplicate")
    assert nodes["two", "chip", None]["same_as"] == done["id"]
    assert nodes["two", "eval", None]["needs"] == [nodes["two", "predict", i]["id"] for i in (0, 1)]
    assert train["needs"] == [nodes["two", "analyze", None]["id"]]
    assert {"from": done["id"], "to": train["id"]} in content["edges"]
    assert train["inputs"] == sorted([f"{tmp_path}/chips", f"{tmp_path}/two/analyze/stats.json"])
    assert train["outputs"] == [f"{tmp_path}/two/train/model.zip"]
    assert "config" not in train
    assert json.loads(plan_to_json(plan(configs), verbosity=2))["nodes"][0]["config"]


def test_mermaid_has_a_box_per_pipeline_and_a_class_per_state(configs: list[TextPipelineConfig]) -> None:
    text = plan_to_mermaid(plan(configs))

    assert text.startswith("flowchart LR\n")
    assert text.count("subgraph") == 2
    assert text.count(":::run") == 9
    assert text.count(":::up_to_date") == 2
    assert text.count(":::duplicate") == 1
    assert "classDef up_to_date fill:#" in text
    assert text.count(" --> ") == 2 * 5  # what follows from other arrows is not drawn


def test_png_is_a_picture_that_grows_with_the_plan(configs: list[TextPipelineConfig]) -> None:
    pytest.importorskip("matplotlib")

    one, two = plan_to_png(plan(configs[:1])), plan_to_png(plan(configs))

    assert one.startswith(b"\x89PNG\r\n") and two.startswith(b"\x89PNG\r\n")
    heights = [int.from_bytes(picture[20:24], "big") for picture in (one, two)]
    assert heights[1] > 1.5 * heights[0] > 300
    assert plan_to_png(Plan((), ())).startswith(b"\x89PNG")


def test_png_without_matplotlib_is_told(configs: list[TextPipelineConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    with pytest.raises(MissingPackageError, match="pip install matplotlib"):
        plan_to_png(plan(configs))
