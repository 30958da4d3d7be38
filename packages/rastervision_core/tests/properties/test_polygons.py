"""Polygons become pixels and pixels polygons, without loss where they are made of whole pixels."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from shapely.geometry import Polygon

from rastervision.core.box import Box
from rastervision.core.data import (
    ClassConfig,
    ClassInferenceTransformerConfig,
    GeoJSONVectorSourceConfig,
    IdentityCRSTransformer,
    PolygonVectorOutputConfig,
    RasterioCRSTransformer,
    RasterizedSourceConfig,
    RasterizerConfig,
    SemanticSegmentationDiscreteLabels,
    SemanticSegmentationLabelStore,
)
from rastervision.core.data.utils.vectorization import mask_to_polygons
from rastervision.testing import class_arrays, georeferences, write_geojson

CELL = 12  # shapes lie apart, each in a cell of its own
EXTENT = Box(0, 0, 3 * CELL, 4 * CELL)


@st.composite
def aligned_polygons(draw: st.DrawFn) -> list[Polygon]:
    """Polygons with corners at pixel corners that do not touch: rectangles, some with a bite or with a hole."""
    polygons = []
    for cell in EXTENT.get_windows(CELL, CELL):
        y, x = cell.ymin + 1, cell.xmin + 1
        kind = draw(st.sampled_from(["none", "whole", "bitten", "holed"]))
        height, width = draw(st.integers(3, CELL - 2)), draw(st.integers(3, CELL - 2))
        whole = shapely.box(x, y, x + width, y + height)
        if kind == "bitten":
            whole = whole - shapely.box(x, y, x + draw(st.integers(1, width - 1)), y + draw(st.integers(1, height - 1)))
        elif kind == "holed":
            whole = whole - shapely.box(x + 1, y + 1, x + width - 1, y + height - 1)
        if kind != "none":
            polygons.append(whole)
    return polygons


def as_set(polygons: Any) -> set[str]:
    return {p.normalize().wkt for p in shapely.set_precision(np.array(list(polygons), object), 1e-6)}


def burn(path: Path, crs_transformer: Any) -> NDArray[np.uint8]:
    """Return the pixels of the polygons of a file, all of class 1, as a label source does."""
    config = RasterizedSourceConfig(
        vector_source=GeoJSONVectorSourceConfig(
            uris=str(path), transformers=[ClassInferenceTransformerConfig(default_class_id=1)]
        ),
        rasterizer_config=RasterizerConfig(background_class_id=0),
    )
    source = config.build(ClassConfig(names=["a", "b", "null"]), crs_transformer, EXTENT)
    return source.get_chip(source.extent)[..., 0]


@settings(max_examples=50)
@given(polygons=aligned_polygons())
def test_polygons_of_whole_pixels_come_back(polygons: list[Polygon]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write_geojson(Path(folder, "a.json"), polygons)
        mask = burn(path, IdentityCRSTransformer())

    assert mask.sum() == sum(p.area for p in polygons)
    assert as_set(mask_to_polygons(mask)) == as_set(polygons)


@settings(max_examples=25)
@given(frame=georeferences(), arr=class_arrays(2, max_size=24))
def test_predictions_that_are_stored_as_polygons_come_back_as_labels(frame: tuple[Affine, str], arr: Any) -> None:
    label_arr = np.zeros(EXTENT.size, np.uint8)
    label_arr[: arr.shape[0], : arr.shape[1]] = arr
    labels = SemanticSegmentationDiscreteLabels.make_empty(EXTENT, 3)
    labels.add_window(EXTENT, label_arr)
    transformer = RasterioCRSTransformer(*frame)

    with tempfile.TemporaryDirectory() as folder:
        store = SemanticSegmentationLabelStore(
            folder,
            transformer,
            ClassConfig(names=["a", "b", "null"]),
            vector_outputs=[PolygonVectorOutputConfig(class_id=1, denoise=0)],
        )
        store.save(labels)
        burnt = burn(Path(folder, "vector_output", "class-1-b.json"), transformer)

    np.testing.assert_array_equal(burnt, label_arr)
