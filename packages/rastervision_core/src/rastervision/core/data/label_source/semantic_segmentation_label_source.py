"""Ground truth for semantic segmentation: a class id per pixel, from a label raster or rasterised vectors.

Next: `rastervision.core.data.scene`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Discriminator, Field, Tag

from rastervision.core.box import Box
from rastervision.core.data.label_source.label_source import LabelSource, LabelSourceConfig
from rastervision.core.data.raster_source.raster_source import RasterSourceConfig
from rastervision.core.data.raster_source.rasterized_source import RasterizedSourceConfig
from rastervision.core.data.utils.misc import parse_array_slices_2d
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
        """Build the source; vectors are put in the pixels of ``crs_transformer``, a raster has its own."""
        raster_source: RasterSource
        if isinstance(self.raster_source, RasterizedSourceConfig):
            raster_source = self.raster_source.build(class_config, crs_transformer, bbox)
        else:
            raster_source = self.raster_source.build(tmp_dir)
        return SemanticSegmentationLabelSource(raster_source, class_config, bbox=bbox)


class SemanticSegmentationLabelSource(LabelSource):
    """Gives (H, W) class ids; pixels outside the extent have the null class, if there is one.

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
        if bbox is not None:
            self.set_bbox(bbox)

    @property
    def bbox(self) -> Box:
        """Part of the label raster that the scene is, in its pixels."""
        return self.raster_source.bbox

    @property
    def crs_transformer(self) -> CRSTransformer:
        """Between pixels of the label raster and map coordinates."""
        return self.raster_source.crs_transformer

    def set_bbox(self, bbox: Box) -> None:
        """Set the part of the label raster that the scene is, in its pixels."""
        self.raster_source.set_bbox(bbox)

    def get_label_arr(self, window: Box | None = None) -> NDArray[np.uint8]:
        """Return (H, W) uint8 class ids of a window, or of the whole extent.

        Raises:
            ConfigError: A pixel has a class id that the class config does not have.
        """
        window = self.extent if window is None else window
        label_arr = self.raster_source.get_chip(window)[..., 0]
        if label_arr.size and (label_arr.min() < 0 or label_arr.max() >= len(self.class_config)):
            self._raise_unknown_class(label_arr, window)
        label_arr = label_arr.astype(np.uint8, copy=False)
        if self.class_config.null_class is not None:
            label_arr = fill_overflow(self.extent, window, label_arr, self.class_config.null_class_id)
        return label_arr

    def _raise_unknown_class(self, label_arr: NDArray[Any], window: Box) -> None:
        names = self.class_config.names
        known = np.arange(len(names))
        unknown = np.unique(label_arr[~np.isin(label_arr, known)])[:5].tolist()
        raise ConfigError(
            f"The labels in {_name_of(self.raster_source)} have class id {', '.join(map(str, unknown))} in {window}, "
            f"but there are {len(names)} classes, 0 to {len(names) - 1}: {names}. Add the class to the class config, "
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
    """Return what error messages call a source of labels."""
    source = getattr(raster_source, "vector_source", raster_source)
    uris = getattr(source, "uris", None)
    return ", ".join(uris) if uris else type(source).__name__
