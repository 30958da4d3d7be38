from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely.affinity
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from shapely.geometry import Point, Polygon, box

from rastervision.core.box import Box
from rastervision.core.data import (
    ChipClassificationLabels,
    ChipClassificationLabelSource,
    ChipClassificationLabelSourceConfig,
    ClassConfig,
    GeoJSONVectorSourceConfig,
    IdentityCRSTransformer,
)
from rastervision.core.data.label_source import infer_cells, read_labels
from rastervision.pipeline.config import ConfigError, build_config
from rastervision.testing import write_geojson

CLASSES = ClassConfig(names=["background", "a", "b"])
EXTENT = Box(0, 0, 12, 12)


def config_of(path: Path, geoms: Any, class_ids: list[int], **kwargs: Any) -> ChipClassificationLabelSourceConfig:
    write_geojson(path, geoms, [{"class_id": i} for i in class_ids])
    return ChipClassificationLabelSourceConfig(vector_source=GeoJSONVectorSourceConfig(uris=str(path)), **kwargs)


def built(config: ChipClassificationLabelSourceConfig, bbox: Box = EXTENT) -> ChipClassificationLabelSource:
    return config.build(CLASSES, IdentityCRSTransformer(), bbox)


@pytest.fixture
def inferring(tmp_path: Path) -> ChipClassificationLabelSourceConfig:
    geoms = [box(1, 1, 3, 3), box(2, 5, 7, 7), box(9, 9, 10, 10)]
    return config_of(tmp_path / "a.json", geoms, [1, 2, 1], infer_cells=True, background_class_id=0, cell_sz=4)


def test_infers_a_grid_of_cells(inferring: ChipClassificationLabelSourceConfig) -> None:
    source = built(inferring)

    labels = source.get_labels()

    # the second polygon lies with 2/5 in one cell, which is not enough, and with 3/5 in the next
    assert labels.get_cells() == [Box(y, x, y + 4, x + 4) for y in (0, 4, 8) for x in (0, 4, 8)]
    assert np.array(labels.get_class_ids()).reshape(3, 3).tolist() == [[1, 0, 0], [0, 2, 0], [0, 0, 1]]
    assert source[Box(4, 4, 8, 8)] == 2
    assert source[0:4, 0:4] == 1


def test_windows_that_are_no_cells_are_inferred(inferring: ChipClassificationLabelSourceConfig) -> None:
    source = built(inferring)

    assert source[Box(4, 2, 8, 8)] == 2
    assert source.get_labels(Box(4, 2, 8, 8)).get_cells() == [Box(4, 2, 8, 8)]


def test_cells_are_in_pixels_of_the_image(inferring: ChipClassificationLabelSourceConfig) -> None:
    source = built(inferring, Box(4, 4, 12, 12))

    assert source.get_labels().get_cells()[0] == Box(4, 4, 8, 8)
    assert source[Box(0, 0, 4, 4)] == 2
    source.set_bbox(Box(0, 0, 4, 4))
    assert source.get_labels().get_cells() == [Box(0, 0, 4, 4)]
    assert source[Box(0, 0, 4, 4)] == 1


def test_lazy_sources_infer_what_is_asked_for(inferring: ChipClassificationLabelSourceConfig) -> None:
    inferring.lazy = True
    inferring.cell_sz = None
    source = built(inferring)

    assert len(source.labels) == 0
    assert source[Box(0, 0, 4, 4)] == 1
    # random windows never come again: to keep each would fill the memory
    assert len(source.labels) == 0
    source.populate_labels([Box(0, 0, 4, 4)])
    assert source.labels.get_cells() == [Box(0, 0, 4, 4)]
    with pytest.raises(ConfigError, match="cell_sz of chip_classification_label_source is not set"):
        source.get_labels()


def test_share_of_the_cell_instead_of_the_polygon(inferring: ChipClassificationLabelSourceConfig) -> None:
    inferring.use_intersection_over_cell = True
    inferring.ioa_thresh = 0.2

    ids = built(inferring).get_labels().get_class_ids()

    assert np.array(ids).reshape(3, 3).tolist() == [[1, 0, 0], [2, 2, 0], [0, 0, 0]]


def test_of_several_polygons_the_greatest_share_or_the_least_id(tmp_path: Path) -> None:
    geoms = [box(0, 0, 4, 4), box(3, 0, 5, 4)]
    config = config_of(tmp_path / "a.json", geoms, [2, 1], infer_cells=True, background_class_id=0, cell_sz=4)

    assert built(config)[Box(0, 0, 4, 4)] == 2
    config.pick_min_class_id = True
    assert built(config)[Box(0, 0, 4, 4)] == 1
    config.ioa_thresh = 0.6
    # the polygon that does not count competes as background, as in 0.31
    assert built(config)[Box(0, 0, 4, 4)] == 0


def test_polygons_can_be_the_cells(tmp_path: Path) -> None:
    source = built(config_of(tmp_path / "a.json", [box(0, 0, 4, 4), box(4, 0, 9, 4), box(30, 30, 34, 34)], [1, 2, 1]))

    assert source.get_labels().get_cells() == [Box(0, 0, 4, 4), Box(0, 4, 4, 9)]
    assert source.get_labels().get_class_ids() == [1, 2]
    assert source[Box(0, 5, 4, 9)] == 2
    with pytest.raises(ConfigError, match=r"cell Box\(.*\) has no labels that count, and background_class_id is not"):
        source[Box(8, 8, 12, 12)]


