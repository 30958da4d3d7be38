"""Rasters, polygons and boxes for the benchmarks: made once, from fixed seeds, in the temporary folder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from harness import CACHE
from numpy.typing import NDArray

CRS, WEST, NORTH, PIXEL = "EPSG:32618", 500000.0, 4500000.0, 0.5
CLASSES, COLORS = ["background", "a", "b", "c", "null"], ["gray", "red", "blue", "green", "black"]
BLOCK = 256


def profile(size: int, count: int, dtype: str, **more: Any) -> dict[str, Any]:
    from rasterio.transform import from_origin

    return {
        "driver": "GTiff", "height": size, "width": size, "count": count, "dtype": dtype, "crs": CRS,
        "transform": from_origin(WEST, NORTH, PIXEL, PIXEL), "tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK,
        "interleave": "pixel", **more,
    }  # fmt: skip


def raster(size: int, bands: int = 3, compress: str | None = None) -> Path:
    """Return a raster of smooth fields and a little noise: uint8 with 3 bands, uint16 with more."""
    import rasterio

    dtype, middle, swing = ("uint8", 128, 90) if bands == 3 else ("uint16", 3000, 1800)

    def write(path: Path) -> None:
        x = np.arange(size, dtype=np.float32)
        more = {"compress": compress} if compress else {}
        with rasterio.open(path, "w", **profile(size, bands, dtype, **more)) as dst:
            for y0 in range(0, size, BLOCK):
                rng = np.random.default_rng(y0)
                y = np.arange(y0, min(size, y0 + BLOCK), dtype=np.float32)[:, None]
                waves = [np.sin(x / (90 + 40 * b)) * np.sin(y / (70 + 55 * b)) for b in range(bands)]
                noise = rng.integers(-swing // 8, swing // 8, (bands, len(y), size))
                values = np.clip(middle + swing * np.stack(waves) + noise, 1, np.iinfo(dtype).max).astype(dtype)
                dst.write(values, window=((y0, y0 + len(y)), (0, size)))

    return _once(f"raster_{bands}_{size}{compress or ''}.tif", write)


def label_rasters(size: int) -> tuple[Path, Path]:
    """Return a raster of truth and a folder with ``labels.tif``, which differs from it in a tenth of the pixels."""
    import rasterio

    def write(path: Path, noise: float) -> None:
        x = np.arange(size, dtype=np.float32)
        with rasterio.open(path, "w", **profile(size, 1, "uint8")) as dst:
            for y0 in range(0, size, BLOCK):
                rng = np.random.default_rng(y0)
                y = np.arange(y0, min(size, y0 + BLOCK), dtype=np.float32)[:, None]
                fields = [np.sin(x / (50 + 31 * b)) * np.sin(y / (80 + 23 * b)) for b in range(4)]
                ids = np.argmax(fields, axis=0).astype(np.uint8)
                wrong = rng.random(ids.shape) < noise
                ids[wrong] = rng.integers(0, 4, int(wrong.sum()), dtype=np.uint8)
                dst.write(ids, 1, window=((y0, y0 + len(y)), (0, size)))

    truth = _once(f"truth_{size}.tif", lambda path: write(path, 0.0))
    labels = _once(f"predicted_{size}/labels.tif", lambda path: write(path, 0.1))
    return truth, labels.parent


def polygons(n: int, size: int, corners: int = 12, cover: float = 0.4) -> Path:
    """Return GeoJSON of star-shaped polygons with a ``class_name``, in degrees."""
    rng = np.random.default_rng((n, corners))
    radius = np.sqrt(cover * size * size / n / np.pi)
    cx, cy = rng.uniform(radius, size - radius, (2, n, 1))
    angle = (np.arange(corners) + rng.uniform(-0.3, 0.3, (n, corners))) * 2 * np.pi / corners
    length = radius * rng.uniform(0.6, 1.3, (n, corners))
    px = np.clip(np.stack([cx + length * np.cos(angle), cy + length * np.sin(angle)], -1), 0, size)
    px = np.concatenate([px, px[:, :1]], 1)
    names = [CLASSES[i] for i in rng.integers(1, 4, n)]

    def write(path: Path) -> None:
        features = [
            {"type": "Feature", "properties": {"class_name": name}, "geometry": {"type": "Polygon", "coordinates": [r]}}
            for name, r in zip(names, to_degrees(px.reshape(-1, 2)).reshape(px.shape).tolist(), strict=True)
        ]
        path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))

    return _once(f"polygons_{n}_{size}_{corners}.geojson", write)


def to_degrees(px: NDArray[np.float64]) -> NDArray[np.float64]:
    from pyproj import Transformer

    to = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    return np.stack(to.transform(WEST + px[:, 0] * PIXEL, NORTH - px[:, 1] * PIXEL), -1)


def polygons_in_pixels(path: Path) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Read polygons by hand: shapely geometries in whole pixels, and class ids."""
    import pyogrio
    import shapely
    from pyproj import Transformer

    df = pyogrio.read_dataframe(path)
    geoms = np.array(df.geometry.values)
    x, y = Transformer.from_crs("EPSG:4326", CRS, always_xy=True).transform(*shapely.get_coordinates(geoms).T)
    pixels = np.stack([np.floor((x - WEST) / PIXEL), np.floor((NORTH - y) / PIXEL)], -1)
    geoms = shapely.set_coordinates(geoms, pixels)
    broken = ~shapely.is_valid(geoms)
    geoms[broken] = shapely.make_valid(geoms[broken], method="structure", keep_collapsed=False)
    return geoms, np.array([CLASSES.index(name) for name in df["class_name"]])


def boxes(n: int, size: int, seed: int, copies: int = 1) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return boxes (ymin, xmin, ymax, xmax), class ids and scores; each box has copies that are moved a little."""
    rng = np.random.default_rng(seed)
    k = -(-n // copies)
    corner, sides = rng.uniform(0, size - 70, (k, 2)), rng.uniform(15, 60, (k, 2))
    found = np.repeat(np.concatenate([corner, corner + sides], 1), copies, 0)[:n] + rng.normal(0, 2.5, (n, 4))
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 5)
    return found, np.repeat(rng.integers(0, 3, k), copies)[:n], rng.uniform(0.05, 1, n)


def _once(name: str, write: Any) -> Path:
    path = CACHE / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"partial-{os.getpid()}-{path.name}")
        write(partial)
        os.replace(partial, path)
    return path
