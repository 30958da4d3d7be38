"""Ground truth for semantic segmentation: a class id per pixel, from a label raster or rasterised vectors.

Next: `rastervision.core.data.scene`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Discriminator, Field, Tag

from rastervision.core.box import Box
from rastervision.core.data.label.label_blocks import label_dtype
from rastervision.core.data.label_source.label_source import LabelSource, LabelSourceConfig
from rastervision.core.data.raster_source.alignment import AlignedSource
from rastervision.core.data.raster_source.raster_source import RasterSourceConfig
from rastervision.core.data.raster_source.rasterized_source import RasterizedSourceConfig
from rastervision.core.data.utils.misc import is_same_frame, parse_array_slices_2d, same_pixels
from rastervision.core.data.utils.raster import fill_overflow
from rastervision.pipeline.config import ConfigError, register_config
from rastervision.pipeline.config_tree import pass_on, passes_on

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer
    from rastervision.core.data.label import SemanticSegmentationLabels
    from rastervision.core.data.raster_source import RasterSource
    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.rv_pipeline import RVPipelineConfig

__all__ = ["SemanticSegmentationLabelSource", "SemanticSegmentationLabelSourceConfig"]

log = logging.getLogger(__name__)

# a place this close to a pixel of the labels lies in it: the centre of a pixel of the image may be a corner of theirs
_TOLERANCE_PX = 1e-3
_MAX_ALIGNED_PIXELS = 1 << 20


def _kind(value: Any) -> str:
    """Tell which of the two unrelated configs a value is, so that errors are of that one only."""
    if isinstance(value, dict):
        return "rasterized_source" if value.get("type_hint") == "rasterized_source" else "raster_source"
    return "rasterized_source" if isinstance(value, RasterizedSourceConfig) else "raster_source"


_AnyRasterSourceConfig = Annotated[
    Annotated[RasterSourceConfig, Tag("raster_source")] | Annotated[RasterizedSourceConfig, Tag("rasterized_source")],
    Discriminator(_kind),
]


@register_config("semantic_segmentation_label_source")
class SemanticSegmentationLabelSourceConfig(LabelSourceConfig):
    """Configure a `SemanticSegmentationLabelSource`."""

    raster_source: _AnyRasterSourceConfig = Field(
        description="Raster of class ids, one channel; or vectors to rasterise."
    )

    @passes_on
    def update(self, pipeline: RVPipelineConfig | None = None, scene: SceneConfig | None = None) -> None:
        """Update the raster source."""
        pass_on(self, "update", pipeline, scene)

    def build(
        self,
        class_config: ClassConfig,
        crs_transformer: CRSTransformer,
        bbox: Box | None = None,
        tmp_dir: str | None = None,
    ) -> SemanticSegmentationLabelSource:
        """Build the source; ``bbox`` and the labels it gives are in the pixels of ``crs_transformer``."""
        if isinstance(self.raster_source, RasterizedSourceConfig):
            rasterized = self.raster_source.build(class_config, crs_transformer, bbox)
            return SemanticSegmentationLabelSource(rasterized, class_config, bbox=bbox)
        source = SemanticSegmentationLabelSource(self.raster_source.build(tmp_dir), class_config)
        if bbox is not None:
            source.match_pixels(crs_transformer, bbox)
        return source


@dataclass
class _Pixels:
    """The pixels of an image, of which `bbox` are those of the scene."""

    crs_transformer: CRSTransformer
    bbox: Box

    @property
    def extent(self) -> Box:
        return self.bbox.extent


class SemanticSegmentationLabelSource(LabelSource):
    """Gives (H, W) class ids; pixels outside the extent or the label raster have the null class, if there is one.

    So have pixels that a label raster marks as nodata, unless its nodata value is 0: that is the class with id 0.
    In a scene, a label raster with other pixels than the image is read by map coordinates: each pixel of the image gets
    the class of the pixel of the labels that its centre lies in.

    Args:
        raster_source: Gives chips (H, W, 1) of class ids.
        class_config: The classes.
        bbox: Part of the label raster, in its pixels. None: that of ``raster_source``.

    Raises:
        ConfigError: ``raster_source`` has more than one channel.
    """

    def __init__(self, raster_source: RasterSource, class_config: ClassConfig, bbox: Box | None = None) -> None:
        if raster_source.num_channels != 1:
            raise ConfigError(
                f"The labels in {_name_of(raster_source)} have {raster_source.num_channels} channels instead of one of "
                "class ids. Set channel_order to one channel, or use an RGBClassTransformer for labels in colour."
            )
        self.raster_source = raster_source
        self.class_config = class_config
        self._is_vector = hasattr(raster_source, "vector_source")
        self._labelled = raster_source.bbox  # what a label raster covers; vectors cover everything
        self._aligned: AlignedSource | None = None  # if labels are given in pixels of an image with others
        if bbox is not None:
            self.set_bbox(bbox)

    @property
    def bbox(self) -> Box:
        """Part of the label raster that the scene is, in its pixels; of the image, if that has others."""
        return self._reference.bbox

    @property
    def crs_transformer(self) -> CRSTransformer:
        """Between the pixels of `bbox` and map coordinates."""
        return self._reference.crs_transformer

    @property
    def _reference(self) -> Any:
        return self.raster_source if self._aligned is None else self._aligned.reference

    def set_bbox(self, bbox: Box) -> None:
        """Set `bbox`."""
        if self._aligned is None:
            self.raster_source.set_bbox(bbox)
        else:
            self._reference.bbox = bbox

    def match_image(self, image: RasterSource) -> None:
        """Give the labels of the scene that an image shows, in its pixels; see `match_pixels`.

        Raises:
            ConfigError: Image or labels have no place on a map, and their sizes differ.
        """
        own = self.raster_source
        if not self._is_vector and is_same_frame(own.crs_transformer, image.crs_transformer):
            size, image_size = _size_of(own), _size_of(image)
            if size != image_size:
                raise ConfigError(
                    f"The labels in {_name_of(own)} are {size[0]}x{size[1]} pixels, but the image {_name_of(image)} is "
                    f"{image_size[0]}x{image_size[1]}, and one of them has no CRS by which to find the place of the "
                    "labels. Give both a CRS and a transform, or the same size."
                )
        self.match_pixels(image.crs_transformer, image.bbox)

    def match_pixels(self, crs_transformer: CRSTransformer, bbox: Box) -> None:
        """Give labels in given pixels instead of those of the label raster.

        Args:
            crs_transformer: Of the pixels.
            bbox: Part of them that the scene is.
        """
        own = self.raster_source.crs_transformer
        self._aligned = None
        if same_pixels(own, crs_transformer) or is_same_frame(own, crs_transformer):
            self.set_bbox(bbox)
            return
        aligned = AlignedSource(self.raster_source, _Pixels(crs_transformer, bbox))  # type: ignore[arg-type]
        corners = [Box(y, x, y + 1, x + 1) for y in (0, bbox.height - 1) for x in (0, bbox.width - 1)]
        # (2, 4): rows and columns of the corner pixels
        places = np.array([aligned.places(c, (1, 1)) for c in corners]).reshape(4, 2).T - 0.5
        shifts = places - [[c.ymin for c in corners], [c.xmin for c in corners]]
        dy, dx = (int(v) for v in np.rint(shifts[:, 0]))
        origin = self.raster_source.bbox
        if self._is_vector or np.abs(shifts - [[dy], [dx]]).max() < _TOLERANCE_PX:
            self.set_bbox(bbox.extent.translate(origin.ymin + dy, origin.xmin + dx))
        else:
            self._aligned = aligned
            log.info(
                "the labels in %s have other pixels than the image: each pixel of the image gets the class of the "
                "one that its centre lies in",
                _name_of(self.raster_source),
            )
        (top, left), (bottom, right) = np.floor(places.min(axis=1)), np.ceil(places.max(axis=1))
        covered = Box(top, left, bottom + 1, right + 1).translate(origin.ymin, origin.xmin)
        if self._labelled.area > 0 and not covered.intersects(self._labelled):
            log.warning(
                "The labels in %s do not overlap the image: they are the pixels %s, and the image lies at %s of these. "
                "Check the CRS and the place of both.",
                _name_of(self.raster_source),
                self._labelled,
                covered,
            )

    def prepare(self) -> None:
        """Read vector labels, if that is what they are."""
        self.raster_source.prepare()

    def get_label_arr(self, window: Box | None = None) -> NDArray[np.unsignedinteger[Any]]:
        """Return (H, W) class ids of a window, or of the whole extent; uint8, or uint16 for more than 255 classes.

        Raises:
            ConfigError: A pixel has a class id that the class config does not have.
        """
        window = self.extent if window is None else window
        label_arr = self._read(window) if self._aligned is None else self._read_aligned(window, self._aligned)
        return self._null_outside(self.extent, window, label_arr)

    def _read(self, window: Box) -> NDArray[Any]:
        """Return the class ids of a window in the pixels of the label raster."""
        source = self.raster_source
        label_arr = source.get_chip(window)[..., 0]
        if label_arr.dtype.kind == "f":
            label_arr = np.where(np.isnan(label_arr), self._null, label_arr)
        dtype = label_dtype(len(self.class_config))
        if label_arr.size and not (label_arr.min() >= 0 and label_arr.max() < len(self.class_config)):
            self._raise_unknown_class(label_arr, window)
        ids = label_arr.astype(dtype, copy=False)
        if label_arr.dtype.kind == "f" and (ids != label_arr).any():
            self._raise_unknown_class(label_arr, window)
        if self._has_nodata and (valid := source.get_valid_mask(window)) is not None:
            ids = np.where(valid, ids, dtype.type(self._null))
        if self._is_vector:
            return ids
        return self._null_outside(self._labelled.to_local_coords(source.bbox), window, ids)

    def _read_aligned(self, window: Box, aligned: AlignedSource) -> NDArray[Any]:
        """Return the class ids of a window in the pixels of the image."""
        height, width = (int(n) for n in window.size)
        out = np.full((height, width), self._null, label_dtype(len(self.class_config)))
        step = max(1, _MAX_ALIGNED_PIXELS // max(width, 1))
        for y in range(0, height, step):
            part = out[y : y + step]
            top = window.ymin + y
            places = aligned.places(Box(top, window.xmin, top + len(part), window.xmax), part.shape)
            rows, cols = (np.floor(p + _TOLERANCE_PX).astype(np.int64) for p in places)
            extent = self.raster_source.extent
            inside = (rows >= 0) & (rows < extent.height) & (cols >= 0) & (cols < extent.width)
            if inside.any():
                rows, cols = rows[inside], cols[inside]
                ymin, xmin = int(rows.min()), int(cols.min())
                label_arr = self._read(Box(ymin, xmin, int(rows.max()) + 1, int(cols.max()) + 1))
                part[inside] = label_arr[rows - ymin, cols - xmin]
        return out

    @property
    def _null(self) -> int:
        """Class id of pixels without label."""
        return 0 if self.class_config.null_class is None else self.class_config.null_class_id

    def _null_outside(self, bbox: Box, window: Box, label_arr: NDArray[Any]) -> NDArray[Any]:
        return label_arr if self.class_config.null_class is None else fill_overflow(bbox, window, label_arr, self._null)

    @cached_property
    def _has_nodata(self) -> bool:
        """Whether pixels that the label raster marks as nodata are of the null class."""
        dataset = getattr(self.raster_source, "image_dataset", None)
        return self.class_config.null_class is not None and (dataset is None or dataset.nodata != 0)

    def _raise_unknown_class(self, label_arr: NDArray[Any], window: Box) -> None:
        names = self.class_config.names
        unknown = np.unique(label_arr[~np.isin(label_arr, np.arange(len(names)))])[:5].tolist()
        known = f"{names[:20]}{' and more' if len(names) > 20 else ''}"
        raise ConfigError(
            f"The labels in {_name_of(self.raster_source)} have class id {', '.join(map(str, unknown))} in {window}, "
            f"but there are {len(names)} classes, 0 to {len(names) - 1}: {known}. Add the class to the class config, "
            "or map the id to another with a ReclassTransformer."
        )

    def get_labels(self, window: Box | None = None) -> SemanticSegmentationLabels:
        """Return labels of the extent that know only a window, or all of it."""
        from rastervision.core.data.label import SemanticSegmentationLabels

        labels = SemanticSegmentationLabels.make_empty(self.extent, len(self.class_config))
        window = self.extent if window is None else window
        labels[window] = self.get_label_arr(window)
        return labels

    def __getitem__(self, key: Any) -> Any:
        """Return (H, W) class ids of a window (`Box`) or of slices of rows and columns."""
        if isinstance(key, Box):
            return self.get_label_arr(key)
        window, (h, w) = parse_array_slices_2d(key, self.extent)
        return self.get_label_arr(window)[:: h.step, :: w.step]


def _name_of(raster_source: RasterSource) -> str:
    """Return what error messages call a source."""
    source = getattr(raster_source, "vector_source", raster_source)
    uris = getattr(source, "uris", None)
    return ", ".join(uris) if uris else type(source).__name__


def _size_of(raster_source: RasterSource) -> tuple[int, int]:
    """Return height and width of an image, whatever part of it is used."""
    source = getattr(raster_source, "primary_source", raster_source)
    dataset = getattr(source, "image_dataset", None)
    return source.bbox.size if dataset is None else dataset.shape
