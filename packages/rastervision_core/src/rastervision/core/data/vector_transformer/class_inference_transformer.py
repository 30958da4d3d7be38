"""Tell the class of each feature from its properties."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from pydantic import Field

from rastervision.core.data.utils.features import Features
from rastervision.core.data.vector_transformer.label_maker.filter import create_filter
from rastervision.core.data.vector_transformer.vector_transformer import (
    VectorTransformer,
    VectorTransformerConfig,
)
from rastervision.pipeline.config import ConfigError, register_config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rastervision.core.box import Box
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.crs_transformer import CRSTransformer

__all__ = ["ClassInferenceTransformer", "ClassInferenceTransformerConfig", "UnknownClassError"]

log = logging.getLogger(__name__)

_NAMES_IN_ERROR = 5


class UnknownClassError(ConfigError):
    """Labels have a class that the class config does not have."""


@register_config("class_inference_transformer")
class ClassInferenceTransformerConfig(VectorTransformerConfig):
    """Configure a `ClassInferenceTransformer`."""

    default_class_id: int | None = Field(
        None, description="Class of features that nothing else tells the class of; null drops them."
    )
    class_id_to_filter: dict[int, list] | None = Field(  # type: ignore[type-arg]
        None,
        description="Class id -> filter of features, as in the style specification of MapLibre, for example "
        '{"0": ["==", "building", "yes"]}. The first that matches tells the class.',
    )
    class_name_mapping: dict[str, str] | None = Field(
        None, description="Class name in the labels -> class name in the class config."
    )

    def build(self, class_config: ClassConfig | None = None) -> ClassInferenceTransformer:
        """Build the transformer for the classes of the pipeline."""
        return ClassInferenceTransformer(
            self.default_class_id,
            class_config=class_config,
            class_id_to_filter=self.class_id_to_filter,
            class_name_mapping=self.class_name_mapping,
        )


class ClassInferenceTransformer(VectorTransformer):
    """Give each feature a property ``class_id``.

    The first of these that there is counts: the property ``class_id``; the property ``class_name``, or else ``label``,
    if it is the name of a class; the first filter that matches; the default. A feature without any is dropped, with a
    warning. But if it has a class name, and there are no filters that could have meant to leave it out, the name is an
    error: a misspelt class must not vanish.

    Args:
        default_class_id: Class of features that nothing else tells the class of; None drops them.
        class_config: The classes. None: names tell nothing.
        class_id_to_filter: Class id -> filter, see `create_filter`.
        class_name_mapping: Class name in the labels -> class name in the class config.
    """

    def __init__(
        self,
        default_class_id: int | None,
        class_config: ClassConfig | None = None,
        class_id_to_filter: dict[int, list[Any]] | None = None,
        class_name_mapping: dict[str, str] | None = None,
    ) -> None:
        self.default_class_id = default_class_id
        self.class_config = class_config
        self.class_id_to_filter = _compile(class_id_to_filter)
        self.class_name_mapping = class_name_mapping

    @staticmethod
    def infer_feature_class_id(
        feature: Mapping[str, Any],
        default_class_id: int | None,
        class_config: ClassConfig | None = None,
        class_id_to_filter: Mapping[int, Any] | None = None,
        class_name_mapping: Mapping[str, str] | None = None,
    ) -> int | None:
        """Return the class id of a feature; None if nothing tells it.

        Args:
            feature: GeoJSON feature; only filters look at its geometry.
            default_class_id: Returned if nothing tells the class.
            class_config: The classes.
            class_id_to_filter: Class id -> filter as a list or a function.
            class_name_mapping: Class name in the labels -> class name in the class config.
        """
        properties = feature.get("properties") or {}
        if properties.get("class_id") is not None:
            return _to_int(properties["class_id"])
        if class_config is not None:
            name = _class_name(properties, class_name_mapping)
            if name in class_config.names:
                return class_config.get_class_id(name)
        for class_id, matches in _compile(class_id_to_filter).items():
            if matches(feature):
                return class_id
        return default_class_id

    def transform(self, geojson: dict[str, Any], crs_transformer: CRSTransformer | None = None) -> dict[str, Any]:
        """Return the features that have a class, with it as the property ``class_id``.

        Raises:
            UnknownClassError: A class name or class id is not in the class config.
        """
        return self.transform_features(Features.from_geojson(geojson)).to_geojson()

    def transform_features(self, features: Features, crs_transformer: CRSTransformer | None = None) -> Features:
        """Return the features that have a class, with it as the property ``class_id``."""
        import numpy as np

        class_ids = self._infer_with_filters(features) if self.class_id_to_filter else self._infer(features)
        self._check(features, class_ids)
        known = np.array([class_id is not None for class_id in class_ids], dtype=bool)
        if not known.all():
            log.warning("%d of %d features have no class and are dropped", (~known).sum(), len(features))
        return features.with_property("class_id", class_ids).where(known)

    def reach(self, window: Box, crs_transformer: CRSTransformer) -> float:
        """Return 0: features stay where they are."""
        return 0

    def _infer(self, features: Features) -> list[int | None]:
        """Do what `infer_feature_class_id` does, for many features."""
        classes = self.class_config
        id_of = {} if classes is None else {name: classes.get_class_id(name) for name in classes.names}
        class_ids: list[int | None] = []
        for properties in features.properties:
            class_id = properties.get("class_id")
            if class_id is not None:
                class_ids.append(_to_int(class_id))
            else:
                class_ids.append(id_of.get(_class_name(properties, self.class_name_mapping), self.default_class_id))
        return class_ids

    def _infer_with_filters(self, features: Features) -> list[int | None]:
        return [
            self.infer_feature_class_id(
                {**member, "geometry": {"type": geom.geom_type}},
                self.default_class_id,
                self.class_config,
                self.class_id_to_filter,
                self.class_name_mapping,
            )
            for geom, member in zip(features.geoms, features.members, strict=True)
        ]

    def _check(self, features: Features, class_ids: list[int | None]) -> None:
        """Raise if a class is not in the class config."""
        if self.class_config is None or not self.class_config.names:
            return
        names = self.class_config.names
        out_of_range = sorted({i for i in class_ids if i is not None and not 0 <= i < len(names)})
        if out_of_range:
            raise UnknownClassError(
                f"class_id {', '.join(map(str, out_of_range[:_NAMES_IN_ERROR]))} in the labels is not one of the "
                f"{len(names)} classes, 0 to {len(names) - 1}: {names}. Correct the labels, or add the class."
            )
        if self.class_id_to_filter:
            return
        unknown = Counter(
            name
            for properties, class_id in zip(features.properties, class_ids, strict=True)
            if class_id is None and (name := _class_name(properties, self.class_name_mapping)) is not None
        )
        if unknown:
            shown = ", ".join(f"{name!r} ({n} features)" for name, n in unknown.most_common(_NAMES_IN_ERROR))
            raise UnknownClassError(
                f"The labels have the class {shown}, which is not one of {names}. Add it to the class config, rename "
                "it with class_name_mapping, or set default_class_id."
            )


def _compile(class_id_to_filter: Mapping[int, Any] | None) -> dict[int, Callable[[Mapping[str, Any]], bool]]:
    """Make functions of filters; JSON has class ids as text."""
    filters = class_id_to_filter or {}
    return {int(k): f if callable(f) else create_filter(f) for k, f in filters.items()}


def _class_name(properties: Mapping[str, Any], class_name_mapping: Mapping[str, str] | None) -> Any:
    name = properties.get("class_name")
    if name is None:
        name = properties.get("label")
    if not class_name_mapping and isinstance(name, str):
        return name
    try:
        return (class_name_mapping or {}).get(name, name)  # type: ignore[arg-type]
    except TypeError:  # a list or dict is no name of a class
        return str(name)


def _to_int(value: Any) -> int:
    if type(value) is int:
        return value
    try:
        class_id = int(value)
        if class_id != float(value):
            raise ValueError
    except (TypeError, ValueError):
        raise UnknownClassError(
            f"class_id {value!r} in the labels is not a whole number. Correct the labels."
        ) from None
    return class_id
