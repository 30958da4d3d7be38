"""Write the label blocks of a scene as cloud optimized GeoTIFFs, block by block.

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

from rastervision.core.data.label.label_blocks import label_dtype
from rastervision.core.data.utils.dataset_pool import georeference_not_needed
from rastervision.core.utils.cog import make_cog, overview_factors
from rastervision.core.utils.plain_cog import PlainCog

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from numpy.typing import NDArray

    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.label.label_blocks import LabelBlock

__all__ = ["HITS", "LABELS", "SCORES", "BlockWriter", "OutputSpec", "raster_profile", "tile_side"]

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
        palette: (K, 3) uint8 colours to write class ids as RGB; None writes the ids.
        smooth_as_uint8: Write scores as ``round(255 * score)`` instead of float32.
    """

    height: int
    width: int
    num_classes: int
    null_class_id: int
    palette: NDArray[np.uint8] | None = None
    smooth_as_uint8: bool = False

    def label_profile(self) -> dict[str, Any]:
        """Return what is special in the rasterio profile of the class ids."""
        if self.palette is None:
            return {"count": 1, "dtype": label_dtype(self.num_classes).name}
        return {"count": 3, "dtype": "uint8", "photometric": "rgb", "interleave": "pixel"}

    def score_profile(self) -> dict[str, Any]:
        """Return what is special in the rasterio profile of the scores."""
        # the digits of a float32 score are noise: lossless compression saves a tenth at many times the cost.
        # Bytes shrink by a quarter and more, with Zstandard at a sixth of the cost of deflate
        kind: dict[str, Any] = {"dtype": "float32", "compress": None}
        if self.smooth_as_uint8:
            kind = {"dtype": "uint8", "compress": "zstd", "zstd_level": 1}
        return {"count": self.num_classes, "interleave": "band", **kind}


