"""Make scenes in one call, for notebooks and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.raster_source.raster_source import RasterSource
    from rastervision.core.data.raster_source.rasterio_source import RasterioSource
    from rastervision.core.data.scene import Scene

__all__ = ["make_ss_scene"]


def make_ss_scene(
    image_uri: str | list[str],
    label_raster_uri: str | list[str] | None = None,
    class_config: ClassConfig | None = None,
    label_vector_uri: str | None = None,
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
        label_vector_uri: GeoJSON with polygons.
        aoi_uri: GeoJSON files with polygons of interest.
        label_vector_default_class_id: Class of vector features that do not say theirs; the null class if
            None is
            given and the features have no class.
        image_raster_source_kw: More arguments for the `RasterioSource` of the image.
        label_raster_source_kw: More arguments for the `RasterioSource` of the label raster, or for the
            `RasterizedSource` of vector labels (``background_class_id``: the null class by default).
        label_vector_source_kw: More arguments for the `GeoJSONVectorSource` of the labels.
        scene_id: Name of the scene; a random one by default.

    Raises:
        ConfigError: Both kinds of labels are given, or labels without a class config.
    """
    from rastervision.core.data.label_source.semantic_segmentation_label_source import (
        SemanticSegmentationLabelSource,
    )
    from rastervision.core.data.raster_source.rasterio_source import RasterioSource
    from rastervision.core.data.scene import Scene
    from rastervision.core.data.utils.geojson import get_polygons_from_uris

    if label_raster_uri is not None and label_vector_uri is not None:
        raise ConfigError("Labels come from label_raster_uri or label_vector_uri, not both. Give one of them.")
    has_labels = label_raster_uri is not None or label_vector_uri is not None
    if has_labels and class_config is None:
        raise ConfigError("Labels mean nothing without classes. Give class_config.")
    image = RasterioSource(image_uri, **(image_raster_source_kw or {}))
    label_source = None
    if class_config is not None and has_labels:
        class_config.ensure_null_class()
        labels: RasterSource
        if label_raster_uri is not None:
            labels = RasterioSource(label_raster_uri, **(label_raster_source_kw or {}))
        else:
            assert label_vector_uri is not None
            labels = _rasterized(
                image,
                label_vector_uri,
                class_config,
                label_vector_default_class_id,
                label_vector_source_kw or {},
                label_raster_source_kw or {},
            )
        label_source = SemanticSegmentationLabelSource(labels, class_config)
    aoi_uris = [aoi_uri] if isinstance(aoi_uri, str) else list(aoi_uri)
    aois = get_polygons_from_uris(aoi_uris, image.crs_transformer) if aoi_uris else None
    return Scene(scene_id or str(uuid4()), image, label_source=label_source, aoi_polygons=aois)


def _rasterized(
    image: RasterioSource,
    uri: str,
    class_config: ClassConfig,
    default_class_id: int | None,
    vector_kw: Mapping[str, Any],
    raster_kw: Mapping[str, Any],
) -> RasterSource:
    from rastervision.core.data.raster_source.rasterized_source import RasterizedSource
    from rastervision.core.data.vector_source.geojson_vector_source import GeoJSONVectorSource
    from rastervision.core.data.vector_transformer.class_inference_transformer import (
        ClassInferenceTransformer,
    )

    transformers = list(vector_kw.get("vector_transformers", []))
    if default_class_id is not None:
        transformers.append(ClassInferenceTransformer(default_class_id=default_class_id, class_config=class_config))
    vectors = GeoJSONVectorSource(uri, image.crs_transformer, **{**vector_kw, "vector_transformers": transformers})
    return RasterizedSource(
        vectors, **{"background_class_id": class_config.null_class_id, "bbox": image.bbox, **raster_kw}
    )
