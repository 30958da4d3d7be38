"""Scenes made in one call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rastervision.core.box import Box
from rastervision.core.data.class_config import ClassConfig
from rastervision.core.data.utils.factory import make_ss_scene
from rastervision.pipeline.errors import ConfigError
from rastervision.testing.scenes import make_square_scene, square_classes, square_labels, write_polygons

SQUARE = Box(24, 32, 72, 96)
EXPECTED = square_labels((96, 128), [SQUARE])


@pytest.fixture
def image(tmp_path: Path) -> str:
    make_square_scene(tmp_path, squares=[SQUARE], labels="raster")
    return str(tmp_path / "scene.tif")


def test_an_image_alone(image: str) -> None:
    scene = make_ss_scene(image)
    x, y = scene[:10, :10]
    assert x.shape == (10, 10, 3)
    assert y is None
    assert scene.aoi_polygons == []
    assert scene.id != make_ss_scene(image).id


def test_raster_labels(image: str) -> None:
    scene = make_ss_scene(image, image.replace(".tif", "-labels.tif"), class_config=square_classes(), scene_id="lake")
    np.testing.assert_array_equal(scene[:, :][1], EXPECTED)
    assert scene.id == "lake"


def test_vector_labels(image: str, tmp_path: Path) -> None:
    labels = str(write_polygons(tmp_path / "l.json", image, [SQUARE]))
    classes = ClassConfig(names=["background", "square"])

    def make(**kwargs: object) -> np.ndarray:
        scene = make_ss_scene(
            image,
            class_config=classes,
            label_vector_uri=labels,
            label_vector_default_class_id=1,
            **kwargs,  # type: ignore[arg-type]
        )
        y: np.ndarray = scene[:, :][1]
        return y

    np.testing.assert_array_equal(make(), np.where(EXPECTED == 1, 1, 2))
    assert classes.names == ["background", "square", "null"]
    np.testing.assert_array_equal(make(label_raster_source_kw={"background_class_id": 0}), EXPECTED)


def test_aoi_and_image_options(image: str, tmp_path: Path) -> None:
    aoi = str(write_polygons(tmp_path / "aoi.json", image, [Box(0, 0, 50, 40)]))
    scene = make_ss_scene(image, aoi_uri=aoi, image_raster_source_kw={"channel_order": [2, 0]})
    assert scene.raster_source.num_channels == 2
    assert scene.aoi_polygons[0].bounds == pytest.approx((0, 0, 40, 50))
    assert len(make_ss_scene(image, aoi_uri=[aoi, aoi]).aoi_polygons) == 2


def test_says_what_does_not_go_together(image: str) -> None:
    with pytest.raises(ConfigError, match="not both"):
        make_ss_scene(image, image, square_classes(), label_vector_uri=image)
    with pytest.raises(ConfigError, match="Give class_config"):
        make_ss_scene(image, image)
