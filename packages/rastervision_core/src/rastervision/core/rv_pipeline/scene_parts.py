"""Predict a scene in parts: each is written to files of its own, from which the labels of the scene are made.

The files are below the pipeline's ``predict_uri``, so that the parts can be made on machines that share nothing else.
Pixels come in bands of rows. Windows at a border are predicted for both sides of it, so that the labels are those of a
prediction in one go; of other tasks each window is in one part. Next: `rastervision.core.data.label_store`.
"""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.box import Box
from rastervision.core.data.crs_transformer.identity_crs_transformer import IdentityCRSTransformer
from rastervision.core.data.label.chip_classification_labels import ChipClassificationLabels
from rastervision.core.data.label.chip_regression_labels import ChipRegressionLabels
from rastervision.core.data.label.label_blocks import LabelBlock, label_dtype
from rastervision.core.data.label.object_detection_labels import ObjectDetectionLabels
from rastervision.core.data.label.semantic_segmentation_labels import (
    SemanticSegmentationLabels,
    SemanticSegmentationSmoothLabels,
)
from rastervision.core.data.label.streamed_labels import StreamedSemanticSegmentationLabels
from rastervision.core.data.label_store.ss_writer import HITS, LABELS, SCORES, BlockWriter, OutputSpec, raster_profile
from rastervision.core.data.scene import naming_scene
from rastervision.core.data.scene_part import ScenePart
from rastervision.pipeline.errors import ConfigError, NotReadableError, RasterVisionError, RunError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.label.labels import Labels
    from rastervision.core.data.scene import Scene
    from rastervision.core.rv_pipeline.rv_pipeline import RVPipeline, RVPipelineConfig

__all__ = ["PartFolder", "assign_parts", "merge_parts", "predict_part", "predicts_parts"]

log = logging.getLogger(__name__)

_INFO, _ARRAYS = "part.json", "labels.npz"
_PIXELS = "pixels"
_KINDS: dict[str, Any] = {
    "boxes": ObjectDetectionLabels,
    "classes of cells": ChipClassificationLabels,
    "numbers of cells": ChipRegressionLabels,
}
_DEFAULT_BLOCK_SZ = 256
_COLS_AT_ONCE = 16  # blocks


def predicts_parts(config: RVPipelineConfig, num_splits: int) -> bool:
    """Return whether the predict command, done in as many parts, cuts scenes: there are fewer scenes than parts."""
    num_scenes = len(config.dataset.get_command_scenes("predict"))
    return 0 < num_scenes < num_splits and config.backend.predicts_parts and bool(config.predict_uri)


def assign_parts(num_scenes: int, num_splits: int) -> list[tuple[int, ScenePart]]:
    """Return for each of the parts of the predict command the index of a scene and the part of it.

    Example:
        >>> assign_parts(2, 3)
        [(0, ScenePart(index=0, count=2)), (0, ScenePart(index=1, count=2)), (1, ScenePart(index=0, count=1))]
    """
    fewest, more = divmod(num_splits, num_scenes)
    counts = [fewest + (i < more) for i in range(num_scenes)]
    return [(scene, ScenePart(i, count)) for scene, count in enumerate(counts) for i in range(count)]


def predict_part(pipeline: RVPipeline, split_ind: int, num_splits: int) -> None:
    """Predict what one part of the predict command has to: a part of a scene, or a scene."""
    scenes = pipeline.config.dataset.get_command_scenes("predict")
    index, part = assign_parts(len(scenes), num_splits)[split_ind]
    with naming_scene(scenes[index].id):
        scene = pipeline.build_scene(scenes[index])
        if part.count == 1:
            pipeline.predict_and_save(scene)
            return
        if pipeline.backend is None:
            pipeline.build_backend()
        assert pipeline.backend is not None
        log.info("predicting part %d of %d of %s", part.index + 1, part.count, scene.id)
        scene.part = part
        labels = pipeline.backend.predict_scene(scene, pipeline.config.get_predict_options())
        folder = PartFolder(str(pipeline.config.predict_uri), scene, part.count, pipeline.tmp_dir)
        folder.save(labels, part.index, pipeline.config.dataset.class_config)


def merge_parts(pipeline: RVPipeline, num_splits: int) -> None:
    """Make and store the labels of the scenes that `predict_part` has cut."""
    scenes = pipeline.config.dataset.get_command_scenes("predict")
    for index, part in assign_parts(len(scenes), num_splits):
        if part.count == 1 or part.index > 0:
            continue
        with naming_scene(scenes[index].id):
            scene = pipeline.build_scene(scenes[index])
            log.info("merging %d parts of %s", part.count, scene.id)
            folder = PartFolder(str(pipeline.config.predict_uri), scene, part.count, pipeline.tmp_dir)
            if scene.label_store is None:
                raise ConfigError(f"Scene {scene.id!r} has no label_store for its prediction. Call update() first.")
            scene.label_store.save(pipeline.post_process_predictions(folder.load(), scene))
            folder.remove()


