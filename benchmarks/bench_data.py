"""The data layer beside loops written by hand on rasterio, numpy and shapely, each family of work at three sizes.

    python benchmarks/bench_data.py [FAMILY]... [--python OTHER_ENVIRONMENT/bin/python]... [--repeat 3] [--sizes N...]

Prints speed and peak memory above that of the interpreter at the start, the exponent of growth, and a note where
results differ. Inputs are made once in the temporary folder, about 3 GB.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import inputs
import numpy as np
from harness import Clock, Family, main, warm

CHIP, READS = 256, 800
MEANS = [3000.0 + 100 * band for band in range(8)]
STDS = [1000.0 + 10 * band for band in range(8)]


def corners(size: int, n: int, chip: int = CHIP) -> list[tuple[int, int]]:
    return [tuple(c) for c in np.random.default_rng(5).integers(0, size - chip, (n, 2)).tolist()]


def box(y: int, x: int, chip: int = CHIP) -> Any:
    from rastervision.core.box import Box

    return Box(y, x, y + chip, x + chip)


def sample(chip: Any) -> int:
    return int(chip[::37, ::41].sum(dtype=np.int64))


def class_config() -> Any:
    from rastervision.core.data import ClassConfig

    return ClassConfig(names=list(inputs.CLASSES), colors=list(inputs.COLORS), null_class="null")


# -- windows of rasters --------------------------------------------------------------------------------------------


def read_ours(
    clock: Clock, size: int, bands: int = 3, order: list[int] | None = None, stats: bool = False, over: bool = False,
    shrink: bool = False,
) -> int:  # fmt: skip
    from rastervision.core.data import RasterioSource, StatsTransformer

    transformers = [StatsTransformer(MEANS, STDS)] if stats else []
    path = str(warm(inputs.raster(size, bands)))
    source = RasterioSource(path, channel_order=order, raster_transformers=transformers)
    chip = 2 * CHIP if shrink else CHIP
    windows = [box(y - (CHIP // 2 if over else 0), x if not over else -CHIP // 2, chip) for y, x in starts(size, chip)]
    source.get_chip(windows[0])
    options = {"out_shape": (CHIP, CHIP)} if shrink else {}
    total = 0
    with clock.timed():
        for window in windows:
            total += sample(source.get_chip(window, **options))
    return total


def starts(size: int, chip: int) -> list[tuple[int, int]]:
    return corners(size, READS, chip)


def read_limit(
    clock: Clock, size: int, bands: int = 3, order: list[int] | None = None, stats: bool = False, over: bool = False,
    shrink: bool = False,
) -> int:  # fmt: skip
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.windows import Window

    tables = None
    if stats:
        z = (np.clip((np.arange(65536)[:, None] - MEANS) / STDS, -3, 3) + 3) / 6
        tables = np.ascontiguousarray((z * 255).astype(np.uint8).T)
        tables[:, 0] = 0
    chip = 2 * CHIP if shrink else CHIP
    more = {"out_shape": (bands, CHIP, CHIP), "resampling": Resampling.bilinear} if shrink else {}
    indexes = [i + 1 for i in order] if order else list(range(1, bands + 1))
    total = 0
    with rasterio.open(warm(inputs.raster(size, bands))) as src:
        src.read(window=Window(0, 0, chip, chip))
        with clock.timed():
            for y, x in starts(size, chip):
                if over:
                    y0, x0 = y - CHIP // 2, -CHIP // 2
                    ys, xs = max(y0, 0), 0
                    pixels = np.zeros((bands, CHIP, CHIP), src.dtypes[0])
                    pixels[:, ys - y0 :, xs - x0 :] = src.read(
                        indexes, window=Window(xs, ys, CHIP - xs + x0, CHIP - ys + y0)
                    )
                else:
                    pixels = src.read(indexes, window=Window(x, y, chip, chip), **more)
                if tables is not None:
                    pixels = np.stack([np.take(t, p, mode="clip") for t, p in zip(tables, pixels, strict=True)])
                total += sample(pixels.transpose(1, 2, 0))
    return total


def slide_windows(size: int) -> list[tuple[int, int]]:
    """Return windows row by row, half overlapping, over the upper quarter."""
    return [(y, x) for y in range(0, size // 4, CHIP // 2) for x in range(0, size - CHIP + 1, CHIP // 2)]


def slide_ours(clock: Clock, size: int) -> int:
    from rastervision.core.data import RasterioSource

    source = RasterioSource(str(warm(inputs.raster(size, 3, "deflate"))))
    with clock.timed():
        return sum(sample(source.get_chip(box(y, x))) for y, x in slide_windows(size))


def slide_limit(clock: Clock, size: int) -> int:
    import rasterio
    from rasterio.windows import Window

    with rasterio.open(warm(inputs.raster(size, 3, "deflate"))) as src, clock.timed():
        return sum(sample(src.read(window=Window(x, y, CHIP, CHIP)).transpose(1, 2, 0)) for y, x in slide_windows(size))


# -- polygons ------------------------------------------------------------------------------------------------------

SCENE = 8192


def vectors_ours(clock: Clock, n: int) -> list[int]:
    from rastervision.core.data import (
        ClassInferenceTransformer,
        GeoJSONVectorSource,
        RasterioCRSTransformer,
        RasterizedSource,
    )

    crs = RasterioCRSTransformer.from_uri(str(inputs.raster(SCENE)))
    path, extent, total = str(inputs.polygons(n, SCENE)), box(0, 0, SCENE), 0
    with clock.timed():
        inference = ClassInferenceTransformer(default_class_id=None, class_config=class_config())
        vectors = GeoJSONVectorSource(path, crs_transformer=crs, vector_transformers=[inference])
        source = RasterizedSource(vectors, background_class_id=0, bbox=extent)
        whole = source.get_chip(extent)
        for y, x in corners(SCENE, 1000):
            total += int(source.get_chip(box(y, x))[::7, ::5].sum(dtype=np.int64))
    return [total, *np.bincount(whole.ravel(), minlength=5).tolist()]


def vectors_limit(clock: Clock, n: int) -> list[int]:
    import geopandas  # noqa: F401
    import pyogrio  # noqa: F401
    from rasterio.features import rasterize

    path, total = inputs.polygons(n, SCENE), 0
    with clock.timed():
        geoms, ids = inputs.polygons_in_pixels(path)
        whole = rasterize(zip(geoms, ids, strict=True), out_shape=(SCENE, SCENE), fill=0, dtype="uint8")
        for y, x in corners(SCENE, 1000):
            total += int(whole[y : y + CHIP, x : x + CHIP][::7, ::5].sum(dtype=np.int64))
    return [total, *np.bincount(whole.ravel(), minlength=5).tolist()]


# -- statistics ----------------------------------------------------------------------------------------------------


def analyze_ours(clock: Clock, size: int) -> list[float]:
    from rastervision.core.analyzer import StatsAnalyzer
    from rastervision.core.data import RasterioSource, Scene
    from rastervision.core.raster_stats import RasterStats

    scene = Scene("scene", RasterioSource(str(warm(inputs.raster(size, 8)))))
    with tempfile.TemporaryDirectory() as tmp:
        uri = str(Path(tmp) / "stats.json")
        with clock.timed():
            StatsAnalyzer(uri, sample_prob=None).process([scene], tmp)
        stats = RasterStats.load(uri)
    return [round(float(np.mean(stats.means)), 2), round(float(np.mean(stats.stds)), 2)]


def analyze_limit(clock: Clock, size: int) -> list[float]:
    import rasterio
    from rasterio.windows import Window

    counts, means, squares = np.zeros((3, 8))
    with rasterio.open(warm(inputs.raster(size, 8))) as src, clock.timed():
        for y in range(0, size, 256):
            for x in range(0, size, 1024):
                for band, pixels in enumerate(src.read(window=Window(x, y, 1024, 256))):
                    values = pixels[pixels != 0].astype(np.float32)
                    mean = values.mean(dtype=np.float64)
                    values -= np.float32(mean)
                    n, delta = counts[band] + values.size, mean - means[band]
                    squares[band] += float(values @ values) + delta * delta * counts[band] * values.size / n
                    means[band] += delta * values.size / n
                    counts[band] = n
    return [round(float(means.mean()), 2), round(float(np.sqrt(squares / counts).mean()), 2)]


# -- evaluation ----------------------------------------------------------------------------------------------------


def evaluate_ours(clock: Clock, size: int, aoi: bool = False) -> list[int]:
    from rastervision.core.data import (
        RasterioSource,
        Scene,
        SemanticSegmentationLabelSource,
        SemanticSegmentationLabelStore,
    )
    from rastervision.core.data.utils import get_polygons_from_uris
    from rastervision.core.evaluation import SemanticSegmentationEvaluator

    truth, predicted = inputs.label_rasters(size)
    for path in (truth, predicted / "labels.tif"):
        warm(path)
    area, classes = str(inputs.polygons(20, size, 40)), class_config()
    with tempfile.TemporaryDirectory() as tmp:
        uri = str(Path(tmp) / "eval.json")
        with clock.timed():
            image = RasterioSource(str(truth))
            scene = Scene(
                "scene",
                image,
                label_source=SemanticSegmentationLabelSource(RasterioSource(str(truth)), classes),
                label_store=SemanticSegmentationLabelStore(
                    str(predicted), image.crs_transformer, classes, bbox=image.bbox
                ),
                aoi_polygons=get_polygons_from_uris(area, image.crs_transformer) if aoi else None,
            )
            SemanticSegmentationEvaluator(classes, output_uri=uri).process([scene])
        matrix = np.array(json.loads(Path(uri).read_text())["overall"][-1]["conf_mat"])
    return [int(matrix.sum()), int(np.trace(matrix)), int(matrix[-1, -1])]


def evaluate_limit(clock: Clock, size: int, aoi: bool = False) -> list[int]:
    import geopandas  # noqa: F401
    import pyogrio  # noqa: F401
    import rasterio
    from rasterio.features import rasterize

    truth, predicted = inputs.label_rasters(size)
    for path in (truth, predicted / "labels.tif"):
        warm(path)
    area = inputs.polygons(20, size, 40)
    matrix = np.zeros((5, 5), np.int64)
    with clock.timed(), rasterio.open(truth) as t, rasterio.open(predicted / "labels.tif") as p:
        inside = None
        if aoi:
            inside = rasterize(inputs.polygons_in_pixels(area)[0], out_shape=(size, size), dtype="uint8")
        for y in range(0, size, 256):
            window = ((y, y + 256), (0, size))
            pairs = t.read(1, window=window) * np.uint8(5) + p.read(1, window=window)
            if inside is not None:
                pairs[inside[y : y + 256] == 0] = 24
            matrix += np.bincount(pairs.ravel(), minlength=25).reshape(5, 5)
    return [int(matrix.sum()), int(np.trace(matrix)), int(matrix[-1, -1])]


def matching_boxes(n: int) -> tuple[Any, Any, Any, Any]:
    rng = np.random.default_rng(9)
    truth, truth_ids, _ = inputs.boxes(n, SCENE, seed=1)
    found, ids = truth + rng.normal(0, 4, truth.shape), truth_ids.copy()
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 5)
    other, other_ids, _ = inputs.boxes(n, SCENE, seed=2)
    new = rng.random(n) < 0.2
    found[new], ids[new] = other[new], other_ids[new]
    return truth, truth_ids, found, ids


def evaluate_boxes_ours(clock: Clock, n: int) -> float:
    from rastervision.core.data import ClassConfig, ObjectDetectionLabels
    from rastervision.core.evaluation import ObjectDetectionEvaluator

    truth, truth_ids, found, ids = matching_boxes(n)
    pair = ObjectDetectionLabels(truth, truth_ids), ObjectDetectionLabels(found, ids)
    evaluator = ObjectDetectionEvaluator(ClassConfig(names=["a", "b", "c"]))  # the first config of a process: 40 ms
    with clock.timed():
        result = evaluator.evaluate_predictions(*pair)
    return round(float(result.avg_item["metrics"]["recall"]), 6)


def evaluate_boxes_limit(clock: Clock, n: int) -> float:
    import shapely

    truth, truth_ids, found, ids = matching_boxes(n)
    with clock.timed():
        tree = shapely.STRtree(shapely.box(found[:, 1], found[:, 0], found[:, 3], found[:, 2]))
        of, to = tree.query(shapely.box(truth[:, 1], truth[:, 0], truth[:, 3], truth[:, 2]))
        a, b = truth[of], found[to]
        common = (np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])).clip(0).prod(1)
        iou = common / ((a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - common)
        good = iou > 0.5
        for side in (of, to):  # the best of each box of truth, then of each prediction
            order = np.flatnonzero(good)[np.argsort(iou[good], kind="stable")]
            best = np.full(n, -1)
            best[side[order]] = order
            good = np.zeros_like(good)
            good[best[best >= 0]] = True
        right = good & (truth_ids[of] == ids[to])
        hits, counts = np.bincount(truth_ids[of[right]], minlength=3), np.bincount(truth_ids, minlength=3)
        return round(float((hits / counts * counts / n).sum()), 6)


# -- cells and boxes -----------------------------------------------------------------------------------------------

CELL = 58


def cells_ours(clock: Clock, n: int) -> list[int]:
    from rastervision.core.data import (
        ChipClassificationLabelSourceConfig,
        GeoJSONVectorSourceConfig,
        RasterioCRSTransformer,
    )

    crs = RasterioCRSTransformer.from_uri(str(inputs.raster(SCENE)))
    uri, classes = str(inputs.polygons(n, SCENE)), class_config()
    with clock.timed():
        config = ChipClassificationLabelSourceConfig(
            vector_source=GeoJSONVectorSourceConfig(uris=uri), ioa_thresh=0.1, use_intersection_over_cell=True,
            background_class_id=0, infer_cells=True, cell_sz=CELL,
        )  # fmt: skip
        labels = config.build(classes, crs, bbox=box(0, 0, SCENE)).get_labels()
    return np.bincount(labels.get_class_ids(), minlength=4).tolist()


def cells_limit(clock: Clock, n: int) -> list[int]:
    import geopandas  # noqa: F401
    import pyogrio  # noqa: F401
    import shapely

    path, ticks = inputs.polygons(n, SCENE), np.arange(0, SCENE, CELL)
    with clock.timed():
        geoms, ids = inputs.polygons_in_pixels(path)
        y, x = (grid.ravel() for grid in np.meshgrid(ticks, ticks, indexing="ij"))
        cells = shapely.box(x, y, x + CELL, y + CELL)
        cell, polygon = shapely.STRtree(geoms).query(cells, predicate="intersects")
        share = shapely.area(shapely.intersection(cells[cell], geoms[polygon])) / (CELL * CELL)
        order = np.argsort(share, kind="stable")
        order = order[share[order] >= 0.1]
        found = np.zeros(len(cells), np.int64)
        found[cell[order]] = ids[polygon[order]]
    return np.bincount(found, minlength=4).tolist()


def prune_ours(clock: Clock, n: int) -> int:
    from rastervision.core.data import ObjectDetectionLabels

    labels = ObjectDetectionLabels(*inputs.boxes(n, SCENE, 3, copies=4))
    with clock.timed():
        return len(ObjectDetectionLabels.prune_duplicates(labels, score_thresh=0.1, merge_thresh=0.5))


def prune_limit(clock: Clock, n: int) -> int:
    import torch
    from torchvision.ops import nms

    found, _, scores = inputs.boxes(n, SCENE, 3, copies=4)
    with clock.timed():
        good = scores > 0.1
        return len(nms(torch.from_numpy(found[good][:, [1, 0, 3, 2]]), torch.from_numpy(scores[good]), 0.5))


def store_ours(clock: Clock, n: int) -> list[float]:
    from rastervision.core.data import (
        ClassConfig,
        ObjectDetectionGeoJSONStore,
        ObjectDetectionLabels,
        RasterioCRSTransformer,
    )

    crs = RasterioCRSTransformer.from_uri(str(inputs.raster(SCENE)))
    labels = ObjectDetectionLabels(*inputs.boxes(n, SCENE, 3))
    with tempfile.TemporaryDirectory() as tmp:
        store = ObjectDetectionGeoJSONStore(str(Path(tmp) / "boxes.json"), ClassConfig(names=["a", "b", "c"]), crs)
        with clock.timed():
            store.save(labels)
            read = store.get_labels()
    return [len(read), round(float(read.get_npboxes().mean()))]


def store_limit(clock: Clock, n: int) -> list[float]:
    import geopandas  # noqa: F401
    import pyogrio
    import shapely
    from pyproj import Transformer

    found, ids, scores = inputs.boxes(n, SCENE, 3)
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp) / "boxes.json"
        with clock.timed():
            corner = found[:, [1, 0, 1, 2, 3, 2, 3, 0, 1, 0]].reshape(-1, 2)
            features = [
                {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
                 "properties": {"class_id": i, "class_name": "abc"[i], "score": score}}
                for ring, i, score in zip(
                    inputs.to_degrees(corner).reshape(n, 5, 2).tolist(), ids.tolist(), scores.tolist(), strict=True
                )
            ]  # fmt: skip
            path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
            geoms = pyogrio.read_dataframe(path).geometry.values
            to = Transformer.from_crs("EPSG:4326", inputs.CRS, always_xy=True)
            x, y = to.transform(*shapely.get_coordinates(geoms).T)
            pixels = np.stack([(x - inputs.WEST) / inputs.PIXEL, (inputs.NORTH - y) / inputs.PIXEL], -1)
            bounds = shapely.bounds(shapely.set_coordinates(np.array(geoms), pixels))
    return [len(bounds), round(float(bounds.mean()))]


def _with(function: Any, **options: Any) -> Any:
    return lambda clock, size: function(clock, size, **options)


def _reads(least: float, **options: Any) -> Family:
    ours, limit = _with(read_ours, **options), _with(read_limit, **options)
    return Family((2048, 4096, 8192), ours, limit, lambda _: READS, "chips", least)


RASTERS, OBJECTS = (2048, 4096, 8192), (5000, 10000, 20000)
FAMILIES = {
    "read": _reads(0.85),
    "read-16": _reads(0.85, bands=8),
    "read-16-stats": _reads(0.75, bands=8, stats=True),
    "read-subset": _reads(0.75, order=[2, 0]),
    "read-over": _reads(0.75, over=True),
    "read-shrink": _reads(0.75, shrink=True),
    "slide": Family(RASTERS, slide_ours, slide_limit, lambda n: len(slide_windows(n)), "chips", 1.0),
    "vectors": Family((1000, 10000, 50000), vectors_ours, vectors_limit, lambda n: n, "polygons", 0.7),
    "analyze": Family(RASTERS, analyze_ours, analyze_limit, lambda n: n * n / 1e6, "Mpx", 0.8),
    "evaluate": Family(RASTERS, evaluate_ours, evaluate_limit, lambda n: n * n / 1e6, "Mpx", 0.5),
    "evaluate-aoi": Family(
        RASTERS, _with(evaluate_ours, aoi=True), _with(evaluate_limit, aoi=True), lambda n: n * n / 1e6, "Mpx", 0.5
    ),
    "evaluate-boxes": Family(OBJECTS, evaluate_boxes_ours, evaluate_boxes_limit, lambda n: n, "boxes", 0.5),
    "cells": Family((2500, 5000, 10000), cells_ours, cells_limit, lambda n: n, "polygons", 0.7),
    "prune": Family(OBJECTS, prune_ours, prune_limit, lambda n: n, "boxes", 0.6),
    "store": Family((12500, 25000, 50000), store_ours, store_limit, lambda n: n, "boxes", 0.6),
}

if __name__ == "__main__":
    random.seed(0)
    main(__doc__, FAMILIES)
