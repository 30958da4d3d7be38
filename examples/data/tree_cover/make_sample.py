"""Make the tree-cover sample from the imagery and tree-crown boxes in the deepforest 2.1.0 wheel.

    pip download --no-deps deepforest==2.1.0
    python examples/data/tree_cover/make_sample.py deepforest-2.1.0-py3-none-any.whl

Needs rasterio, which Raster Vision installs.
"""

from __future__ import annotations

import argparse
import json
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rasterio
from rasterio.io import MemoryFile
from rasterio.warp import transform as transform_coords
from rasterio.windows import Window

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

HERE = Path(__file__).parent
# (scene, image, boxes, columns of the image that belong to the scene)
SCENES: list[tuple[str, str, str, tuple[int, int | None]]] = [
    ("osbs_west", "OSBS_029.tif", "OSBS_029.xml", (0, 240)),
    ("osbs_east", "OSBS_029.tif", "OSBS_029.xml", (240, None)),
    (
        "yell",
        "2019_YELL_2_541000_4977000_image_crop.png",
        "2019_YELL_2_541000_4977000_image_crop.xml",
        (0, None),
    ),
]


def read_boxes(xml: bytes) -> list[tuple[float, float, float, float]]:
    """Return (xmin, ymin, xmax, ymax) in pixels for each object of a Pascal VOC annotation."""
    boxes = []
    for box in ET.fromstring(xml).iter("bndbox"):
        xmin, ymin, xmax, ymax = (float(box.findtext(k) or "nan") for k in ("xmin", "ymin", "xmax", "ymax"))
        boxes.append((xmin, ymin, xmax, ymax))
    return boxes


def box_feature(box: tuple[float, float, float, float], src: DatasetReader) -> dict[str, Any]:
    """Return a GeoJSON feature: in lon/lat if the image has a CRS, in pixels of the scene if not."""
    xmin, ymin, xmax, ymax = box
    cols, rows = [xmin, xmin, xmax, xmax, xmin], [ymin, ymax, ymax, ymin, ymin]
    if src.crs is None:
        ring = [list(p) for p in zip(cols, rows, strict=True)]
    else:
        xs, ys = zip(*(src.transform @ p for p in zip(cols, rows, strict=True)), strict=True)
        lon, lat = transform_coords(src.crs, "EPSG:4326", xs, ys)
        ring = [[round(x, 8), round(y, 8)] for x, y in zip(lon, lat, strict=True)]
    return {
        "type": "Feature",
        "properties": {"class_name": "tree"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }


def write_scene(src: DatasetReader, boxes: list[Any], scene: str, start: int, stop: int | None) -> None:
    """Write the columns ``start`` to ``stop`` of an image as a compressed GeoTIFF, and its boxes as GeoJSON."""
    width = (src.width if stop is None else stop) - start
    window = Window(start, 0, width, src.height)
    profile = {
        "driver": "GTiff", "dtype": "uint8", "count": 3, "height": src.height, "width": width,
        "tiled": True, "blockxsize": 256, "blockysize": 256,
        "compress": "deflate", "predictor": 2, "zlevel": 9, "photometric": "rgb",
    }  # fmt: skip
    if src.crs is not None:
        profile |= {"crs": "EPSG:32617", "transform": src.window_transform(window)}
    with rasterio.open(HERE / f"{scene}.tif", "w", **profile) as dst:
        dst.write(src.read([1, 2, 3], window=window))
    inside = [(max(x0, start), y0, min(x1, start + width), y1) for x0, y0, x1, y1 in boxes]
    inside = [b for b in inside if b[2] > b[0]]
    if src.crs is None:
        inside = [(x0 - start, y0, x1 - start, y1) for x0, y0, x1, y1 in inside]
    collection = {"type": "FeatureCollection", "features": [box_feature(b, src) for b in inside]}
    (HERE / f"{scene}.geojson").write_text(json.dumps(collection) + "\n")


def main() -> None:
    """Write the scenes of `SCENES` beside this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    wheel = zipfile.ZipFile(parser.parse_args().wheel)
    for scene, image, boxes, (start, stop) in SCENES:
        with MemoryFile(wheel.read(f"deepforest/data/{image}")) as memory, memory.open() as src:
            write_scene(src, read_boxes(wheel.read(f"deepforest/data/{boxes}")), scene, start, stop)


if __name__ == "__main__":
    main()
