from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from rastervision.core.data.class_config import ClassConfig
from rastervision.core.data.raster_transformer import (
    CastTransformer,
    CastTransformerConfig,
    MinMaxTransformer,
    MinMaxTransformerConfig,
    NanTransformer,
    NanTransformerConfig,
    RasterTransformer,
    RasterTransformerConfig,
    ReclassTransformer,
    ReclassTransformerConfig,
    RGBClassTransformer,
    RGBClassTransformerConfig,
    StatsTransformer,
)
from rastervision.core.data.raster_transformer.utils import get_transformed_dtype, get_transformed_num_channels
from rastervision.pipeline.config import build_config
from rastervision.testing import chips

CLASSES = ClassConfig(names=["a", "b"], colors=["red", "#0000ff"])


@given(chip=chips(dtype=np.uint16))
def test_min_max_stretches_each_channel(chip: NDArray[np.uint16]) -> None:
    before = chip.copy()

    out = MinMaxTransformer().transform(chip)

    assert out.dtype == np.uint8
    for i in range(chip.shape[-1]):
        low, high = int(chip[..., i].min()), int(chip[..., i].max())
        expected = (255 * (chip[..., i].astype(float) - low) / (high - low)).astype(np.uint8) if high > low else 0
        np.testing.assert_array_equal(out[..., i], expected)
    np.testing.assert_array_equal(chip, before)


def test_min_max_is_not_pixelwise() -> None:
    assert not MinMaxTransformer.pixelwise
    assert MinMaxTransformer().get_out_dtype(np.dtype(np.float32)) == np.uint8


@given(chip=chips(dtype=np.float32, nan=True), value=st.floats(-5, 5, width=32))
def test_nan_is_replaced_in_a_copy(chip: NDArray[np.float32], value: float) -> None:
    before = chip.copy()

    out = NanTransformer(value).transform(chip)

    np.testing.assert_array_equal(out, np.where(np.isnan(chip), np.float32(value), chip))
    np.testing.assert_array_equal(chip, before)


def test_nan_transformer_leaves_what_has_no_nan() -> None:
    ints, nans = np.ones((2, 2, 1), np.uint8), np.full((2, 2, 1), np.nan)

    assert NanTransformer().transform(ints) is ints
    assert np.isnan(NanTransformer(None).transform(nans)).all()
    assert NanTransformer(7).transform(nans)[0, 0, 0] == 7


def test_infinities_are_no_nan() -> None:
    chip = np.array([[[np.nan], [np.inf], [-np.inf], [2.0]]], np.float32)

    assert NanTransformer(7).transform(chip).ravel().tolist() == [7, np.inf, -np.inf, 2]
    assert MinMaxTransformer().transform(chip).ravel().tolist() == [0, 0, 0, 0]
    assert MinMaxTransformer().transform(chip[:, 1:]).ravel().tolist() == [0, 0, 0]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "tf",
    [
        CastTransformer("int32"),
        MinMaxTransformer(),
        NanTransformer(1),
        ReclassTransformer({1: 2, 2: 3}),
        RGBClassTransformer(CLASSES),
        StatsTransformer([1, 2, 3], [1, 1, 1]),
    ],
    ids=lambda tf: type(tf).__name__,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_chips_that_may_not_be_written_to_are_transformed(tf: RasterTransformer, dtype: Any, order: Any) -> None:
    chip = np.array(np.arange(48).reshape(4, 4, 3) % 7, dtype, order=order)
    before = chip.copy()
    chip.flags.writeable = False

    out = tf.transform(chip)

    np.testing.assert_array_equal(chip, before)
    np.testing.assert_array_equal(out, tf.transform(np.ascontiguousarray(chip)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.float32])
def test_reclass_replaces_all_at_once_and_leaves_its_input(dtype: Any) -> None:
    chip = np.array([[[1], [2], [3], [0]]], dtype)
    planar = np.ones((3, 5, 4), dtype).transpose(1, 2, 0)
    before = chip.copy()

    out = ReclassTransformer({1: 2, 2: 3, 70000: 9}).transform(chip)

    assert out.ravel().tolist() == [2, 3, 3, 0]
    assert out.dtype == dtype
    np.testing.assert_array_equal(chip, before)
    assert (ReclassTransformer({1: 5}).transform(planar) == 5).all()


