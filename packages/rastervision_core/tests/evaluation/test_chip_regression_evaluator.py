from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import box

from rastervision.core.backend.backend import BackendConfig
from rastervision.core.box import Box
from rastervision.core.data import ChipRegressionLabels, ClassConfig, DatasetConfig
from rastervision.core.data.label_source.chip_regression_label_source import ChipRegressionLabelSource
from rastervision.core.data.label_store.chip_regression_geojson_store import ChipRegressionGeoJSONStore
from rastervision.core.data.raster_source import RasterioSource
from rastervision.core.data.scene import Scene
from rastervision.core.evaluation import ChipRegressionEvaluation, ChipRegressionEvaluator
from rastervision.core.evaluation.preview import write_preview
from rastervision.core.rv_pipeline import ChipRegressionConfig
from rastervision.core.rv_pipeline.summary import summarize
from rastervision.pipeline.errors import NotReadableError
from rastervision.testing import write_geotiff

CLASSES = ClassConfig(names=["height", "share"])
CELLS = Box(0, 0, 40, 40).get_windows(10, 10)


class Truth:
    """The height of a cell is its row, its share its column over 40; the share is not known in the first row."""

    def infer(self, cells: Any) -> Any:
        return np.array([[c.ymin, np.nan if c.ymin == 0 else c.xmin / 40] for c in cells], float).reshape(-1, 2)


def scene(folder: Path, scene_id: str, offset: float | None, aois: Any = ()) -> Scene:
    """Make a scene in the lower right part of an image; predictions are off by ``offset``, or missing."""
    path = write_geotiff(folder / f"{scene_id}.tif", np.full((60, 60, 3), 90, np.uint8), epsg=32618)
    image = RasterioSource(str(path), bbox=Box(20, 20, 60, 60))
    store = ChipRegressionGeoJSONStore(str(folder / f"{scene_id}.json"), CLASSES, image.crs_transformer)
    labels = ChipRegressionLabelSource(Truth(), image.crs_transformer, cell_sz=10)  # type: ignore[arg-type]
    made = Scene(scene_id, image, labels, store, aois)
    if offset is not None:
        cells = [cell.to_global_coords(image.bbox) for cell in CELLS]
        store.save(ChipRegressionLabels.from_predictions(CELLS, Truth().infer(cells) + offset))
    return made


def test_the_errors_of_scenes_are_merged(tmp_path: Path) -> None:
    evaluator = ChipRegressionEvaluator(CLASSES, str(tmp_path / "eval.json"))

    evaluator.process([scene(tmp_path, "a", 1.0), scene(tmp_path, "b", -3.0)])

    saved = json.loads((tmp_path / "eval.json").read_text())
    height, share = saved["overall"]
    assert (height["class_name"], height["gt_count"], height["gt_mean"]) == ("height", 32, 35.0)
    assert height["metrics"]["mae"] == pytest.approx(2.0)
    assert height["metrics"]["rmse"] == pytest.approx(math.sqrt(5))
    assert height["metrics"]["bias"] == pytest.approx(-1.0)
    rows = np.repeat([20, 30, 40, 50], 4)
    assert height["metrics"]["r2"] == pytest.approx(1 - 5 / rows.var())
    assert share["gt_count"] == 32
    assert saved["per_scene"]["a"][0]["metrics"]["mae"] == pytest.approx(1.0)


def test_only_cells_in_the_aois_and_with_known_targets_count(tmp_path: Path) -> None:
    evaluator = ChipRegressionEvaluator(CLASSES)

    evaluation = evaluator.evaluate_scene(scene(tmp_path, "a", 1.0, [box(20, 20, 60, 40)]))

    assert [item.count for item in evaluation.items] == [8, 8]


def test_unknown_targets_do_not_count() -> None:
    cells = Box(0, 0, 20, 20).get_windows(10, 10)
    truth = ChipRegressionLabels.from_predictions(cells, Truth().infer(cells))
    found = ChipRegressionLabels.from_predictions([*cells, Box(5, 5, 9, 9)], np.zeros((5, 2)))
    evaluation = ChipRegressionEvaluation(CLASSES)

    evaluation.compute(truth, found)

    assert [item.count for item in evaluation.items] == [4, 2]
    empty = ChipRegressionEvaluation(CLASSES)
    empty.compute(ChipRegressionLabels.make_empty(), found)
    assert empty.to_json()[0]["metrics"] == dict.fromkeys(("mae", "rmse", "bias", "r2"))  # type: ignore[index]


def test_a_missing_prediction_names_the_scene(tmp_path: Path) -> None:
    with pytest.raises(NotReadableError, match=r"scene 'a' cannot be read from .*a.json"):
        ChipRegressionEvaluator(CLASSES).process([scene(tmp_path, "a", None)])


def test_a_picture_shows_the_first_number(tmp_path: Path) -> None:
    from PIL import Image

    write_preview(scene(tmp_path, "a", 0.0), CLASSES, str(tmp_path / "a.png"))

    assert len(np.unique(np.asarray(Image.open(tmp_path / "a.png")).reshape(-1, 3), axis=0)) > 8


def test_the_summary_has_the_metrics_of_numbers(tmp_path: Path) -> None:
    config = ChipRegressionConfig(
        root_uri=str(tmp_path),
        dataset=DatasetConfig(class_config=CLASSES, train_scenes=[], validation_scenes=[]),
        backend=BackendConfig(),
    )
    config.update()
    uri = config.evaluators[0].get_output_uri("validation_scenes")
    evaluation = ChipRegressionEvaluation(CLASSES)
    evaluation.merge(ChipRegressionEvaluator(CLASSES).evaluate_scene(scene(tmp_path, "a", 1.0)), "a")
    evaluation.save(uri)

    text = summarize(config)

    assert text is not None
    lines = text.splitlines()
    assert lines[1].split() == ["class", "mae", "rmse", "bias", "r2"]
    assert lines[2].split()[:4] == ["height", "1", "1", "1"]