def raster_profile(
    height: int, width: int, crs_transformer: CRSTransformer, bbox_origin: tuple[int, int], block_sz: int
) -> dict[str, Any]:
    """Return a rasterio profile for a raster that lies over a scene, whose origin is at ``(ymin, xmin)``."""
    from affine import Affine

    profile: dict[str, Any] = {
        "driver": "GTiff", "height": height, "width": width, "tiled": True,
        "blockxsize": tile_side(min(block_sz, width)), "blockysize": tile_side(min(block_sz, height)),
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


def tile_side(size: int) -> int:
    """Return the smallest allowed side of a tile that is not less than a number of pixels."""
    return max(-(-size // _TILE_MULTIPLE), 1) * _TILE_MULTIPLE


class BlockWriter:
    """Writes blocks into local files; use as a context manager, and `commit` at the end.

    Leaving the context without `commit` removes what was written. The files of an earlier prediction stay untouched
    until `commit`.

    Args:
        paths: The files: some of `LABELS`, `SCORES`, `HITS` -> path. What has no path is not written.
        spec: What to write.
        profile: rasterio profile, to which the spec adds what is special to class ids and scores.
        overrides: rasterio profile entries that go before all others.
        cog: Whether the rasters get overviews and the layout of a COG; files that are read once need neither.
    """

    def __init__(
        self,
        paths: Mapping[str, Path],
        spec: OutputSpec,
        profile: dict[str, Any],
        overrides: dict[str, Any] | None = None,
        cog: bool = True,
    ) -> None:
        self.paths = dict(paths)
        self.spec = spec
        self._profile = profile
        self._overrides = overrides or {}
        self._cog = cog
        self._token = uuid.uuid4().hex[:8]
        self._stack = contextlib.ExitStack()
        self._labels: Any = None
        self._scores: Any = None
        self._plain_scores: PlainCog | None = None
        self._hits: BinaryIO | None = None
        self._hits_offset = 0

    def temporary(self, name: str) -> Path:
        """Return the path under which a file is written before `commit`."""
        path = self.paths[name]
        return path.with_name(f".{path.name}.{self._token}.partial{path.suffix}")

    def __enter__(self) -> Self:
        import rasterio

        for folder in {path.parent for path in self.paths.values()}:
            folder.mkdir(parents=True, exist_ok=True)
            for old in folder.glob(".*.partial*"):  # left by a process that was killed
                old.unlink(missing_ok=True)
        with contextlib.ExitStack() as self._stack, georeference_not_needed():
            self._stack.callback(self._discard)
            self._stack.enter_context(rasterio.Env(GDAL_CACHEMAX=_GDAL_CACHE_MB))
            if LABELS in self.paths:
                self._labels = self._open(LABELS, self._profile_of(LABELS))
            if SCORES in self.paths:
                self._open_scores(self._profile_of(SCORES))
            self._stack = self._stack.pop_all()  # nothing failed: all stays open
        return self

    def _open(self, name: str, profile: dict[str, Any]) -> Any:
        import rasterio

        return self._stack.enter_context(rasterio.open(self.temporary(name), "w", **profile))

    def _open_scores(self, profile: dict[str, Any]) -> None:
        if self.spec.smooth_as_uint8 or self._overrides:
            self._scores = self._open(SCORES, profile)
        else:
            factors = overview_factors(self.spec.height, self.spec.width) if self._cog else []
            self._plain_scores = self._stack.enter_context(PlainCog(self.temporary(SCORES), profile, factors))

    def _profile_of(self, name: str) -> dict[str, Any]:
        special = self.spec.label_profile() if name == LABELS else self.spec.score_profile()
        merged = {**self._profile, **special, **self._overrides}
        merged = {key: value for key, value in merged.items() if value is not None}
        if merged.get("compress") != "deflate":
            merged.pop("zlevel", None)
        return merged

    def write(self, block: LabelBlock) -> None:
        """Write a block: class ids, and scores and hits if the outputs have them."""
        rows, cols = block.window.to_slices()
        if self._labels is not None:
            labels = block.label_arr
            if not block.complete:
                labels = np.where(block.known, labels, labels.dtype.type(self.spec.null_class_id))
            window = ((rows.start, rows.stop), (cols.start, cols.stop))
            if self.spec.palette is None:
                self._labels.write(labels, 1, window=window)
            else:
                colours = np.take(self.spec.palette, labels, axis=0).transpose(2, 0, 1)
                self._labels.write(colours, window=window)
        if SCORES in self.paths:
            self._write_scores(block)
        if HITS in self.paths and block.hits is not None:
            self._write_hits(block.hits, rows.start, cols.start)

    def _write_scores(self, block: LabelBlock) -> None:
        if block.scores is None:
            raise ValueError("smooth_output needs labels with scores, but these have only class ids.")
        rows, cols = block.window.to_slices()
        if self._plain_scores is not None:
            self._plain_scores.write(block.scores, rows.start, cols.start)
        else:
            window = ((rows.start, rows.stop), (cols.start, cols.stop))
            scores = _as_uint8(block) if self.spec.smooth_as_uint8 else block.scores
            for band, score in enumerate(scores, start=1):  # each is contiguous, all together are not: no copy
                self._scores.write(score, band, window=window)

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

    def close(self) -> None:
        """Finish the files under their temporary names."""
        if self._hits is not None:
            self._hits.close()
        if self._plain_scores is not None:
            self._plain_scores.build_overviews()
            self._plain_scores.close()
            self._plain_scores = None
        # a class id between two others would be a third class: overviews take the nearest one
        for name, raster, resampling in ((LABELS, self._labels, "nearest"), (SCORES, self._scores, "average")):
            if raster is not None and not raster.closed:
                raster.close()
                if not self._cog:
                    continue
                with georeference_not_needed():
                    make_cog(self.temporary(name), self._profile_of(name), resampling)

    def drop(self, name: str) -> None:
        """Remove a file that was needed on the way only."""
        self.temporary(name).unlink()

    def commit(self) -> list[Path]:
        """Give the files their final names, and return these."""
        self.close()
        written = [name for name in self.paths if self.temporary(name).exists()]
        for name in written:
            os.replace(self.temporary(name), self.paths[name])
        return [self.paths[name] for name in written]

    def _discard(self) -> None:
        for name in self.paths:
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
