"""The contract of label sources, on those of all tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shapely.geometry import box

from rastervision.core.box import Box
from rastervision.core.data import (
    ChipClassificationLabelSourceConfig,
    ChipRegressionLabelSourceConfig,
    ClassConfig,
    GeoJSONVectorSourceConfig,
    IdentityCRSTransformer,
    ObjectDetectionLabelSourceConfig,
    RasterioSourceConfig,
    RasterizedSourceConfig,
    RasterizerConfig,
    SemanticSegmentationLabelSourceConfig,
)
from rastervision.testing import write_geojson, write_geotiff
from rastervision.testing.contracts import LabelSourceContract

SCENE = Box(0, 0, 32, 32)
CLASSES = ClassConfig(names=["background", "a", "b", "null"])
# polygons that are at home in the cells of a 4 x 4 grid, in the pixels of the image
GEOMS = [box(0, 0, 4, 4), box(8, 4, 12, 8), box(12, 8, 20, 16), box(24, 24, 32, 32)]
CLASS_IDS = [1, 2, 1, 2]


def vectors(folder: Path, geoms: Any = GEOMS, class_ids: Any = CLASS_IDS) -> GeoJSONVectorSourceConfig:
    path = write_geojson(folder / f"{len(geoms)}.json", geoms, [{"class_id": i} for i in class_ids])
    return GeoJSONVectorSourceConfig(uris=str(path))


def label_arr() -> Any:
    arr = np.zeros((32, 32), np.uint8)
    for geom, class_id in zip(GEOMS, CLASS_IDS, strict=True):
        arr[Box.from_shapely(geom).to_int().to_slices()] = class_id
    return arr


class _Contract(LabelSourceContract):
    def config(self, folder: Path, empty: bool = False) -> Any:
        raise NotImplementedError

    nothing: Any = None

    @pytest.fixture
    def make_source(self, tmp_path: Path) -> Any:
        config = self.config(tmp_path)
        return lambda bbox=None: config.build(CLASSES, IdentityCRSTransformer(), bbox or SCENE)

    @pytest.fixture
    def make_empty_source(self, tmp_path: Path) -> Any:
        config = self.config(tmp_path, empty=True)
        return lambda: (config.build(CLASSES, IdentityCRSTransformer(), SCENE), self.nothing)


class TestSegmentationOfVectors(_Contract):
    nothing = np.zeros((4, 4), np.uint8)

    def config(self, folder: Path, empty: bool = False) -> Any:
        source = vectors(folder, [], []) if empty else vectors(folder)
        return SemanticSegmentationLabelSourceConfig(
            raster_source=RasterizedSourceConfig(
                vector_source=source, rasterizer_config=RasterizerConfig(background_class_id=0)
            )
        )

    @pytest.fixture
    def known(self) -> Any:
        padded = np.pad(label_arr(), 8, constant_values=3)  # null beyond the scene
        windows = [Box(0, 0, 8, 8), Box(4, 8, 16, 16), SCENE, Box(-3, -4, 5, 6), Box(28, 30, 37, 40), Box(0, -8, 4, 0)]
        return [(w, padded[w.translate(8, 8).to_slices()]) for w in windows]


class TestSegmentationOfRaster(TestSegmentationOfVectors):
    def config(self, folder: Path, empty: bool = False) -> Any:
        arr = np.zeros((32, 32), np.uint8) if empty else label_arr()
        path = write_geotiff(folder / f"labels-{empty}.tif", arr)
        return SemanticSegmentationLabelSourceConfig(raster_source=RasterioSourceConfig(uris=str(path)))


class TestCellsThatAreInferred(_Contract):
    nothing = 0

    def config(self, folder: Path, empty: bool = False) -> Any:
        source = vectors(folder, [], []) if empty else vectors(folder)
        return ChipClassificationLabelSourceConfig(
            vector_source=source, infer_cells=True, background_class_id=0, cell_sz=4, ioa_thresh=0.2
        )

    @pytest.fixture
    def known(self) -> Any:
        return [
            (Box(0, 0, 4, 4), 1),
            (Box(4, 8, 8, 12), 2),
            (Box(8, 12, 12, 16), 1),
            (Box(16, 8, 20, 12), 0),
            (Box(28, 28, 32, 32), 2),
        ]


class TestCellsThatAreInferredWhenAskedFor(TestCellsThatAreInferred):
    def config(self, folder: Path, empty: bool = False) -> Any:
        config = super().config(folder, empty)
        config.lazy = True
        return config


class TestCellsThatAreGiven(_Contract):
    def config(self, folder: Path, empty: bool = False) -> Any:
        return ChipClassificationLabelSourceConfig(vector_source=vectors(folder))

    @pytest.fixture
    def known(self) -> Any:
        return [(Box.from_shapely(g).to_int(), i) for g, i in zip(GEOMS, CLASS_IDS, strict=True)]

    @pytest.fixture
    def make_empty_source(self) -> Any:
        pytest.skip("cells that are given have no class where there are none")


class TestNumbersOfVectors(_Contract):
    nothing = np.array([0.0, np.nan, 0.0, 0.0])

    def config(self, folder: Path, empty: bool = False) -> Any:
        return ChipRegressionLabelSourceConfig(
            vector_source=vectors(folder, [], []) if empty else vectors(folder),
            aggregations={"background": "count", "b": "sum", "null": "coverage"},
            properties={"a": "class_id", "b": "class_id"},
            cell_sz=8,
        )

    @pytest.fixture
    def known(self) -> Any:
        # count of polygons, mean and sum of their class ids, covered share
        return [
            (Box(0, 0, 4, 4), np.array([1, 1, 1, 1.0])),
            (Box(0, 0, 8, 8), np.array([1, 1, 1, 0.25])),
            (Box(4, 8, 12, 16), np.array([1.25, 2 * 16 / 32 + 16 / 32, 2.25, 0.5])),
            (Box(16, 8, 20, 12), np.array([0, np.nan, 0, 0])),
            (Box(28, 28, 36, 36), np.array([0.25, 2, 0.5, 0.25])),
        ]


class TestNumbersOfRaster(_Contract):
    nothing = np.array([0.0, 0, -1, 0])

    def config(self, folder: Path, empty: bool = False) -> Any:
        arr = (np.zeros((32, 32)) if empty else label_arr()).astype(np.float32)
        path = write_geotiff(folder / f"numbers-{empty}.tif", np.stack([arr, arr * 2, arr - 1, -arr], axis=-1))
        return ChipRegressionLabelSourceConfig(raster_source=RasterioSourceConfig(uris=str(path)), cell_sz=8)

    @pytest.fixture
    def known(self) -> Any:
        means = [(Box(0, 0, 8, 8), 0.25), (Box(4, 8, 12, 16), 1.5 / 2), (Box(28, 28, 36, 36), 2.0)]
        return [(window, np.array([m, 2 * m, m - 1, -m])) for window, m in means]


class TestBoxes(_Contract):
    nothing = (np.zeros((0, 4)), np.zeros(0, int), "yxyx")

    def config(self, folder: Path, empty: bool = False) -> Any:
        source = vectors(folder, [], []) if empty else vectors(folder)
        return ObjectDetectionLabelSourceConfig(vector_source=source)

    @pytest.fixture
    def known(self) -> Any:
        return [
            (Box(0, 0, 4, 4), (np.array([[0.0, 0, 4, 4]]), np.array([1]), "yxyx")),
            (Box(4, 8, 16, 20), (np.array([[0.0, 0, 4, 4], [4, 4, 12, 12]]), np.array([2, 1]), "yxyx")),
            (Box(10, 10, 18, 18), (np.array([[-2.0, 2, 6, 10]]), np.array([1]), "yxyx")),
            (Box(20, 0, 24, 4), self.nothing),
            (Box(-8, -8, 2, 2), (np.array([[8.0, 8, 12, 12]]), np.array([1]), "yxyx")),
        ]
