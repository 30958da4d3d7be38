"""Store the labels of a scene for semantic segmentation as rasters, and the outlines of its classes as polygons."""

from __future__ import annotations

import logging
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from rastervision.core.box import Box
from rastervision.core.data.label.label_blocks import LabelBlock, label_dtype
from rastervision.core.data.label.semantic_segmentation_labels import (
    SemanticSegmentationDiscreteLabels,
    SemanticSegmentationLabels,
    SemanticSegmentationSmoothLabels,
)
from rastervision.core.data.label.streamed_labels import StreamedSemanticSegmentationLabels, block_windows
from rastervision.core.data.label_store.label_reader import LabelReader, MissingPredictionError, mask_reader
from rastervision.core.data.label_store.label_store import LabelStoreConfig, SceneLabelStore
from rastervision.core.data.label_store.ss_vectors import VectorWriter, polygons_of
from rastervision.core.data.label_store.ss_writer import (
    HITS,
    LABELS,
    SCORES,
    BlockWriter,
    OutputSpec,
    raster_profile,
    tile_side,
)
from rastervision.core.data.label_store.vector_files import require_format
from rastervision.core.data.label_store.vector_output import VectorOutputConfig, vector_file_names
from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.rv_pipeline import RVPipelineConfig
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["SemanticSegmentationLabelStore", "SemanticSegmentationLabelStoreConfig"]

log = logging.getLogger(__name__)

VECTORS = "vector_output"


@register_config("semantic_segmentation_label_store")
class SemanticSegmentationLabelStoreConfig(LabelStoreConfig):
    """Configure a `SemanticSegmentationLabelStore`."""

    uri: str | None = Field(None, description="Folder of the outputs; <predict_uri>/<scene id> if not set.")
    vector_output: list[VectorOutputConfig] = Field([], description="Polygons to write, one entry per class.")
    rgb: bool = Field(False, description="Write labels.tif in the class colours instead of class ids.")
    smooth_output: bool = Field(
        False, description="Average the scores of overlapping windows, and write them as scores.tif."
    )
    smooth_as_uint8: bool = Field(False, description="Write scores as round(255 * score): a quarter of the size.")
    rasterio_block_size: int = Field(256, description="Side of the tiles of the rasters, in pixels.")

    def update(self, pipeline: RVPipelineConfig | None = None, scene: SceneConfig | None = None) -> None:
        """Fill ``uri`` from the pipeline's predict_uri and the scene's id."""
        if self.uri is None and pipeline is not None and scene is not None and pipeline.predict_uri:
            # an assignment would validate the whole config, once per scene
            self.__dict__["uri"] = f"{pipeline.predict_uri.rstrip('/')}/{scene.id}"

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report the rasters as written by predict, and the class ids as read by eval.

        The names of vector outputs depend on the classes: see `get_vector_uris`.
        """
        names = (LABELS, SCORES, HITS) if self.smooth_output else (LABELS,)
        self._report_files(command, io_def, self.uri, names)

    def get_vector_uris(self, class_config: ClassConfig) -> list[str]:
        """Return the URIs of the polygons that are written; none if ``uri`` is not set."""
        if self.uri is None:
            return []
        root = f"{self.uri.rstrip('/')}/{VECTORS}"
        return [f"{root}/{name}" for _, name in vector_file_names(self.vector_output, class_config)]

    def build(
        self,
        class_config: ClassConfig,
        crs_transformer: CRSTransformer,
        bbox: Box | None = None,
        tmp_dir: str | None = None,
    ) -> SemanticSegmentationLabelStore:
        """Build the store; ``bbox`` is the scene's, in pixels of the image."""
        if self.uri is None:
            raise ConfigError("label_store.uri is not set. Set it, or run update() on the pipeline config first.")
        return SemanticSegmentationLabelStore(
            uri=self.uri,
            crs_transformer=crs_transformer,
            class_config=class_config,
            bbox=bbox,
            tmp_dir=tmp_dir,
            vector_outputs=self.vector_output,
            save_as_rgb=self.rgb,
            smooth_output=self.smooth_output,
            smooth_as_uint8=self.smooth_as_uint8,
            rasterio_block_size=self.rasterio_block_size,
        )


