"""Block writer: tiled files, atomic replacement, nothing left behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from rastervision.core.box import Box
from rastervision.core.data.label.label_blocks import UNLABELED, LabelBlock
from rastervision.core.data.label_store.ss_writer import HITS, LABELS, SCORES, BlockWriter, OutputSpec

PROFILE = {
    "driver": "GTiff", "height": 40, "width": 50, "tiled": True, "blockxsize": 16, "blockysize": 16,
    "compress": "deflate", "zlevel": 1, "crs": "EPSG:32617", "transform": from_origin(500000, 4000000, 0.5, 0.5),
}  # fmt: skip


def block(y: int, x: int, h: int, w: int, class_id: int, complete: bool = True) -> LabelBlock:
    labels = np.full((h, w), class_id, np.uint8)
    scores = np.full((3, h, w), 0.25, np.float32)
    return LabelBlock(Box(y, x, y + h, x + w), labels, scores, np.full((h, w), 2, np.uint8), complete)


def spec(**kwargs: object) -> OutputSpec:
    return OutputSpec(40, 50, num_classes=3, null_class_id=2, **kwargs)  # type: ignore[arg-type]


def paths(folder: Path, smooth: bool = False) -> dict[str, Path]:
    return {name: folder / name for name in ((LABELS, SCORES, HITS) if smooth else (LABELS,))}


def write_all(folder: Path, the_spec: OutputSpec, class_id: int, smooth: bool = False) -> None:
    with BlockWriter(paths(folder, smooth), the_spec, PROFILE) as writer:
        # strips: all rows of the left columns first
        writer.write(block(0, 0, 32, 32, class_id))
        writer.write(block(32, 0, 8, 32, class_id))
        writer.write(block(0, 32, 40, 18, class_id))
        writer.commit()


def test_files_are_tiled_compressed_and_georeferenced(tmp_path: Path) -> None:
    write_all(tmp_path, spec(), 1, smooth=True)

    with rasterio.open(tmp_path / LABELS) as src:
        assert src.profile["tiled"]
        assert src.block_shapes == [(16, 16)]
        assert src.compression.name == "deflate"
        assert src.crs.to_epsg() == 32617
        assert src.transform == PROFILE["transform"]
        assert (src.read(1) == 1).all()
    with rasterio.open(tmp_path / SCORES) as src:
        assert src.dtypes == ("float32",) * 3
        assert (src.read() == 0.25).all()
    assert (np.load(tmp_path / HITS) == 2).all()
    assert np.load(tmp_path / HITS).shape == (40, 50)


def test_unlabelled_pixels_get_the_null_class(tmp_path: Path) -> None:
    with BlockWriter(paths(tmp_path), spec(), PROFILE) as writer:
        writer.write(block(0, 0, 40, 50, UNLABELED, complete=False))
        writer.commit()

    with rasterio.open(tmp_path / LABELS) as src:
        assert (src.read(1) == 2).all()


def test_scores_as_bytes_are_rounded(tmp_path: Path) -> None:
    write_all(tmp_path, spec(smooth_as_uint8=True), 1, smooth=True)

    with rasterio.open(tmp_path / SCORES) as src:
        assert (src.read() == round(0.25 * 255)).all()


def test_colours_are_written_for_class_ids(tmp_path: Path) -> None:
    palette = np.array([[0, 0, 0], [10, 20, 30], [1, 1, 1]], np.uint8)

    write_all(tmp_path, spec(palette=palette), 1)

    with rasterio.open(tmp_path / LABELS) as src:
        assert src.read()[:, 5, 5].tolist() == [10, 20, 30]


def test_failure_keeps_the_earlier_prediction_and_leaves_nothing(tmp_path: Path) -> None:
    write_all(tmp_path, spec(), 1, smooth=True)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    with (
        pytest.raises(OSError, match="disk full"),
        BlockWriter(paths(tmp_path, smooth=True), spec(), PROFILE) as writer,
    ):
        writer.write(block(0, 0, 32, 32, 0))
        raise OSError("disk full")

    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_leftovers_of_a_killed_process_go_away(tmp_path: Path) -> None:
    killed = BlockWriter(paths(tmp_path), spec(), PROFILE)
    killed.temporary(LABELS).write_bytes(b"half a file")

    write_all(tmp_path, spec(), 1)

    assert {p.name for p in tmp_path.iterdir()} == {LABELS}
