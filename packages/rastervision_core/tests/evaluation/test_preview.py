"""Pictures of scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rastervision.core.box import Box
from rastervision.core.data.label.semantic_segmentation_labels import SemanticSegmentationDiscreteLabels
from rastervision.core.data.label_store.semantic_segmentation_label_store import SemanticSegmentationLabelStoreConfig
from rastervision.core.evaluation.preview import compose, preview_uri, read_reduced, to_rgb, write_preview
from rastervision.testing.scenes import make_square_scene, square_classes


@settings(max_examples=40)
@given(height=st.integers(1, 90), width=st.integers(1, 90), max_side=st.integers(1, 100))
def test_reducing_by_window_equals_skipping_rows_of_the_whole(height: int, width: int, max_side: int) -> None:
    whole = np.arange(height * width).reshape(height, width)
    n = max(1, -(-max(height, width) // max_side))
    reduced = read_reduced(Box(0, 0, height, width), lambda w, k: whole[w.to_slices()][::k, ::k], max_side)
    np.testing.assert_array_equal(reduced, whole[::n, ::n])
    assert max(reduced.shape) <= max_side


def test_large_scenes_are_read_in_small_windows() -> None:
    sizes = []

    def read(window: Box, n: int) -> np.ndarray:
        sizes.append(window.area)
        return np.zeros((-(-window.height // n), -(-window.width // n)))

    assert read_reduced(Box(0, 0, 20000, 30000), read).shape == (667, 1000)
    assert max(sizes) <= 2048**2


def test_eight_bit_images_are_shown_as_they_are() -> None:
    image = np.random.default_rng(0).integers(0, 255, (5, 6, 4), dtype=np.uint8)
    np.testing.assert_array_equal(to_rgb(image), image[..., :3])
    assert to_rgb(image[..., :1]).shape == (5, 6, 3)
    assert (to_rgb(image[..., :2])[..., 2] == 0).all()
    np.testing.assert_array_equal(to_rgb(np.stack([image, image + 1])), image[..., :3])


def test_other_images_are_stretched_without_their_nodata() -> None:
    image = np.linspace(1000, 3000, 10000).reshape(100, 100, 1).astype(np.float32)
    image[0] = 0
    image[1] = np.nan
    rgb = to_rgb(image)
    assert (rgb[0] == 0).all()
    assert rgb.max() == 255
    assert 100 < np.median(rgb) < 155
    assert (to_rgb(np.zeros((4, 4, 3), np.uint16)) == 0).all()


@pytest.mark.parametrize("size", [(96, 128), (1500, 700)])
def test_the_picture_shows_image_labels_and_prediction(tmp_path: Path, size: tuple[int, int]) -> None:
    from PIL import Image

    config = make_square_scene(tmp_path, size=size)
    config.label_store = SemanticSegmentationLabelStoreConfig(uri=str(tmp_path / "predict"))
    scene = config.build(square_classes())
    labels = SemanticSegmentationDiscreteLabels.make_empty(scene.extent, 3)
    labels[scene.extent] = np.full(size, 2, np.uint8)
    assert scene.label_store is not None
    scene.label_store.save(labels)
    uri = preview_uri(str(tmp_path / "eval/"), scene.id)

    write_preview(scene, square_classes(), uri)

    assert uri == str(tmp_path / "eval/scene.png")
    picture = np.array(Image.open(uri))
    height, width = picture.shape[:2]
    side = (width - 4 * 12) // 3
    assert 256 <= side <= 1024
    middle = [picture[height // 2, 12 + i * (side + 12) + side // 2] for i in range(3)]
    assert abs(middle[0].astype(int) - 200).max() <= 20
    np.testing.assert_array_equal(middle[1], (255, 165, 0))
    np.testing.assert_array_equal(middle[2], (0, 0, 0))


def test_long_legends_are_wrapped() -> None:
    panel = np.zeros((400, 400, 3), np.uint8)
    short = compose("t", [("image", panel)], [("a", [0, 0, 0])])
    long = compose("t", [("image", panel)], [(f"a rather long name {i}", [0, 0, 0]) for i in range(12)])
    assert long.width == short.width
    assert long.height > short.height
