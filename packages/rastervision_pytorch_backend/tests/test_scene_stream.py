from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rastervision.core.data import ClassConfig, RasterioSource, Scene
from rastervision.core.rv_pipeline import SemanticSegmentationPredictOptions
from rastervision.pytorch_backend.scene_stream import stream_pixel_labels
from rastervision.testing import write_geotiff


class Later:
    """A result that is an array only when it is needed, as one on a GPU is."""

    def __init__(self, values: np.ndarray[Any, Any]) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return self.values


@pytest.mark.parametrize("late", [False, True])
def test_models_may_return_what_becomes_an_array(late: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (50, 70, 3), np.uint8)
    scene = Scene("a", RasterioSource(str(write_geotiff(tmp_path / "a.tif", pixels))))
    options = SemanticSegmentationPredictOptions(chip_sz=16, batch_sz=3, mask_nodata=False)

    def make_model(grid: Any, smooth: bool) -> Any:
        def model(chips: np.ndarray[Any, Any]) -> Any:
            ids = (chips[:, 0] > 100).astype(np.uint8)
            return Later(ids) if late else ids

        return model

    with caplog.at_level(logging.INFO):
        labels = stream_pixel_labels(scene, options, ClassConfig(names=["a", "b"]), make_model)
        found = labels.get_label_arr(scene.extent)

    np.testing.assert_array_equal(found, pixels[..., 0] > 100)
    assert "scene a: the model spent" in caplog.text
    assert "% of the time waiting for data" in caplog.text
