from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rastervision.core.data.raster_source import RasterioSource
from rastervision.core.data.raster_transformer import StatsTransformer, StatsTransformerConfig
from rastervision.core.raster_stats import RasterStats
from rastervision.pipeline.config import build_config
from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.testing import chips, numbered_image, write_geotiff

PIPELINE = SimpleNamespace(analyze_uri="/x/analyze")


def _by_formula(chip: NDArray[Any], means: Any, stds: Any, max_stds: float = 3.0) -> NDArray[np.uint8]:
    """The specification, literally."""
    with np.errstate(all="ignore"):
        z = np.clip((chip.astype(float) - means) / stds, -max_stds, max_stds)
        out = np.nan_to_num((z + max_stds) / (2 * max_stds) * 255).astype(np.uint8)
    out[chip == 0] = 0
    return out


def test_gives_the_numbers_of_0_31() -> None:
    chip = np.array([[[100], [115], [95], [130], [0], [1000]]], np.uint16)

    assert StatsTransformer([100], [10]).transform(chip).ravel().tolist() == [127, 191, 106, 255, 0, 255]
    assert StatsTransformer([100], [10]).transform(chip.astype(np.float32)).ravel()[:4].tolist() == [127, 191, 106, 255]


@given(data=st.data(), dtype=st.sampled_from([np.uint16, np.int16, np.int8, np.int32, np.float32, np.float64]))
def test_tables_and_formula_agree(data: st.DataObject, dtype: Any) -> None:
    chip = data.draw(chips(dtype=dtype, channels=2))
    means = data.draw(st.tuples(*[st.floats(-100, 30000)] * 2))
    stds = data.draw(st.tuples(*[st.floats(0.5, 3000)] * 2))
    before = chip.copy()

    out = StatsTransformer(means, stds, max_stds=2.5).transform(chip)

    np.testing.assert_array_equal(out, _by_formula(chip, means, stds, 2.5))
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(chip, before)


def test_all_values_of_16_bits_agree() -> None:
    for dtype in (np.uint16, np.int16):
        chip = np.arange(65536, dtype=np.uint16).view(dtype).reshape(256, 256, 1)
        np.testing.assert_array_equal(
            StatsTransformer([3000.5], [1234.5]).transform(chip), _by_formula(chip, 3000.5, 1234.5)
        )


def test_uint8_passes_unchanged() -> None:
    chip = numbered_image(4, 4)

    assert StatsTransformer([1], [1]).transform(chip) is chip


def test_constant_channels_and_nan_become_numbers() -> None:
    chip = np.array([[[5.0], [6.0], [np.nan], [4.0]]])

    assert StatsTransformer([5], [0]).transform(chip).ravel().tolist() == [0, 255, 0, 0]


def test_layout_of_the_chip_is_kept() -> None:
    planar = numbered_image(6, 5, dtype=np.uint16)
    time_series = np.stack([planar, planar])

    tf = StatsTransformer([1, 2, 3], [4, 5, 6])

    assert tf.transform(planar).strides == (5, 1, 30)
    np.testing.assert_array_equal(tf.transform(time_series)[1], tf.transform(planar))


def test_wrong_number_of_channels_is_named() -> None:
    with pytest.raises(ValueError, match=r"has 2 channels, but the stats_transformer has statistics of 3"):
        StatsTransformer([1, 2, 3], [1, 1, 1]).transform(np.ones((2, 2, 2), np.uint16))


def test_is_made_from_sources_stats_and_files(tmp_path: Path) -> None:
    path = write_geotiff(tmp_path / "a.tif", numbered_image(20, 30, dtype=np.uint16))
    source = RasterioSource(str(path))
    stats = RasterStats([1, 2, 3], [4, 5, 6])
    stats.save(str(tmp_path / "stats.json"))

    from_sources = StatsTransformer.from_raster_sources([source], sample_prob=None, max_stds=2)
    from_file = StatsTransformer.from_stats_json(str(tmp_path / "stats.json"), channel_order=[2, 0], max_stds=2.0)

    np.testing.assert_allclose(from_sources.means, source[:].mean(axis=(0, 1)))
    assert from_sources.max_stds == 2
    assert (from_file.means.tolist(), from_file.stds.tolist(), from_file.max_stds) == ([3, 1], [6, 4], 2)
    assert from_file.stats.to_dict() == {"means": [3, 1], "stds": [6, 4], "counts": None}
    assert "means=[3. 1.]" in repr(from_file)
    with pytest.raises(ValueError, match="empty"):
        StatsTransformer.from_raster_stats(RasterStats())


@pytest.mark.parametrize(
    ("group", "updated", "in_bundle"),
    [
        ("train_scenes", "/x/analyze/stats/train_scenes/stats.json", "/b/analyze/stats/train_scenes/stats.json"),
        ("__N/A__", "/x/analyze/stats/__N/A__/stats.json", "/b/stats.json"),
    ],
)
def test_config_finds_its_file(group: str, updated: str, in_bundle: str) -> None:
    config = StatsTransformerConfig(scene_group=group)

    config.update(PIPELINE)
    assert config.stats_uri == updated
    config.update_root("/b")
    assert config.stats_uri == in_bundle


def test_config_keeps_a_file_that_is_named() -> None:
    config = StatsTransformerConfig(stats_uri="/q/s.json")

    config.update(PIPELINE)

    assert config.stats_uri == "/q/s.json"
    assert build_config(json.loads(config.model_dump_json())) == config


@pytest.mark.parametrize(("needs", "means"), [(False, [1, 2, 3]), (True, [3, 1])])
def test_channel_order_is_applied_to_old_files_only(tmp_path: Path, needs: bool, means: list[float]) -> None:
    uri = str(tmp_path / "stats.json")
    RasterStats([1, 2, 3], [4, 5, 6]).save(uri)

    tf = StatsTransformerConfig(stats_uri=uri, needs_channel_order=needs).build(channel_order=[2, 0])

    assert tf.means.tolist() == means


def test_a_missing_file_says_to_run_analyze(tmp_path: Path) -> None:
    config = StatsTransformerConfig(stats_uri=str(tmp_path / "stats.json"))

    with pytest.raises(NotReadableError, match=r"stats_transformer: there is no .*stats\.json\. Run the analyze"):
        config.build()
    with pytest.raises(ConfigError, match="has no stats_uri"):
        StatsTransformerConfig().build()
