from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from rastervision.core.analyzer import AnalyzerConfig, StatsAnalyzer, StatsAnalyzerConfig
from rastervision.core.data.raster_source import RasterioSource
from rastervision.core.data.raster_transformer import StatsTransformerConfig
from rastervision.core.raster_stats import NoPixelsError
from rastervision.pipeline.config import build_config
from rastervision.pipeline.errors import ConfigError
from rastervision.testing import numbered_image, write_geotiff


def _scene(tmp_path: Path, scene_id: str, image: Any) -> Any:
    source = RasterioSource(str(write_geotiff(tmp_path / f"{scene_id}.tif", image)))
    return SimpleNamespace(id=scene_id, raster_source=source)


def test_writes_what_the_transformer_reads(tmp_path: Path) -> None:
    pipeline = SimpleNamespace(analyze_uri=str(tmp_path / "analyze"))
    config, reader = StatsAnalyzerConfig(sample_prob=None), StatsTransformerConfig(scene_group="valid")
    image = numbered_image(20, 30, dtype=np.uint16)
    config.update(pipeline)
    reader.update(pipeline)

    config.build(("valid", {"a"})).process([_scene(tmp_path, "a", image)], str(tmp_path))

    saved = json.loads((tmp_path / "analyze/stats/valid/stats.json").read_text())
    assert list(saved) == ["means", "stds", "counts"]
    assert saved["counts"] == [600] * 3
    np.testing.assert_allclose(reader.build().means, image.mean(axis=(0, 1)))


@pytest.mark.parametrize(
    ("output_uri", "group", "expected"),
    [
        ("/x/stats", ("g", ["a"]), "/x/stats/g/stats.json"),
        ("/x/stats", None, "/x/stats/stats.json"),
        ("/x/s.json", ("g", ["a"]), "/x/s.json"),
    ],
)
def test_place_of_the_file(output_uri: str, group: Any, expected: str) -> None:
    assert StatsAnalyzerConfig(output_uri=output_uri).build(group).stats_uri == expected


def test_config_passes_its_fields_on() -> None:
    analyzer = StatsAnalyzerConfig(output_uri="/x", sample_prob=0.5, chip_sz=20, nodata_value=None).build()

    assert (analyzer.sample_prob, analyzer.chip_sz, analyzer.nodata_value) == (0.5, 20, None)
    assert StatsAnalyzerConfig().get_bundle_filenames() == ["stats.json"]
    assert AnalyzerConfig().get_bundle_filenames() == []


def test_config_comes_back_from_json() -> None:
    config = StatsAnalyzerConfig(output_uri="/x", sample_prob=None)

    saved = json.loads(config.model_dump_json())

    assert next(iter(saved)) == "type_hint"
    assert build_config(saved) == config


@pytest.mark.parametrize("kwargs", [{"sample_prob": 0}, {"sample_prob": 1.5}, {"chip_sz": 0}])
def test_bad_values_are_refused(kwargs: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        StatsAnalyzerConfig(**kwargs)


def test_all_pixels_is_a_valid_choice() -> None:
    StatsAnalyzerConfig(sample_prob=None).recursive_validate_config()


def test_no_place_to_write_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no output_uri"):
        StatsAnalyzerConfig().build()
    with pytest.raises(ValueError, match="no stats_uri"):
        StatsAnalyzer(sample_prob=None).process([_scene(tmp_path, "a", numbered_image(4, 4))], str(tmp_path))
    with pytest.raises(NotImplementedError):
        AnalyzerConfig().build()


def test_scenes_without_data_are_named(tmp_path: Path) -> None:
    empty = np.zeros((5, 5, 1), np.uint8)
    scenes = [_scene(tmp_path, "north", empty), _scene(tmp_path, "south", empty)]

    with pytest.raises(NoPixelsError, match=r"Scenes north, south: There is no pixel with data"):
        StatsAnalyzer(str(tmp_path / "s.json")).process(scenes, str(tmp_path))

    assert not (tmp_path / "s.json").exists()
