"""Store the labels of a scene for semantic segmentation as rasters, and its polygons as GeoJSON."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from rastervision.core.box import Box
from rastervision.core.data.label.label_blocks import LabelBlock
from rastervision.core.data.label.semantic_segmentation_labels import (
    SemanticSegmentationDiscreteLabels,
    SemanticSegmentationLabels,
    SemanticSegmentationSmoothLabels,
)
from rastervision.core.data.label.streamed_labels import StreamedSemanticSegmentationLabels, block_windows
from rastervision.core.data.label_store.label_reader import LabelReader, MissingPredictionError, mask_reader
from rastervision.core.data.label_store.label_store import LabelStore, LabelStoreConfig
from rastervision.core.data.label_store.ss_vectors import polygons_of, to_map_coords, write_polygons
from rastervision.core.data.label_store.ss_writer import (
    HITS,
    LABELS,
    SCORES,
    BlockWriter,
    OutputSpec,
    raster_profile,
)
from rastervision.core.data.label_store.vector_output import VectorOutputConfig
from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

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
        return [f"{root}/{_vector_name(output, class_config)}" for output in self.vector_output]

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


def _vector_name(vector_output: VectorOutputConfig, class_config: ClassConfig) -> str:
    return vector_output.get_uri("", class_config).rpartition("/")[2]


class SemanticSegmentationLabelStore(LabelStore):
    """A folder with ``labels.tif``, ``scores.tif`` and ``pixel_hits.npy`` (if smooth), and ``vector_output/*.json``.

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
        self.root_uri = uri.rstrip("/")
        self.class_config = class_config
        self.class_config.ensure_null_class()
        self.tmp_dir = tmp_dir
        self.vector_outputs = list(vector_outputs or [])
        self.save_as_rgb = save_as_rgb
        self.discrete_output = discrete_output
        self.smooth_output = smooth_output
        self.smooth_as_uint8 = smooth_as_uint8
        self.rasterio_block_size = rasterio_block_size
        self._crs_transformer = crs_transformer
        self._bbox = bbox

    @property
    def bbox(self) -> Box | None:
        """Part of the image that the scene is, in pixels."""
        return self._bbox

    def set_bbox(self, bbox: Box) -> None:
        """Set the part of the image that the scene is, in pixels."""
        self._bbox = bbox

    @property
    def crs_transformer(self) -> CRSTransformer:
        """Between pixels of the image and map coordinates."""
        return self._crs_transformer

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

    # -- writing ---------------------------------------------------------------------------------------------------

    def save(self, labels: SemanticSegmentationLabels, profile: dict[str, Any] | None = None) -> None:
        """Write labels, replacing an earlier prediction as a whole.

        Labels that stream are predicted while they are written, in memory that does not grow with the scene.

        Args:
            labels: Labels of the whole scene, in pixels of the bbox.
            profile: rasterio profile entries that override ours, for instance ``{"compress": "lzw"}``.
        """
        from rastervision.pipeline.file_system.utils import is_local, sync_to_dir

        folder = Path(self.root_uri) if is_local(self.root_uri) else Path(self._local_folder())
        spec = self._output_spec(labels)
        origin = (0, 0) if self._bbox is None else (int(self._bbox.ymin), int(self._bbox.xmin))
        full_profile = raster_profile(spec.height, spec.width, self._crs_transformer, origin, spec.block_sz)
        with BlockWriter(folder, spec, {**full_profile, **(profile or {})}) as writer:
            for block in self._blocks_of(labels):
                writer.write(block)
            writer.close()
            polygons = self._vectorize(writer, spec, origin)
            written = writer.commit()
        for name, geoms in polygons.items():
            write_polygons(folder / VECTORS / name, geoms)
            written.append(folder / VECTORS / name)
        self._remove_stale_vectors(folder, set(polygons))
        if not is_local(self.root_uri):
            sync_to_dir(str(folder), self.root_uri)
        log.info("wrote %s", ", ".join(str(p) for p in written))

    def _local_folder(self) -> str:
        import tempfile

        return tempfile.mkdtemp(dir=self.tmp_dir, prefix="labels-")

    def _output_spec(self, labels: SemanticSegmentationLabels) -> OutputSpec:
        palette = None
        if self.save_as_rgb:
            palette = np.round(np.array(self.class_config.color_triples) * 255).astype(np.uint8)
        return OutputSpec(
            height=int(labels.extent.height),
            width=int(labels.extent.width),
            num_classes=labels.num_classes,
            null_class_id=self.class_config.null_class_id,
            block_sz=self.rasterio_block_size,
            palette=palette,
            smooth=self.smooth_output,
            smooth_as_uint8=self.smooth_as_uint8,
            discrete=self.discrete_output,
        )

    def _blocks_of(self, labels: SemanticSegmentationLabels) -> Iterator[LabelBlock]:
        if isinstance(labels, StreamedSemanticSegmentationLabels):
            yield from labels.blocks()
            return
        null = self.class_config.null_class_id
        for window in block_windows(labels.extent, self.rasterio_block_size):
            label_arr = labels.get_label_arr(window, null).astype(np.uint8)
            if isinstance(labels, SemanticSegmentationSmoothLabels):
                rows, cols = window.to_slices()
                scores = labels.get_score_arr(window).astype(np.float32)
                yield LabelBlock(window, label_arr, scores, labels.pixel_hits[rows, cols])
            else:
                yield LabelBlock(window, label_arr)

    def _vectorize(
        self, writer: BlockWriter, spec: OutputSpec, origin: tuple[int, int]
    ) -> dict[str, NDArray[np.object_]]:
        """Return file name -> polygons in map coordinates, from what was written but has no final name yet."""
        if not self.vector_outputs:
            return {}

        def run(vector_output: VectorOutputConfig) -> tuple[str, NDArray[np.object_]]:
            with LabelReader(writer.temporary(LABELS), self.class_config, spec.palette) as reader:
                scores = writer.temporary(SCORES) if spec.smooth else None
                read_mask = mask_reader(vector_output, reader, scores)
                polygons = polygons_of(vector_output, read_mask, spec.height, spec.width)
                name = _vector_name(vector_output, self.class_config)
                return name, to_map_coords(polygons, self._crs_transformer, origin)

        with ThreadPoolExecutor(max_workers=2) as pool:
            return dict(pool.map(run, self.vector_outputs))

    @staticmethod
    def _remove_stale_vectors(folder: Path, names: set[str]) -> None:
        for path in (folder / VECTORS).glob("class-*.json"):
            if path.name not in names:
                path.unlink()

    # -- reading ---------------------------------------------------------------------------------------------------

    def label_reader(self) -> LabelReader:
        """Return a reader of the stored class ids, window by window; use it as a context manager.

        Raises:
            MissingPredictionError: Nothing is stored.
        """
        palette = None
        if self.save_as_rgb:
            palette = np.round(np.array(self.class_config.color_triples) * 255).astype(np.uint8)
        return LabelReader(self._local(self.label_uri), self.class_config, palette)

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
        import rasterio

        from rastervision.pipeline.file_system.utils import file_exists

        with rasterio.open(self._local(self.score_uri)) as src:
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
