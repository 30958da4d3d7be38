"""The small plugins that come along as examples, which run as those of 0.31 do."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rastervision.pipeline.config import ConfigError, build_config
from rastervision.pipeline.pipeline import PipelineConfig
from rastervision.pipeline.registry import registry_
from rastervision.pipeline_example_plugin1 import SamplePipeline2Config, SamplePipelineConfig
from rastervision.pipeline_example_plugin2 import DeluxeMessageMakerConfig


@pytest.mark.parametrize("config_cls", [SamplePipelineConfig, SamplePipeline2Config])
def test_update_names_the_files(config_cls: type[PipelineConfig]) -> None:
    config: Any = config_cls(root_uri="/x/")

    config.update()

    assert config.message_uris == ["/x/alice.txt", "/x/bob.txt"]
    config.root_uri = "/y"
    config.update()
    assert config.message_uris == ["/x/alice.txt", "/x/bob.txt"]
    with pytest.raises(ConfigError, match="root_uri is not set"):
        config_cls().update()


@pytest.mark.parametrize(
    ("config", "messages"),
    [
        (SamplePipelineConfig(), ["hello alice!", "hello bob!"]),
        (SamplePipeline2Config(), ["hello alice!", "hello bob!"]),
        (
            SamplePipeline2Config(names=["eve"], message_maker=DeluxeMessageMakerConfig(greeting="hi", level=3)),
            ["hi eve!!!"],
        ),
    ],
)
def test_pipelines_write_and_log_messages(
    config: SamplePipelineConfig, messages: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rastervision")
    config = config.copy()
    config.root_uri = str(tmp_path)
    config.update()
    pipeline = config.build(str(tmp_path))

    for command in pipeline.commands:
        if command in pipeline.split_commands:
            for split_ind in range(4):
                getattr(pipeline, command)(split_ind, 4)
        else:
            getattr(pipeline, command)()

    assert [Path(uri).read_text() for uri in config.message_uris or []] == messages
    assert [r.getMessage() for r in caplog.records if r.funcName == "print_messages"] == messages


def test_parts_of_another_plugin_survive_a_trip_through_json() -> None:
    config = SamplePipeline2Config(message_maker=DeluxeMessageMakerConfig(level=2))

    saved = json.loads(config.model_dump_json())

    assert list(saved)[3] == "type_hint"
    assert saved["message_maker"]["type_hint"] == "pipeline_example_plugin2.deluxe_message_maker"
    assert list(saved["message_maker"]) == ["greeting", "type_hint", "level"]
    assert build_config(saved) == config


def test_configs_share_no_default() -> None:
    one, two = SamplePipeline2Config(), SamplePipeline2Config()

    one.message_maker.greeting = "bye"
    one.names.append("eve")

    assert two.message_maker.greeting == "hello"
    assert two.names == ["alice", "bob"]


def test_plugins_are_known_with_their_versions() -> None:
    for name in ("rastervision.pipeline_example_plugin1", "rastervision.pipeline_example_plugin2"):
        assert registry_.plugin_versions[name] == 0
    assert registry_.get_plugin("pipeline_example_plugin2.deluxe_message_maker").endswith("plugin2")


def test_runs_from_a_saved_file(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    SamplePipelineConfig(root_uri=str(tmp_path / "run")).to_file(str(path))

    command = [sys.executable, "-m", "rastervision.pipeline.cli", "run", "inprocess", str(path), "--splits", "2"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "TMPDIR": str(tmp_path)}
    )

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "bob.txt").read_text() == "hello bob!"
