"""The commands predict and predict_scene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from rastervision.core.cli import parse_channel_order, predict, predict_scene, show_outputs
from rastervision.core.data.label_store.semantic_segmentation_label_store import SemanticSegmentationLabelStoreConfig
from rastervision.core.rv_pipeline import SemanticSegmentationConfig
from rastervision.pipeline.cli_plugins import command_from_function
from rastervision.testing.rasters import read_geotiff
from rastervision.testing.scenes import make_square_scene

MakePipeline = Callable[..., SemanticSegmentationConfig]


@pytest.fixture
def bundle(make_pipeline: MakePipeline, tmp_path: Path) -> str:
    config = make_pipeline()
    config.update()
    pipeline = config.build(str(tmp_path / "tmp"))
    pipeline.train()
    pipeline.bundle()
    return config.get_model_bundle_uri()


def run(function: Callable[..., None], *args: str) -> None:
    command_from_function(function.__name__, function).main(list(args), standalone_mode=False)


@pytest.mark.parametrize(
    ("words", "channels"), [(["2", "1", "0"], [2, 1, 0]), (["2,1,0"], [2, 1, 0]), (None, None), ([], None)]
)
def test_channels_are_separated_by_blanks_or_commas(words: list[str] | None, channels: list[int] | None) -> None:
    assert parse_channel_order(words) == channels


@pytest.mark.parametrize("words", [["2", "x"], ["-1"], ["1.5"]])
def test_channels_are_numbers(words: list[str]) -> None:
    with pytest.raises(typer.BadParameter, match="not a list of channel numbers"):
        parse_channel_order(words)


@pytest.mark.parametrize(
    "order", [["--channel-order", "2", "1", "0"], ["--channel-order", "2,1,0"], ["--channel-order=2,1,0"]]
)
def test_predict_prints_what_it_wrote(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], order: list[str]
) -> None:
    make_square_scene(tmp_path / "new", "new", labels=None)
    out = tmp_path / "out"

    run(predict, bundle, str(tmp_path / "new/new.tif"), str(out), *order)

    assert (read_geotiff(out / "labels.tif") == 1).sum() == 48 * 64
    printed = capsys.readouterr().out.splitlines()
    assert str(out / "labels.tif") in printed
    assert all(Path(line).is_file() for line in printed)
    assert len(printed) == 4


def test_predict_scene_prints_what_it_wrote(bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = make_square_scene(tmp_path / "new", labels=None)
    scene.label_store = SemanticSegmentationLabelStoreConfig(uri=str(tmp_path / "out"))
    scene.to_file(str(tmp_path / "scene.json"))
    options = tmp_path / "options.json"
    options.write_text('{"type_hint": "semantic_segmentation_predict_options", "chip_sz": 50}')

    run(predict_scene, bundle, str(tmp_path / "scene.json"), "--predict_options_uri", str(options))

    assert capsys.readouterr().out.splitlines() == [str(tmp_path / "out/labels.tif")]


def test_a_remote_place_is_printed_as_it_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    show_outputs(str(tmp_path / "labels.json"))
    assert capsys.readouterr().out.strip() == str(tmp_path / "labels.json")