def test_labels_of_data_frames(tmp_path: Path) -> None:
    source = built(config_of(tmp_path / "a.json", [box(0, 0, 4, 4), Point(6, 6)], [1, 2]))
    df = source.labels_df

    source.validate_labels(df)
    assert read_labels(df, EXTENT) == source.labels
    cells = [Box(0, 0, 4, 4), Box(4, 4, 8, 8)]
    assert infer_cells(cells, df, 0.5, False, False, 0).get_class_ids() == [1, 2]
    with pytest.raises(ConfigError, match="without the property class_id"):
        source.validate_labels(df.drop(columns="class_id"))


@given(seed=st.integers(0, 10_000), pick_min=st.booleans(), over_cell=st.booleans(), thresh=st.sampled_from([0, 0.3]))
def test_inference_equals_the_plain_algorithm(seed: int, pick_min: bool, over_cell: bool, thresh: float) -> None:
    from geopandas import GeoDataFrame

    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 10, (6, 2))
    polygons = [box(x, y, x + w, y + h) for (x, y), (w, h) in zip(corners, rng.integers(1, 6, (6, 2)), strict=True)]
    df = GeoDataFrame({"class_id": rng.integers(1, 4, 6)}, geometry=polygons)
    cells = Box(0, 0, 12, 12).get_windows(4, 4)

    labels = infer_cells(cells, df, thresh, over_cell, pick_min, 0)

    for cell in cells:
        area = cell.to_shapely()
        found = []
        for i, polygon in enumerate(polygons):
            if polygon.intersects(area):
                ratio = polygon.intersection(area).area / (area.area if over_cell else polygon.area)
                found.append((ratio, i, int(df["class_id"][i]) if ratio >= thresh else 0))
        best = max(found, key=lambda f: (f[0], -f[1]), default=(0, 0, 0))[2]
        expected = min((f[2] for f in found), default=0) if pick_min else best
        assert labels.get_cell_class_id(cell) == expected


def test_values_that_were_checked_on_0_31(tmp_path: Path) -> None:
    geoms = [box(0, 0, 2, 4), box(3, 0, 5, 4), box(8, 0, 9, 1)]
    config = config_of(tmp_path / "a.json", geoms, [1, 2, 1], infer_cells=True, background_class_id=0, cell_sz=4)

    # shares are 1 and 1/2 of the polygons; the third lies elsewhere, and the last row of cells has none
    ids = np.array(built(config).get_labels().get_class_ids()).reshape(3, 3)
    assert ids.tolist() == [[1, 2, 1], [0, 0, 0], [0, 0, 0]]
    config.ioa_thresh = 0.51
    assert np.array(built(config).get_labels().get_class_ids())[:3].tolist() == [1, 0, 1]
    # the second polygon does not count in the first cell, and stands for the background, which has the least id
    config.pick_min_class_id = True
    assert np.array(built(config).get_labels().get_class_ids())[:3].tolist() == [0, 0, 1]


def test_a_polygon_that_lies_in_a_cell_has_the_share_1(tmp_path: Path) -> None:
    triangle = Polygon([(0.1, 0.1), (3.7, 0.3), (1.3, 3.9)])
    geoms = [triangle, shapely.affinity.translate(triangle, 0.05, 0.02)]
    config = config_of(tmp_path / "a.json", geoms, [2, 1], infer_cells=True, background_class_id=0, cell_sz=4)
    config.ioa_thresh = 1.0

    # of equal shares the first in the file counts
    assert built(config)[Box(0, 0, 4, 4)] == 2


def test_polygons_that_touch_a_cell_have_the_share_0(tmp_path: Path) -> None:
    config = config_of(tmp_path / "a.json", [box(4, 0, 8, 4)], [2], infer_cells=True, background_class_id=0, cell_sz=4)

    assert built(config)[Box(0, 0, 4, 4)] == 0
    config.ioa_thresh = 0.0
    assert built(config)[Box(0, 0, 4, 4)] == 2
    assert built(config)[Box(8, 8, 12, 12)] == 0


def test_many_cells_at_once_equal_one_after_the_other(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 200, (60, 2))
    geoms = [Point(x, y).buffer(r, quad_segs=2) for (x, y), r in zip(centres, rng.uniform(2, 30, 60), strict=True)]
    ids = rng.integers(1, 3, 60).tolist()
    config = config_of(tmp_path / "a.json", geoms, ids, infer_cells=True, background_class_id=0, cell_sz=17)
    config.ioa_thresh = 0.1
    source = built(config, Box(10, 20, 190, 200))

    labels = source.get_labels()

    assert set(labels.get_class_ids()) == {0, 1, 2}
    for cell, class_id in zip(labels.get_cells(), labels.get_class_ids(), strict=True):
        source.labels = ChipClassificationLabels()
        assert source[cell.to_local_coords(source.bbox)] == class_id


# -- config --------------------------------------------------------------------------------------------------------


def test_config_checks_its_fields() -> None:
    with pytest.raises(ValidationError, match="infer_cells needs background_class_id"):
        ChipClassificationLabelSourceConfig(infer_cells=True)
    with pytest.raises(ConfigError, match="vector_source of chip_classification_label_source is not set"):
        built(ChipClassificationLabelSourceConfig())
    config = ChipClassificationLabelSourceConfig(
        vector_source=GeoJSONVectorSourceConfig(uris="a.json"), infer_cells=True, background_class_id=3
    )
    with pytest.raises(ConfigError, match="background_class_id has class id 3, but there are 3 classes"):
        built(config)


def test_config_adds_steps_to_a_copy() -> None:
    vectors = GeoJSONVectorSourceConfig(uris="a.json")
    config = ChipClassificationLabelSourceConfig(vector_source=vectors)

    assert vectors.transformers == []
    assert config.vector_source is not None
    assert len(config.vector_source.transformers) == 3
    assert build_config(json.loads(config.model_dump_json())) == config