class PartFolder:
    """The files of the parts of a scene.

    Args:
        predict_uri: Folder of the predictions of the pipeline.
        scene: The scene.
        num_parts: In how many parts it is cut.
        tmp_dir: Local folder for files on their way from or to a remote ``predict_uri``.
    """

    def __init__(self, predict_uri: str, scene: Scene, num_parts: int, tmp_dir: str) -> None:
        self.uri = f"{predict_uri.rstrip('/')}/.parts/{scene.id}"
        self.scene, self.num_parts, self.tmp_dir = scene, num_parts, tmp_dir

    def part_uri(self, index: int) -> str:
        """Return the folder of a part."""
        return f"{self.uri}/{index}-of-{self.num_parts}"

    # -- writing ---------------------------------------------------------------------------------------------------

    def save(self, labels: Labels, index: int, class_config: ClassConfig) -> None:
        """Write the labels of a part; what `load` needs to know of it comes last.

        Args:
            labels: Labels of the part, or of the whole scene. Those that stream are predicted while they are written.
            index: Which part.
            class_config: The classes.
        """
        from rastervision.pipeline.file_system.utils import get_local_path, json_to_file, upload_or_copy

        os.makedirs(self.tmp_dir, exist_ok=True)
        with TemporaryDirectory(dir=self.tmp_dir, prefix="part-") as tmp_dir:
            folder = Path(get_local_path(self.part_uri(index), tmp_dir))
            folder.mkdir(parents=True, exist_ok=True)
            if isinstance(labels, SemanticSegmentationLabels):
                info, paths = self._save_pixels(labels, index, class_config.null_class_id, folder)
            else:
                info, paths = _save_arrays(labels, folder)
            for path in paths:
                upload_or_copy(str(path), f"{self.part_uri(index)}/{path.name}")
        json_to_file(info, f"{self.part_uri(index)}/{_INFO}")
        log.info("wrote part %d of %d of %s", index + 1, self.num_parts, self.scene.id)

    def _save_pixels(
        self, labels: SemanticSegmentationLabels, index: int, null_class_id: int, folder: Path
    ) -> tuple[dict[str, Any], list[Path]]:
        height, width = labels.height, labels.width
        rows = ScenePart(index, self.num_parts).of(height, self._block_sz)
        if isinstance(labels, StreamedSemanticSegmentationLabels):
            smooth, blocks = labels.smooth, labels.blocks()
        else:
            smooth = isinstance(labels, SemanticSegmentationSmoothLabels)
            blocks = self._cut(labels, rows, null_class_id)
        info = {
            "labels": _PIXELS, "rows": [rows.start, rows.stop], "height": height, "width": width,
            "num_classes": labels.num_classes, "smooth": smooth, "hits": "uint8",
        }  # fmt: skip
        if not rows:
            return info, []
        spec = OutputSpec(len(rows), width, labels.num_classes, null_class_id)
        profile = raster_profile(len(rows), width, IdentityCRSTransformer(), (0, 0), self._block_sz)
        names = [LABELS, SCORES, HITS] if smooth else [LABELS]
        with BlockWriter({name: folder / name for name in names}, spec, profile, cog=False) as writer:
            for block in blocks:
                if block.hits is not None:
                    info["hits"] = block.hits.dtype.name
                writer.write(replace(block, window=block.window.translate(-rows.start, 0)))
            return info, writer.commit()

    @property
    def _block_sz(self) -> int:
        return int(getattr(self.scene.label_store, "rasterio_block_size", _DEFAULT_BLOCK_SZ))

    def _windows(self, rows: range, width: int) -> Iterator[Box]:
        """Yield windows of whole output tiles."""
        step = _COLS_AT_ONCE * self._block_sz
        for y in range(rows.start, rows.stop, self._block_sz):
            for x in range(0, width, step):
                yield Box(y, x, min(y + self._block_sz, rows.stop), min(x + step, width))

    def _cut(self, labels: SemanticSegmentationLabels, rows: range, null_class_id: int) -> Iterator[LabelBlock]:
        """Yield blocks of labels of a whole scene in memory."""
        for window in self._windows(rows, labels.width):
            ids = labels.get_label_arr(window, null_class_id).astype(label_dtype(labels.num_classes), copy=False)
            if isinstance(labels, SemanticSegmentationSmoothLabels):
                hits = labels.pixel_hits[window.to_slices()]
                scores = labels.get_score_arr(window).astype(np.float32)
                yield LabelBlock(window, ids, scores, hits, complete=bool(hits.all()))
            else:
                yield LabelBlock(window, ids)

    # -- reading ---------------------------------------------------------------------------------------------------

    def load(self) -> Labels:
        """Return the labels of the scene; those of pixels are read when a label store takes them.

        Raises:
            RunError: A part is not there.
        """
        infos = [self._info(i) for i in range(self.num_parts)]
        kind = infos[0]["labels"]
        if kind == _PIXELS:
            first = infos[0]
            return StreamedSemanticSegmentationLabels(
                Box(0, 0, first["height"], first["width"]),
                first["num_classes"],
                smooth=first["smooth"],
                make_blocks=lambda: self._blocks(infos),
                block_sz=self._block_sz,
            )
        parts = [self._load_arrays(_KINDS[kind], i) for i in range(self.num_parts)]
        labels: Labels = parts[0]
        for part in parts[1:]:
            labels = labels + part
        return labels

    def _info(self, index: int) -> dict[str, Any]:
        from rastervision.pipeline.file_system.utils import file_to_json

        try:
            info: dict[str, Any] = file_to_json(f"{self.part_uri(index)}/{_INFO}")
        except NotReadableError as e:
            raise RunError(
                f"Part {index + 1} of {self.num_parts} of scene {self.scene.id!r} is not at {self.part_uri(index)}. "
                f"Run the predict command again, in {self.num_parts} or another number of splits."
            ) from e
        return info

    def _load_arrays(self, kind: Any, index: int) -> Any:
        with TemporaryDirectory(dir=self.tmp_dir, prefix="part-") as tmp_dir:
            return kind.from_arrays(np.load(self._local(index, _ARRAYS, tmp_dir), allow_pickle=False))

    def _local(self, index: int, name: str, tmp_dir: str) -> str:
        from rastervision.pipeline.file_system.utils import download_if_needed

        return download_if_needed(f"{self.part_uri(index)}/{name}", tmp_dir, use_cache=False)

    def _blocks(self, infos: Sequence[dict[str, Any]]) -> Iterator[LabelBlock]:
        hits_dtype = np.result_type(*(info["hits"] for info in infos))
        for index, info in enumerate(infos):
            rows = range(*info["rows"])
            if rows:  # one part at a time is here, and goes before the next one comes
                with TemporaryDirectory(dir=self.tmp_dir, prefix="part-") as tmp_dir:
                    names = (LABELS, SCORES, HITS) if info["smooth"] else (LABELS,)
                    paths = {name: self._local(index, name, tmp_dir) for name in names}
                    yield from self._blocks_of_part(paths, rows, info["width"], hits_dtype)

    def _blocks_of_part(
        self, paths: dict[str, str], rows: range, width: int, hits_dtype: np.dtype[Any]
    ) -> Iterator[LabelBlock]:
        from contextlib import ExitStack

        from rastervision.core.data.utils.dataset_pool import open_image

        with ExitStack() as stack:
            opened = {name: stack.enter_context(open_image(p)) for name, p in paths.items() if name != HITS}
            all_hits = np.load(paths[HITS], mmap_mode="r", allow_pickle=False) if HITS in paths else None
            for window in self._windows(rows, width):
                place = window.translate(-rows.start, 0).to_slices()
                gdal_window = tuple((s.start, s.stop) for s in place)
                labels = opened[LABELS].read(1, window=gdal_window)
                if all_hits is None:
                    yield LabelBlock(window, labels)
                    continue
                hits = all_hits[place].astype(hits_dtype)
                scores = opened[SCORES].read(window=gdal_window)
                yield LabelBlock(window, labels, scores, hits, complete=bool(hits.all()))

    def remove(self) -> None:
        """Remove the files of the parts; where that is not allowed, the next prediction replaces them."""
        from rastervision.pipeline.file_system.utils import get_local_path, is_local, sync_to_dir

        if is_local(self.uri):
            folder = Path(get_local_path(self.uri, ""))
            shutil.rmtree(folder, ignore_errors=True)
            if folder.parent.is_dir() and not any(folder.parent.iterdir()):
                folder.parent.rmdir()
            return
        with TemporaryDirectory(dir=self.tmp_dir) as nothing:
            try:
                sync_to_dir(nothing, self.uri, delete=True)
            except (RasterVisionError, OSError) as e:
                log.warning("the parts of %s are merged, and stay where they are: %s", self.scene.id, e)


def _save_arrays(labels: Any, folder: Path) -> tuple[dict[str, Any], list[Path]]:
    kind = next((name for name, cls in _KINDS.items() if isinstance(labels, cls)), None)
    if kind is None:
        raise ConfigError(
            f"Scenes cannot be predicted in parts to {type(labels).__name__}. Run with as many --splits as there are "
            "scenes, or fewer."
        )
    path = folder / _ARRAYS
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, **labels.to_arrays())
    os.replace(partial, path)
    return {"labels": kind}, [path]