def test_reclass_works_for_negative_values_of_small_types() -> None:
    chip = np.array([[-5, 5, -32768]], np.int16)

    assert ReclassTransformer({-5: 1, -32768: 2}).transform(chip).tolist() == [[1, 5, 2]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32])
def test_reclass_to_values_that_do_not_fit_is_refused(dtype: Any) -> None:
    with pytest.raises(ValueError, match=r"maps 1 to -300, which does not fit into uint\d+ pixels"):
        ReclassTransformer({1: -300}).transform(np.ones((1, 1, 1), dtype))


def test_cast() -> None:
    tf = CastTransformer("uint8")

    assert tf.get_out_dtype(np.dtype(float)) == np.uint8
    assert tf.transform(np.array([1.9, 255.0])).tolist() == [1, 255]
    assert tf.transform(np.array([257])).tolist() == [1]
    assert tf.transform(np.array([np.nan])).dtype == np.uint8
    assert repr(tf) == "CastTransformer(to_dtype='uint8')"


def test_cast_to_an_unknown_type_is_refused_at_once() -> None:
    with pytest.raises(ValidationError, match="'uint9' is not a numpy type"):
        CastTransformerConfig(to_dtype="uint9")


def test_rgb_becomes_class_ids_and_back() -> None:
    tf = RGBClassTransformer(CLASSES)
    chip = np.array([[[255, 0, 0], [0, 0, 255], [0, 0, 0], [1, 2, 3]]], np.uint8)

    out = tf.transform(chip)

    assert tf.null_class_id == 2
    assert out.tolist() == [[0, 1, 2, 3]]  # an unknown colour is its lowest 8 bits, as in 0.31
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(tf.class_to_rgb(out[:, :3]), chip[:, :3])
    assert (tf.get_out_channels(3), tf.get_out_dtype(np.dtype(np.uint16))) == (1, np.uint8)
    with pytest.raises(ValueError, match="needs 3 channels"):
        tf.get_out_channels(4)


def test_rgb_leaves_the_class_config_alone() -> None:
    RGBClassTransformer(CLASSES)

    assert CLASSES.names == ["a", "b"]


def test_chains_know_what_comes_out() -> None:
    chain: list[RasterTransformer] = [RGBClassTransformer(CLASSES), CastTransformer("int32")]

    assert get_transformed_num_channels(chain, 3) == 1
    assert get_transformed_dtype(chain, np.dtype(np.uint8)) == np.int32


CONFIGS: list[tuple[RasterTransformerConfig, type]] = [
    (CastTransformerConfig(to_dtype="float32"), CastTransformer),
    (MinMaxTransformerConfig(), MinMaxTransformer),
    (NanTransformerConfig(to_value=3), NanTransformer),
    (ReclassTransformerConfig(mapping={1: 2}), ReclassTransformer),
    (RGBClassTransformerConfig(class_config=CLASSES), RGBClassTransformer),
]


@pytest.mark.parametrize(("config", "entity"), CONFIGS)
def test_configs_build_and_come_back_from_json(config: RasterTransformerConfig, entity: type) -> None:
    config.update()
    config.update_root("/bundle")

    assert type(config.build([0])) is entity
    assert build_config(json.loads(config.model_dump_json())) == config


def test_the_base_config_describes_nothing_to_build() -> None:
    with pytest.raises(NotImplementedError):
        RasterTransformerConfig().build()


def test_pixelwise_ones_say_so() -> None:
    assert all(t.pixelwise for t in (CastTransformer, NanTransformer, ReclassTransformer, RGBClassTransformer))


def test_transformers_stay_cheap_to_import(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = """
import sys
import rastervision.core.analyzer.stats_analyzer
import rastervision.core.data.raster_source.rasterio_source
import rastervision.core.data.raster_transformer.stats_transformer
import rastervision.core.raster_stats
print([m for m in ("rasterio", "scipy", "pyproj", "geopandas", "PIL") if m in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)

    assert out.stdout.strip() == "[]"
