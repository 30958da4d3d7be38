"""Memory does not grow with scenes: a gigapixel is predicted, vectorised and evaluated within bounds.

Each piece of work runs in a process of its own, for which this file is a program too.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rastervision.core.box import Box
from rastervision.testing.memory import PeakMemory, format_bytes

pytestmark = pytest.mark.memory

SIZE = 32768
CHIP, TILE = 512, 256
MB = 10**6


# -- scenes --------------------------------------------------------------------------------------------------------


def classes() -> Any:
    from rastervision.core.data import ClassConfig

    return ClassConfig(names=["field", "house", "null"], colors=["green", "red", "black"])


def write_sparse(path: Path, size: int, channels: int = 1, values: int = 2, every: int = 8) -> Path:
    """Write a raster of zeros that takes no room on the disk, but for every n-th tile, which is noise in patches."""
    import rasterio
    from rasterio.transform import from_origin

    patch = np.random.default_rng(0).integers(0, values, (channels, TILE // 16, TILE // 16), dtype=np.uint8)
    tile = np.kron(patch, np.ones((16, 16), np.uint8))
    profile = {
        "driver": "GTiff", "height": size, "width": size, "count": channels, "dtype": "uint8", "crs": "EPSG:32618",
        "transform": from_origin(500000, 4000000, 0.5, 0.5), "tiled": True, "blockxsize": TILE, "blockysize": TILE,
        "compress": "deflate", "sparse_ok": True, "bigtiff": "yes",
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **profile) as ds:
        for i, window in enumerate(Box(0, 0, size, size).get_windows(TILE, TILE * 4)):
            if i % every == 0:
                ds.write(tile, window=window.rasterio_format())
    return path


def make_scene(folder: Path, size: int, aoi: bool = False, **store: Any) -> Any:
    from shapely.geometry import Point

    from rastervision.core.data import (
        RasterioSourceConfig,
        Scene,
        SceneConfig,
        SemanticSegmentationLabelSourceConfig,
        SemanticSegmentationLabelStoreConfig,
    )

    config = SceneConfig(
        id="large",
        raster_source=RasterioSourceConfig(uris=str(write_sparse(folder / "image.tif", size, channels=3, values=256))),
        label_source=SemanticSegmentationLabelSourceConfig(
            raster_source=RasterioSourceConfig(uris=str(write_sparse(folder / "truth.tif", size)))
        ),
        label_store=SemanticSegmentationLabelStoreConfig(uri=str(folder / "out"), **store),
    )
    scene = config.build(classes())
    aois = [Point(size * x, size * y).buffer(size / 9) for x in (0.2, 0.5, 0.8) for y in (0.3, 0.7)] if aoi else None
    return Scene("large", scene.raster_source, scene.label_source, scene.label_store, aois)


# -- the work, done in processes of their own ----------------------------------------------------------------------


def evaluate(folder: Path, size: int, aoi: bool = False) -> Callable[[], Any]:
    from rastervision.core.evaluation import SemanticSegmentationEvaluator

    write_sparse(folder / "out" / "labels.tif", size, every=5)
    scene = make_scene(folder, size, aoi)

    def work() -> Any:
        evaluation = SemanticSegmentationEvaluator(classes()).evaluate_scene(scene)
        return int(evaluation.conf_mat.sum())  # type: ignore[union-attr]

    return work


def evaluate_in_aois(folder: Path, size: int) -> Callable[[], Any]:
    return evaluate(folder, size, aoi=True)


def predict(folder: Path, size: int, smooth: bool = False) -> Callable[[], Any]:
    """Predict squares of 100 pixels every 256, and what is bright; write rasters and polygons."""
    from rastervision.core.data import PolygonVectorOutputConfig
    from rastervision.core.data.label.label_blocks import Strip, WindowGrid, blend
    from rastervision.core.data.label.streamed_labels import StreamedSemanticSegmentationLabels

    outputs = [PolygonVectorOutputConfig(class_id=i, denoise=d) for i, d in ((0, 0), (1, 8))]
    scene = make_scene(folder, size, vector_output=outputs, smooth_output=smooth, smooth_as_uint8=smooth)
    grid = WindowGrid.sliding(scene.extent, CHIP, CHIP)
    place = np.arange(CHIP) % 256 < 100
    squares = place[:, None] & place

    def class_ids(window: Box) -> NDArray[np.uint8]:
        chip = scene.raster_source.get_chip(window)
        return (squares | (chip[..., 0] > 200)).astype(np.uint8)

    def of_strip(strip: Strip) -> Iterator[tuple[int, list[tuple[int, NDArray[Any]]]]]:
        for i, y in enumerate(grid.rows):
            for x in strip.cols:
                ids = class_ids(Box.make_square(y, x, CHIP))
                yield i, [(x, np.eye(3, dtype=np.float32)[:, ids] if smooth else ids)]

    labels = StreamedSemanticSegmentationLabels(
        scene.extent, 3, smooth=smooth, make_blocks=lambda: blend(grid, 3, of_strip, smooth=smooth)
    )

    def work() -> Any:
        scene.label_store.save(labels)
        return sum(1 for _ in (folder / "out" / "vector_output").glob("*.json"))

    return work


def predict_scores(folder: Path, size: int) -> Callable[[], Any]:
    return predict(folder, size, smooth=True)


def analyze(folder: Path, size: int) -> Callable[[], Any]:
    from rastervision.core.raster_stats import RasterStats

    scene = make_scene(folder, size)

    def work() -> Any:
        stats = RasterStats()
        stats.compute([scene.raster_source])
        return len(stats.means)  # type: ignore[arg-type]

    return work


# -- bounds --------------------------------------------------------------------------------------------------------


def run(name: str, folder: Path, size: int) -> dict[str, int]:
    """Do a piece of work in a new process; return what it gives, and its memory before and at its peak."""
    done = subprocess.run([sys.executable, __file__, name, str(folder), str(size)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


needs_linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks cannot be reset here")


@needs_linux
@pytest.mark.parametrize("name", ["evaluate", "evaluate_in_aois"])
def test_evaluation_of_a_gigapixel_takes_less_than_400_mb(name: str, tmp_path: Path) -> None:
    figures = run(name, tmp_path, SIZE)

    assert figures["result"] == SIZE**2
    assert figures["peak"] < 400 * MB, f"{format_bytes(figures['peak'])} were used"


@needs_linux
@pytest.mark.parametrize(("name", "size"), [("predict", SIZE), ("predict_scores", SIZE // 2)])
def test_prediction_of_a_gigapixel_with_polygons_takes_less_than_600_mb(name: str, size: int, tmp_path: Path) -> None:
    figures = run(name, tmp_path, size)

    assert figures["result"] == 2
    more = figures["peak"] - figures["before"]
    assert more < 600 * MB, f"{format_bytes(more)} above those of the interpreter were used"


@needs_linux
def test_statistics_of_a_scene_take_less_than_400_mb(tmp_path: Path) -> None:
    figures = run("analyze", tmp_path, SIZE // 2)

    assert figures["result"] == 3
    assert figures["peak"] < 400 * MB, f"{format_bytes(figures['peak'])} were used"


def main() -> None:
    name, folder, size = sys.argv[1:]
    memory = PeakMemory()
    work = globals()[name](Path(folder), int(size))
    memory.reset()
    before = memory.current()
    result = work()
    print(json.dumps({"result": result, "before": before, "peak": memory.peak()}))


if __name__ == "__main__":
    main()