class SemanticSegmentationLabelStore(SceneLabelStore):
    """A folder with ``labels.tif``, ``scores.tif`` and ``pixel_hits.npy`` (if smooth), and ``vector_output/class-*``.

    Args:
        uri: The folder; may be remote.
        crs_transformer: Of the scene's imagery.
        class_config: The classes, with a null class for unlabelled pixels.
        bbox: Part of the image that the scene is, in pixels; known at the latest when labels are saved.
        tmp_dir: Where files are written before they are uploaded to a remote ``uri``.
        vector_outputs: Polygons to write.
        save_as_rgb: Write labels in class colours.
        discrete_output: Write ``labels.tif``.
        smooth_output: Write ``scores.tif``.
        smooth_as_uint8: Write scores as ``round(255 * score)``.
        rasterio_block_size: Side of a tile in pixels.
    """

    def __init__(
        self,
        uri: str,
        crs_transformer: CRSTransformer,
        class_config: ClassConfig,
        bbox: Box | None = None,
        tmp_dir: str | None = None,
        vector_outputs: Sequence[VectorOutputConfig] | None = None,
        save_as_rgb: bool = False,
        discrete_output: bool = True,
        smooth_output: bool = False,
        smooth_as_uint8: bool = False,
        rasterio_block_size: int = 512,
    ) -> None:
        super().__init__(crs_transformer, bbox)
        self.root_uri = uri.rstrip("/")
        self.class_config = class_config
        self.class_config.ensure_null_class()
        self.tmp_dir = tmp_dir
        self.vector_outputs = list(vector_outputs or [])
        self.save_as_rgb = save_as_rgb
        self.discrete_output = discrete_output
        self.smooth_output = smooth_output
        self.smooth_as_uint8 = smooth_as_uint8
        self.rasterio_block_size = tile_side(rasterio_block_size)  # blocks of labels are whole tiles

    @property
    def label_uri(self) -> str:
        """URI of the class ids."""
        return f"{self.root_uri}/{LABELS}"

    @property
    def score_uri(self) -> str:
        """URI of the scores."""
        return f"{self.root_uri}/{SCORES}"

    @property
    def hits_uri(self) -> str:
        """URI of the number of windows over each pixel."""
        return f"{self.root_uri}/{HITS}"

    @property
    def vector_output_uri(self) -> str:
        """URI of the folder of the polygons."""
        return f"{self.root_uri}/{VECTORS}"

    @property
    def root_uri_local(self) -> str:
        """Local folder that files are written to: that of the URI, or one whose content is uploaded."""
        from rastervision.pipeline.file_system.utils import get_local_path, get_tmp_dir, is_local

        if is_local(self.root_uri):
            return self.root_uri
        if self.tmp_dir is None:
            tmp_dir = get_tmp_dir()
            weakref.finalize(self, tmp_dir.cleanup)
            self.tmp_dir = tmp_dir.name
        return get_local_path(self.root_uri, self.tmp_dir)

    @property
    def vector_output_dir_local(self) -> str:
        """Local folder that polygons are written to."""
        return str(Path(self.root_uri_local) / VECTORS)

    # -- writing ---------------------------------------------------------------------------------------------------

    def save(self, labels: SemanticSegmentationLabels, profile: dict[str, Any] | None = None) -> None:
        """Write labels, replacing an earlier prediction as a whole.

        Labels that stream are predicted while they are written, in memory that does not grow with the scene.

        Args:
            labels: Labels of the whole scene, in pixels of the bbox.
            profile: rasterio profile entries that override ours, for instance ``{"compress": "lzw"}``.
        """
        from rastervision.pipeline.file_system.utils import is_local, sync_to_dir

        for vector_output in self.vector_outputs:
            require_format(vector_output.format)
        folder = Path(self.root_uri_local)
        names = [LABELS] * (self.discrete_output or bool(self.vector_outputs)) + [SCORES, HITS] * self.smooth_output
        paths = {name: folder / name for name in names}
        with self._block_writer(paths, labels, profile) as writer, self._vector_writer(folder) as vectors:
            for block in self._blocks_of(labels):
                writer.write(block)
            writer.close()
            self._vectorize(writer, vectors)
            if LABELS in paths and not self.discrete_output:  # it was needed for the polygons
                writer.drop(LABELS)
            written = writer.commit() + vectors.commit()
        self._remove_stale(folder, written)
        if not is_local(self.root_uri):
            sync_to_dir(str(folder), self.root_uri)
        log.info("wrote %s", ", ".join(str(p) for p in written))

    def _block_writer(
        self,
        paths: dict[str, Path],
        labels: SemanticSegmentationLabels,
        overrides: dict[str, Any] | None = None,
    ) -> BlockWriter:
        spec = OutputSpec(
            height=int(labels.extent.height),
            width=int(labels.extent.width),
            num_classes=labels.num_classes,
            null_class_id=self.class_config.null_class_id,
            palette=self._palette(),
            smooth_as_uint8=self.smooth_as_uint8,
        )
        return BlockWriter(paths, spec, self.build_rasterio_gtiff_profile(labels), overrides)

    def _vector_writer(self, folder: Path) -> VectorWriter:
        return VectorWriter(folder / VECTORS, self.class_config, self._crs_transformer, self._origin())

    def _origin(self) -> tuple[int, int]:
        return (0, 0) if self._bbox is None else (int(self._bbox.ymin), int(self._bbox.xmin))

    def _palette(self) -> NDArray[np.uint8] | None:
        if not self.save_as_rgb:
            return None
        return np.round(np.array(self.class_config.color_triples) * 255).astype(np.uint8)

    def _blocks_of(self, labels: SemanticSegmentationLabels) -> Iterator[LabelBlock]:
        if isinstance(labels, StreamedSemanticSegmentationLabels):
            yield from labels.blocks()
            return
        null = self.class_config.null_class_id
        for window in block_windows(labels.extent, self.rasterio_block_size):
            label_arr = labels.get_label_arr(window, null).astype(label_dtype(labels.num_classes), copy=False)
            if isinstance(labels, SemanticSegmentationSmoothLabels):
                rows, cols = window.to_slices()
                scores = labels.get_score_arr(window).astype(np.float32)
                hits = labels.pixel_hits[rows, cols]
                yield LabelBlock(window, label_arr, scores, hits, complete=bool(hits.all()))
            else:
                yield LabelBlock(window, label_arr)

    def _vectorize(self, writer: BlockWriter, vectors: VectorWriter) -> None:
        """Write polygons of what was written but has no final name yet."""

        def run(output: tuple[VectorOutputConfig, str]) -> None:
            vector_output, name = output
            with LabelReader(writer.temporary(LABELS), self.class_config, self._palette()) as reader:
                scores = writer.temporary(SCORES) if self.smooth_output else None
                read_mask = mask_reader(vector_output, reader, scores)
                vectors.write(vector_output, polygons_of(vector_output, read_mask, *reader.extent.size), name)

        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(run, vector_file_names(self.vector_outputs, self.class_config)))

    @staticmethod
    def _remove_stale(folder: Path, written: list[Path]) -> None:
        """Remove the files of an earlier prediction that have no successor."""
        stale = {folder / name for name in (LABELS, SCORES, HITS)}
        for suffix in ("json", "gpkg", "parquet"):
            stale.update((folder / VECTORS).glob(f"class-*.{suffix}"))
        for path in stale.difference(written):
            path.unlink(missing_ok=True)

    # -- writing a part --------------------------------------------------------------------------------------------

    def build_rasterio_gtiff_profile(self, labels: SemanticSegmentationLabels) -> dict[str, Any]:
        """Return the rasterio profile of rasters of labels, without number and type of the bands."""
        height, width = int(labels.extent.height), int(labels.extent.width)
        return raster_profile(height, width, self._crs_transformer, self._origin(), self.rasterio_block_size)

    def write_discrete_raster_output(
        self, out_profile: dict[str, Any], path: str, labels: SemanticSegmentationLabels
    ) -> None:
        """Write class ids, or colours, to a local path.

        Args:
            out_profile: As `build_rasterio_gtiff_profile` returns it.
            path: GeoTIFF to write.
            labels: Labels of the whole scene.
        """
        self._write_rasters({LABELS: Path(path)}, labels, out_profile)

    def write_smooth_raster_output(
        self, out_profile: dict[str, Any], scores_path: str, hits_path: str, labels: SemanticSegmentationSmoothLabels
    ) -> None:
        """Write scores and hits to local paths.

        Args:
            out_profile: As `build_rasterio_gtiff_profile` returns it.
            scores_path: GeoTIFF to write.
            hits_path: ``.npy`` file to write.
            labels: Labels of the whole scene.
        """
        self._write_rasters({SCORES: Path(scores_path), HITS: Path(hits_path)}, labels, out_profile)

    def _write_rasters(
        self, paths: dict[str, Path], labels: SemanticSegmentationLabels, profile: dict[str, Any]
    ) -> None:
        with self._block_writer(paths, labels, profile) as writer:
            for block in self._blocks_of(labels):
                writer.write(block)
            writer.commit()

    def write_vector_outputs(self, labels: SemanticSegmentationLabels, vector_output_dir: str) -> None:
        """Write the polygons of all vector outputs to a local folder."""
        for vector_output, name in vector_file_names(self.vector_outputs, self.class_config):
            class_id, threshold = vector_output.class_id, vector_output.threshold
            mask = labels.get_class_mask(labels.extent, class_id, threshold)
            self._write_vectors(vector_output, mask, vector_output_dir, name)

    def write_vector_output(self, vo: VectorOutputConfig, mask: NDArray[Any], vector_output_dir: str) -> None:
        """Write polygons to a local folder.

        Args:
            vo: How to make them.
            mask: (H, W), 1 or True where the class is.
            vector_output_dir: Folder of the file.
        """
        self._write_vectors(vo, mask, vector_output_dir, vo.get_file_name(self.class_config))

    def _write_vectors(self, vo: VectorOutputConfig, mask: NDArray[Any], folder: str, name: str) -> None:
        require_format(vo.format)
        polygons = polygons_of(vo, lambda window: mask[window.to_slices()].astype(np.uint8), *mask.shape)
        with VectorWriter(Path(folder), self.class_config, self._crs_transformer, self._origin()) as writer:
            writer.write(vo, polygons, name)
            writer.commit()

    def merge_with_old_scores(self, labels: SemanticSegmentationSmoothLabels) -> SemanticSegmentationSmoothLabels:
        """Return labels with the scores and hits that are stored added to them; `save` itself replaces what is stored.

        Raises:
            ValueError: The stored scores are of another size or number of classes.
        """
        from rastervision.pipeline.file_system.utils import file_exists

        return labels + self.get_scores() if file_exists(self.score_uri, include_dir=False) else labels

    # -- reading ---------------------------------------------------------------------------------------------------

    def label_reader(self) -> LabelReader:
        """Return a reader of the stored class ids, window by window; use it as a context manager.

        Raises:
            MissingPredictionError: Nothing is stored.
        """
        return LabelReader(self._local(self.label_uri), self.class_config, self._palette())

    def _local(self, uri: str) -> Path:
        from rastervision.pipeline.file_system.utils import download_if_needed, file_exists

        if not file_exists(uri, include_dir=False):
            raise MissingPredictionError(
                f"There is no prediction at {uri}. Run the predict command for this scene first."
            )
        return Path(download_if_needed(uri))

    def get_labels(self) -> SemanticSegmentationLabels:
        """Return the stored labels in memory: with scores if the store is smooth.

        Raises:
            MissingPredictionError: Nothing is stored.
        """
        return self.get_scores() if self.smooth_output else self.get_discrete_labels()

    def get_discrete_labels(self) -> SemanticSegmentationDiscreteLabels:
        """Return the stored class ids in memory."""
        with self.label_reader() as reader:
            labels = SemanticSegmentationDiscreteLabels.make_empty(reader.extent, len(self.class_config))
            for window in block_windows(reader.extent, self.rasterio_block_size):
                labels.add_window(window, reader.get_label_arr(window))
        return labels

    def get_scores(self) -> SemanticSegmentationSmoothLabels:
        """Return the stored scores and hits in memory; without a hits file each pixel counts once."""
        from rastervision.core.data.utils.dataset_pool import open_image
        from rastervision.pipeline.file_system.utils import file_exists

        with open_image(str(self._local(self.score_uri))) as src:
            scores = src.read().astype(np.float32)
            if src.dtypes[0] == "uint8":
                scores /= 255
        hits = np.ones(scores.shape[1:], np.uint8)
        if file_exists(self.hits_uri, include_dir=False):
            hits = np.load(self._local(self.hits_uri))
        labels = SemanticSegmentationSmoothLabels.make_empty(Box(0, 0, *hits.shape), len(scores))
        labels.pixel_scores[:] = np.nan_to_num(scores) * hits
        labels.pixel_hits = hits
        return labels
