"""What makes vector features labels: a class each, and an area."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rastervision.core.data.vector_transformer.buffer_transformer import BufferTransformerConfig
from rastervision.core.data.vector_transformer.class_inference_transformer import ClassInferenceTransformerConfig
from rastervision.pipeline.config_tree import replaced
from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shapely.geometry.base import BaseGeometry

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.vector_source.vector_source import VectorSourceConfig
    from rastervision.core.data.vector_transformer.vector_transformer import VectorTransformerConfig

__all__ = ["check_class_ids", "check_labels", "with_label_transformers", "with_widths"]


def with_label_transformers(vector_source: VectorSourceConfig) -> VectorSourceConfig:
    """Return a copy that tells the classes of features and gives points and lines a width of one pixel.

    A step of which there is one already is not added; the vector source itself if nothing is.
    """
    if any(isinstance(step, ClassInferenceTransformerConfig) for step in vector_source.transformers):
        return with_widths(vector_source)
    return _with_steps(vector_source, [ClassInferenceTransformerConfig(default_class_id=None), *_widths(vector_source)])


def with_widths(vector_source: VectorSourceConfig) -> VectorSourceConfig:
    """Return a copy that gives points and lines a width of one pixel; the same if there is such a step."""
    return _with_steps(vector_source, _widths(vector_source))


def _widths(vector_source: VectorSourceConfig) -> list[VectorTransformerConfig]:
    if any(isinstance(step, BufferTransformerConfig) for step in vector_source.transformers):
        return []
    return [BufferTransformerConfig(geom_type=t, default_buf=1.0) for t in ("Point", "LineString")]


def _with_steps(vector_source: VectorSourceConfig, steps: list[VectorTransformerConfig]) -> VectorSourceConfig:
    return replaced(vector_source, transformers=[*vector_source.transformers, *steps]) if steps else vector_source


def check_labels(geoms: Iterable[BaseGeometry], class_ids: Iterable[int | None], where: str) -> None:
    """Raise `ConfigError` if features have no area or no class id.

    Args:
        geoms: Single geometries.
        class_ids: Class id of each.
        where: What the message calls the features.
    """
    others = sorted({g.geom_type for g in geoms} & {"Point", "LineString", "LinearRing"})
    if others:
        raise ConfigError(
            f"{where} has {' and '.join(others)} features, which cover no pixels. Add a BufferTransformer for "
            "them to the transformers of the vector source."
        )
    if any(class_id is None for class_id in class_ids):
        raise ConfigError(
            f"{where} has features without the property class_id. Add a ClassInferenceTransformer to the "
            "transformers of the vector source."
        )


def check_class_ids(class_ids: Iterable[int], class_config: ClassConfig, where: str) -> None:
    """Raise `ConfigError` if a class id is not one of the classes'."""
    unknown = sorted({int(i) for i in class_ids if not 0 <= i < len(class_config)})
    if unknown:
        raise ConfigError(
            f"{where} has class id {', '.join(map(str, unknown[:5]))}, but there are {len(class_config)} classes, 0 to "
            f"{len(class_config) - 1}: {class_config.names}. Correct class_id, or add the class to the class config."
        )
