"""Buildings on real drone imagery, from training to polygons, at the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

if TYPE_CHECKING:
    from conftest import Project

ZANZIBAR = Path(__file__).parent.parent.parent / "shared" / "data" / "zanzibar_buildings"

pytestmark = pytest.mark.skipif(not ZANZIBAR.is_dir(), reason="needs real imagery in ../shared/data")

CONFIG = """
from rastervision.core.data import *
from rastervision.core.rv_pipeline import *
from rastervision.pytorch_backend import PyTorchSemanticSegmentationConfig
from rastervision.pytorch_learner import *


def get_config(runner, root_uri, data_uri, hub_uri):
    def scene(name, bbox):
        return SceneConfig(
            id=name,
            raster_source=RasterioSourceConfig(uris=f"{data_uri}/images/{name}.tif", bbox=bbox),
            label_source=SemanticSegmentationLabelSourceConfig(
                raster_source=RasterizedSourceConfig(
                    vector_source=GeoJSONVectorSourceConfig(uris=f"{data_uri}/labels/{name}.geojson"),
                    rasterizer_config=RasterizerConfig(background_class_id=0),
                )
            ),
            label_store=SemanticSegmentationLabelStoreConfig(
                smooth_output=True, vector_output=[PolygonVectorOutputConfig(class_id=1, denoise=0)]
            ),
        )

    return SemanticSegmentationConfig(
        root_uri=root_uri,
        dataset=DatasetConfig(
            class_config=ClassConfig(names=["background", "building"]),
            train_scenes=[scene("znz_r0c1", (0, 0, 512, 1024))],
            validation_scenes=[scene("znz_r0c3", (256, 128, 700, 900))],
        ),
        chip_options=SemanticSegmentationChipOptions(sampling=WindowSamplingConfig(size=128, stride=128)),
        backend=PyTorchSemanticSegmentationConfig(
            data=SemanticSegmentationImageDataConfig(img_sz=128, num_workers=0),
            model=SemanticSegmentationModelConfig(
                external_def=ExternalModuleConfig(uri=hub_uri, name="tiny", entrypoint="tiny")
            ),
            solver=SolverConfig(lr=0.03, num_epochs=6, batch_sz=8, seed=3, one_cycle=False),
        ),
        predict_options=SemanticSegmentationPredictOptions(chip_sz=128, stride=96, crop_sz="auto"),
    )
"""


def test_buildings_from_training_to_polygons(project: Project) -> None:
    project.config.write_text(CONFIG)
    args = {"root_uri": str(project.out), "data_uri": str(ZANZIBAR), "hub_uri": str(project.data / "hub")}
    pairs = [part for key, value in args.items() for part in ("-a", key, value)]

    done = project.cli("run", "inprocess", str(project.config), *pairs)

    assert done.returncode == 0, done.stderr
    folder = project.out / "predict" / "znz_r0c3"
    with (
        rasterio.open(ZANZIBAR / "images" / "znz_r0c3.tif") as image,
        rasterio.open(folder / "labels.tif") as labels,
        rasterio.open(folder / "scores.tif") as scores,
    ):
        assert labels.crs == image.crs
        assert labels.shape == scores.shape == (444, 772)
        assert labels.transform == image.transform @ image.transform.translation(128, 256)
        found = labels.read(1)
        np.testing.assert_array_equal(scores.read().argmax(axis=0), found)
    report = json.loads((project.out / "eval" / "validation_scenes" / "eval.json").read_text())
    items = {item["class_name"]: item for item in report["overall"]}
    assert items["average"]["gt_count"] == found.size
    assert items["building"]["pred_count"] == (found == 1).sum()
    # colour alone tells roofs from the ground better than chance
    assert items["background"]["metrics"]["f1"] > 0.7
    polygons = json.loads((folder / "vector_output" / "class-1-building.json").read_text())["features"]
    assert bool(polygons) == bool((found == 1).any())
    assert (project.out / "bundle" / "model-bundle.zip").is_file()
