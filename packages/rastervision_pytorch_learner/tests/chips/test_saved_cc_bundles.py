"""Bundles for chip classification that releases 0.13 to 0.31 wrote, and what they predicted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rastervision.core.predictor import Predictor

SAVED = Path(__file__).parents[5] / "shared" / "saved"

pytestmark = pytest.mark.skipif(not SAVED.is_dir(), reason="needs bundles of releases in ../shared/saved")


def cells(path: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return centres (N, 2), scores (N, K) and class ids (N,) of stored cells."""
    features = json.loads(path.read_text())["features"]
    centres = [np.mean(f["geometry"]["coordinates"][0][:4], axis=0) for f in features]
    properties = [f["properties"] for f in features]
    return np.array(centres), *(np.array([p[name] for p in properties]) for name in ("scores", "class_id"))


@pytest.mark.parametrize(
    ("release", "by"), [("0.13.1", "predict-by-0.31.1"), ("0.21.3", "predict"), ("0.31.1", "predict")]
)
def test_cells_have_the_scores_that_the_release_gave_them(release: str, by: str, tmp_path: Path) -> None:
    folder = SAVED / release / "cc"
    predictor = Predictor(str(folder / "model-bundle.zip"), str(tmp_path / "tmp"))

    predictor.predict(str(folder / "input.tif"), str(tmp_path / "labels.json"))

    centres, scores, class_ids = cells(tmp_path / "labels.json")
    known_centres, known_scores, known_ids = cells(folder / by / "labels.json")
    distances = np.linalg.norm(centres[:, None] - known_centres, axis=-1)
    order = distances.argmin(axis=0)
    assert sorted(order) == list(range(64))
    # half a pixel of 1 m: 0.31 stored the centres of the corner pixels
    assert distances.min(axis=0).max() < 1e-5
    np.testing.assert_allclose(scores[order], known_scores, atol=1e-4)
    np.testing.assert_array_equal(class_ids[order], known_ids)
