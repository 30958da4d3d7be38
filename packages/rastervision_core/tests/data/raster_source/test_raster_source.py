from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from rastervision.core.box import Box
from rastervision.core.data.class_config import ClassConfig
from rastervision.core.data.crs_transformer import CRSTransformer, IdentityCRSTransformer
from rastervision.core.data.raster_source import (
    ChannelOrderError,
    RasterioSourceConfig,
    RasterSource,
    RasterSourceConfig,
)
from rastervision.core.data.raster_transformer import CastTransformer, RGBClassTransformer
from rastervision.pipeline.config import ConfigError
from rastervision.testing import numbered_image
from rastervision.testing.contracts import RasterSourceContract


class ArraySource(RasterSource):
    """The smallest raster source that a plugin could have: an array in memory."""

    def __init__(self, image: Any, channel_order: Any = None, raster_transformers: Any = (), bbox: Any = None) -> None:
        self.image = image
        super().__init__(
            channel_order=channel_order,
            num_channels_raw=image.shape[2],
            dtype_raw=image.dtype,
            bbox=bbox or Box(0, 0, *image.shape[:2]),
            raster_transformers=raster_transformers,
        )

    @property
    def crs_transformer(self) -> CRSTransformer:
        return IdentityCRSTransformer()

    def _get_chip(self, window: Box, out_shape: tuple[int, int] | None = None) -> Any:
        window = window.to_global_coords(self.bbox)
        chip = np.zeros((*window.size, self.image.shape[2]), self.image.dtype)
        inner = window.intersection(self.bbox).intersection(Box(0, 0, *self.image.shape[:2]))
        if inner.area:
            chip[inner.to_local_coords(window).to_slices()] = self.image[inner.to_slices()]
        return self.resize(chip, out_shape)


class TestArraySource(RasterSourceContract):
    @pytest.fixture
    def image(self) -> Any:
        return numbered_image(20, 30, 4, dtype=np.uint16)

    @pytest.fixture
    def make_source(self, image: Any) -> Any:
        return lambda **kwargs: ArraySource(image, **kwargs)


def test_defaults_are_those_of_a_source_that_promises_nothing() -> None:
    source = ArraySource(numbered_image(8, 8))

    assert not source.is_pixelwise
    assert source.get_valid_mask(Box(0, 0, 4, 4)) is None
    source.set_bbox(Box(1, 1, 5, 6))
    assert source.shape == (4, 5, 3)


def test_what_lies_beyond_the_extent_has_no_data() -> None:
    source = ArraySource(numbered_image(8, 8), bbox=Box(2, 3, 6, 8))

    mask = source.get_valid_mask(Box(-1, 2, 3, 7))
    outside = source.get_valid_mask(Box(50, 50, 52, 53))

    assert mask is not None
    assert mask.astype(int).tolist() == [[0] * 5, [1, 1, 1, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]
    assert outside is not None
    assert outside.shape == (2, 3)
    assert not outside.any()


def test_class_images_keep_a_channel_axis() -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    image[1, 1] = 255, 0, 0
    tf = RGBClassTransformer(ClassConfig(names=["null", "a"], colors=["black", "red"]))

    source = ArraySource(image, raster_transformers=[tf])

    assert source.shape == (4, 5, 1)
    assert source[:].shape == (4, 5, 1)
    assert source[1:2, 1:2].item() == 1


def test_channel_order_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(ChannelOrderError([0, -1], 3, "a.tif")))

    assert (error.channel_order, error.num_channels_raw, error.uri) == ([0, -1], 3, "a.tif")
    assert "asks for channel -1, but a.tif has 3 channels (0 to 2)" in str(error)
    assert isinstance(error, ConfigError)


def test_dtype_goes_through_the_transformers() -> None:
    source = ArraySource(numbered_image(8, 8), raster_transformers=[CastTransformer("int16"), CastTransformer("f4")])

    assert source.dtype == source[:].dtype == np.float32
    assert source.dtype_raw == np.uint8


def test_the_base_config_describes_nothing_to_build() -> None:
    with pytest.raises(NotImplementedError):
        RasterSourceConfig().build()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"uris": []}, "uris is empty"),
        ({"uris": ["a", ""]}, "uris is empty"),
        ({"uris": "a", "bbox": (5, 0, 5, 9)}, "has no area"),
        ({"uris": "a", "chanel_order": [0]}, "chanel_order"),
    ],
)
def test_bad_configs_are_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RasterioSourceConfig(**kwargs)
