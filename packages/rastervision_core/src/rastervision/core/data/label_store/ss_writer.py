"""Write the label blocks of a scene as tiled, compressed GeoTIFFs, block by block.

Everything is written under temporary names and takes its final name only when all of it is complete, so that readers
see the old prediction or the new one, never a part. Next: `rastervision.core.evaluation`.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np

from rastervision.core.data.label.label_blocks import UNLABELED
from rastervision.core.data.utils.dataset_pool import georeference_not_needed

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.label.label_blocks import LabelBlock

__all__ = ["HITS", "LABELS", "SCORES", "BlockWriter", "OutputSpec", "raster_profile"]

LABELS, SCORES, HITS = "labels.tif", "scores.tif", "pixel_hits.npy"
_TILE_MULTIPLE = 16  # the TIFF specification wants tile sides that are multiples of 16
_GDAL_CACHE_MB = 32


@dataclass(frozen=True)
class OutputSpec:
    """What to write for a scene.

    Args:
        height: Rows of the scene.
        width: Columns of the scene.
        num_classes: K.
        null_class_id: Class of unlabelled pixels.
        block_sz: Side of a tile in pixels.
        palette: (K, 3) uint8 colours to write class ids as RGB; None writes the ids.
        smooth: Whether to write scores and hits too.
        smooth_as_uint8: Write scores as ``round(255 * score)`` instead of float32.
        discrete: Whether to write the class ids.
    """

    height: int
    width: int
    num_classes: int
    null_class_id: int
    block_sz: int = 256
    palette: NDArray[np.uint8] | None = None
    smooth: bool = False
    smooth_as_uint8: bool = False
    discrete: bool = True


def raster_profile(
    height: int, width: int, crs_transformer: CRSTransformer, bbox_origin: tuple[int, int], block_sz: int
) -> dict[str, Any]:
    """Return a rasterio profile for a raster that lies over a scene, whose origin is at ``(ymin, xmin)``."""
    from affine import Affine

    profile: dict[str, Any] = {
        "driver": "GTiff", "height": height, "width": width, "tiled": True,
        "blockxsize": _tile_side(block_sz, width), "blockysize": _tile_side(block_sz, height),
        "compress": "deflate", "zlevel": 1, "bigtiff": "if_safer",
    }  # fmt: skip
    if crs_transformer.transform is not None:
        ymin, xmin = bbox_origin
        transform = crs_transformer.transform @ Affine.translation(xmin, ymin)
        if transform != Affine.identity():
            profile["transform"] = transform
    if crs_transformer.image_crs is not None:
        profile["crs"] = crs_transformer.image_crs
    return profile


def _tile_side(block_sz: int, size: int) -> int:
    side = min(block_sz, size)
    return max(-(-side // _TILE_MULTIPLE), 1) * _TILE_MULTIPLE


class BlockWriter:
    """Writes blocks into a local folder; use as a context manager, and `commit` at the end.

    Leaving the context without `commit` removes what was written. The files of an earlier prediction stay untouched
    until `commit`.
    """

    def __init__(self, folder: str | Path, spec: OutputSpec, profile: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self.spec = spec
        self._profile = profile
        self._token = uuid.uuid4().hex[:8]
        self._stack = contextlib.ExitStack()
        self._labels: Any = None
        self._scores: Any = None
        self._hits: BinaryIO | None = None
        self._hits_offset = 0

    def temporary(self, name: str) -> Path:
        """Return the path under which a file is written before `commit`."""
        return self.folder / f".{name}.{self._token}.partial{Path(name).suffix}"

    def __enter__(self) -> Self:
        import rasterio

        self.folder.mkdir(parents=True, exist_ok=True)
        for old in self.folder.glob(".*.partial*"):  # left by a process that was killed
            old.unlink(missing_ok=True)
        with georeference_not_needed():
            self._stack.callback(self._discard)
            self._stack.enter_context(rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE_MB))
            if self.spec.discrete:
                count = 1 if self.spec.palette is None else 3
                extra = {} if self.spec.palette is None else {"photometric": "rgb", "interleave": "pixel"}
                self._labels = self._open(LABELS, count=count, dtype="uint8", **extra)
            if self.spec.smooth:
                # the digits of a float32 score are noise: lossless compression saves a tenth at many times the cost.
                # Bytes shrink by a quarter and more, with Zstandard at a sixth of the cost of deflate
                kind: dict[str, Any] = {"dtype": "float32", "compress": None}
                if self.spec.smooth_as_uint8:
                    kind = {"dtype": "uint8", "compress": "zstd", "zstd_level": 1}
                self._scores = self._open(SCORES, count=self.spec.num_classes, interleave="band", **kind)
        return self

    def _open(self, name: str, **profile: Any) -> Any:
        import rasterio

        merged = {k: v for k, v in {**self._profile, **profile}.items() if v is not None}
        if merged.get("compress") != "deflate":
            merged.pop("zlevel", None)
        return self._stack.enter_context(rasterio.open(self.temporary(name), "w", **merged))

    def write(self, block: LabelBlock) -> None:
        """Write a block: class ids, and scores and hits if the outputs have them."""
        rows, cols = block.window.to_slices()
        window = ((rows.start, rows.stop), (cols.start, cols.stop))
        if self._labels is not None:
            labels = block.label_arr
            if not block.complete:
                labels = np.where(labels == UNLABELED, np.uint8(self.spec.null_class_id), labels)
            if self.spec.palette is None:
                self._labels.write(labels, 1, window=window)
            else:
                self._labels.write(np.take(self.spec.palette, labels, axis=0).transpose(2, 0, 1), window=window)
        if self._scores is not None:
            if block.scores is None or block.hits is None:
                raise ValueError("smooth_output needs labels with scores, but these have only class ids.")
            scores = _as_uint8(block) if self.spec.smooth_as_uint8 else block.scores
            for band, score in enumerate(scores, start=1):  # each is contiguous, all together are not: no copy
                self._scores.write(score, band, window=window)
            self._write_hits(block.hits, rows.start, cols.start)

    def _write_hits(self, hits: NDArray[np.unsignedinteger[Any]], row: int, col: int) -> None:
        # an .npy file is a header and the raw rows: written by seeking, it needs no whole-scene array
        if self._hits is None:
            self._hits = self._stack.enter_context(self.temporary(HITS).open("wb"))
            header = {
                "descr": hits.dtype.str,
                "fortran_order": False,
                "shape": (self.spec.height, self.spec.width),
            }
            np.lib.format.write_array_header_1_0(self._hits, header)
            self._hits_offset = self._hits.tell()
        itemsize = hits.dtype.itemsize
        if hits.shape[1] == self.spec.width:
            self._hits.seek(self._hits_offset + row * self.spec.width * itemsize)
            self._hits.write(np.ascontiguousarray(hits).data)
            return
        for i, line in enumerate(hits, start=row):
            self._hits.seek(self._hits_offset + (i * self.spec.width + col) * itemsize)
            self._hits.write(np.ascontiguousarray(line).data)

    def close(self) -> list[str]:
        """Finish the files under their temporary names and return the names they will have."""
        for dataset in (self._labels, self._scores, self._hits):
            if dataset is not None:
                dataset.close()
        written = ((LABELS, self._labels), (SCORES, self._scores), (HITS, self._hits))
        return [name for name, dataset in written if dataset is not None]

    def commit(self) -> list[Path]:
        """Give the finished files their final names; scores of an earlier prediction without successor go away."""
        names = self.close()
        for name in names:
            os.replace(self.temporary(name), self.folder / name)
        for name in {LABELS, SCORES, HITS} - set(names):
            (self.folder / name).unlink(missing_ok=True)
        return [self.folder / name for name in names]

    def _discard(self) -> None:
        for name in (LABELS, SCORES, HITS):
            self.temporary(name).unlink(missing_ok=True)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stack.close()


def _as_uint8(block: LabelBlock) -> NDArray[np.uint8]:
    """Return ``round(255 * score)``, 0 where nothing is predicted."""
    assert block.scores is not None
    scaled = block.scores * np.float32(255)
    scaled += np.float32(0.5)
    return (scaled if block.complete else np.nan_to_num(scaled, copy=False)).astype(np.uint8)
