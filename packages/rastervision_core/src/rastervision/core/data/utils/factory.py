"""Make scenes in one call, for notebooks and tests.

What scenes are made of builds on the other modules of this package, so it is imported when it is needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from rastervision.core.data.utils.misc import listify_uris
from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.label_source.label_source import LabelSource
    from rastervision.core.data.raster_source.raster_source import RasterSource
    from rastervision.core.data.scene import Scene
    from rastervision.core.data.vector_source.vector_source import VectorSource

__all__ = ["make_cc_scene", "make_od_scene", "make_ss_scene"]


def make_ss_scene(
    image_uri: str | list[str],
    label_raster_uri: str | list[str] | None = None,
    class_config: ClassConfig | None = None,
    label_vector_uri: str | list[str] | None = None,
    aoi_uri: str | Sequence[str] = (),
    label_vector_default_class_id: int | None = None,
    image_raster_source_kw: Mapping[str, Any] | None = None,
    label_raster_source_kw: Mapping[str, Any] | None = None,
    label_vector_source_kw: Mapping[str, Any] | None = None,
    scene_id: str | None = None,
) -> Scene:
    """Return a scene for semantic segmentation from image and label files.

    Args:
        image_uri: Image, or images that together make one.
        label_raster_uri: Raster of class ids; at most one of this and ``label_vector_uri``.
        class_config: The classes; needed if there are labels. A null class is added if it has none.
        label_vector_uri: GeoJSON, or another vector format by its extension, of polygons; of points and lines, which
            get a width of one pixel, unless there is a `BufferTransformer` for them.
        aoi_uri: Files with polygons of interest.
        label_vector_default_class_id: Class of vector features that do not say theirs; they are dropped if not given.
        image_raster_source_kw: More arguments for the `RasterioSource` of the image.
        label_raster_source_kw: More arguments for the `RasterioSource` of the label raster, or for the
            `RasterizedSource` of vector labels (``background_class_id``: the null class by default).
        label_vector_source_kw: More arguments for the `GeoJSONVectorSource` of the labels.
        scene_id: Name of the scene; a random one by default.

    Raises:
        ConfigError: Both kinds of labels are given, or labels without a class config.
    """
    from rastervision.core.data.label_source.semantic_segmentation_label_source import SemanticSegmentationLabelSource
    from rastervision.core.data.raster_source.rasterio_source import RasterioSource
    from rastervision.core.data.raster_source.rasterized_source import RasterizedSource

    if label_raster_uri is not None and label_vector_uri is not None:
        raise ConfigError("Labels come from label_raster_uri or label_vector_uri, not both. Give one of them.")
    image = RasterioSource(image_uri, **(image_raster_source_kw or {}))
    label_source = None
    raster_kw = dict(label_raster_source_kw or {})
    if label_raster_uri is not None or label_vector_uri is not None:
        classes = _needed(class_config)
        classes.ensure_null_class()
        labels: RasterSource
        if label_vector_uri is not None:
            vectors = _vectors(
                label_vector_uri, image, classes, label_vector_default_class_id, label_vector_source_kw or {}
            )
            defaults = {"background_class_id": classes.null_class_id, "bbox": image.bbox}
            labels = RasterizedSource(vectors, **{**defaults, **raster_kw})
        else:
            assert label_raster_uri is not None
            labels = RasterioSource(label_raster_uri, **raster_kw)
        label_source = SemanticSegmentationLabelSource(labels, classes)
    return _scene(scene_id, image, label_source, aoi_uri)


def make_cc_scene(
    image_uri: str | list[str],
    label_vector_uri: str | list[str] | None = None,
    class_config: ClassConfig | None = None,
    aoi_uri: str | Sequence[str] = (),
    label_vector_default_class_id: int | None = None,
    image_raster_source_kw: Mapping[str, Any] | None = None,
    label_vector_source_kw: Mapping[str, Any] | None = None,
    label_source_kw: Mapping[str, Any] | None = None,
    scene_id: str | None = None,
) -> Scene:
    """Return a scene for chip classification from image and label files; arguments as those of `make_ss_scene`.

    Args:
        image_uri: Image, or images that together make one.
        label_vector_uri: Polygons that are cells, or from which the classes of cells are inferred.
        class_config: The classes; needed if there are labels.
        aoi_uri: Files with polygons of interest.
        label_vector_default_class_id: Class of features that do not say theirs.
        image_raster_source_kw: More arguments for the `RasterioSource` of the image.
        label_vector_source_kw: More arguments for the `GeoJSONVectorSource` of the labels.
        label_source_kw: Fields of the `ChipClassificationLabelSourceConfig`, which says how cells come about. Cells are
            made when they are asked for (``lazy``) unless it says otherwise.
        scene_id: Name of the scene; a random one by default.

    Raises:
        ConfigError: There are labels but no class config.
    """
    from rastervision.core.data.label_source.chip_classification_label_source import (
        ChipClassificationLabelSource,
        ChipClassificationLabelSourceConfig,
    )
    from rastervision.core.data.raster_source.rasterio_source import RasterioSource

    image = RasterioSource(image_uri, **(image_raster_source_kw or {}))
    label_source = None
    if label_vector_uri is not None:
        classes = _needed(class_config)
        vectors = _vectors(
            label_vector_uri, image, classes, label_vector_default_class_id, label_vector_source_kw or {}
        )
        config = ChipClassificationLabelSourceConfig(**{"lazy": True, **(label_source_kw or {})})
        label_source = ChipClassificationLabelSource(config, vectors, bbox=image.bbox, lazy=config.lazy)
    return _scene(scene_id, image, label_source, aoi_uri)


def make_od_scene(
    image_uri: str | list[str],
    label_vector_uri: str | list[str] | None = None,
    class_config: ClassConfig | None = None,
    aoi_uri: str | Sequence[str] = (),
    label_vector_default_class_id: int | None = None,
    image_raster_source_kw: Mapping[str, Any] | None = None,
    label_vector_source_kw: Mapping[str, Any] | None = None,
    label_source_kw: Mapping[str, Any] | None = None,
    scene_id: str | None = None,
) -> Scene:
    """Return a scene for object detection from image and label files; arguments as those of `make_ss_scene`.

    Args:
        image_uri: Image, or images that together make one.
        label_vector_uri: Objects, whose bounding boxes are the labels.
        class_config: The classes; needed if there are labels.
        aoi_uri: Files with polygons of interest.
        label_vector_default_class_id: Class of features that do not say theirs.
        image_raster_source_kw: More arguments for the `RasterioSource` of the image.
        label_vector_source_kw: More arguments for the `GeoJSONVectorSource` of the labels.
        label_source_kw: More arguments for the `ObjectDetectionLabelSource`, such as ``ioa_thresh`` and ``clip``.
        scene_id: Name of the scene; a random one by default.

    Raises:
        ConfigError: There are labels but no class config.
    """
    from rastervision.core.data.label_source.object_detection_label_source import ObjectDetectionLabelSource
    from rastervision.core.data.raster_source.rasterio_source import RasterioSource

    image = RasterioSource(image_uri, **(image_raster_source_kw or {}))
    label_source = None
    if label_vector_uri is not None:
        classes = _needed(class_config)
        vectors = _vectors(
            label_vector_uri, image, classes, label_vector_default_class_id, label_vector_source_kw or {}
        )
        label_source = ObjectDetectionLabelSource(vectors, **{"bbox": image.bbox, **(label_source_kw or {})})
    return _scene(scene_id, image, label_source, aoi_uri)


def _needed(class_config: ClassConfig | None) -> ClassConfig:
    if class_config is None:
        raise ConfigError("Labels mean nothing without classes. Give class_config.")
    return class_config


def _vectors(
    uri: str | list[str],
    image: RasterSource,
    class_config: ClassConfig,
    default_class_id: int | None,
    kw: Mapping[str, Any],
) -> VectorSource:
    """Return a source of labels, with the steps that the configs of label sources add unless they are given."""
    from rastervision.core.data.vector_source.geojson_vector_source import GeoJSONVectorSource
    from rastervision.core.data.vector_transformer.buffer_transformer import BufferTransformer
    from rastervision.core.data.vector_transformer.class_inference_transformer import ClassInferenceTransformer

    steps = list(kw.get("vector_transformers", ()))
    if default_class_id is not None or not any(isinstance(step, ClassInferenceTransformer) for step in steps):
        steps.append(ClassInferenceTransformer(default_class_id, class_config=class_config))
    if not any(isinstance(step, BufferTransformer) for step in steps):
        steps += [BufferTransformer(geom_type, default_buf=1.0) for geom_type in ("Point", "LineString")]
    return GeoJSONVectorSource(uri, image.crs_transformer, **{**kw, "vector_transformers": steps})


def _scene(
    scene_id: str | None, image: RasterSource, label_source: LabelSource | None, aoi_uri: str | Sequence[str]
) -> Scene:
    from rastervision.core.data.scene import Scene, naming_scene, read_aois

    scene_id = scene_id or str(uuid4())
    aois = None
    if aoi_uri:
        with naming_scene(scene_id, "aoi_uri"):
            aois = read_aois(listify_uris(aoi_uri), image.crs_transformer, image.bbox)
    return Scene(scene_id, image, label_source=label_source, aoi_polygons=aois)
