"""Old module paths of 0.31: importing one gives the new module's names, with a `DeprecationWarning`.

One table and one import finder instead of shim files. Plugins may add rows with `add`.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import ModuleType

__all__ = ["MOVED", "add", "install"]

# modules that 0.31 split in two, `x` for the entity and `x_config`; here `x` holds both
_TWINS = {
    "rastervision.core": ["analyzer.analyzer", "analyzer.stats_analyzer", "backend.backend"],
    "rastervision.core.data": [
        "label_source.chip_classification_label_source",
        "label_source.label_source",
        "label_source.object_detection_label_source",
        "label_source.semantic_segmentation_label_source",
        "label_store.chip_classification_geojson_store",
        "label_store.label_store",
        "label_store.object_detection_geojson_store",
        "label_store.semantic_segmentation_label_store",
        "raster_source.multi_raster_source",
        "raster_source.raster_source",
        "raster_source.rasterio_source",
        "raster_source.rasterized_source",
        "raster_source.xarray_source",
        "raster_transformer.cast_transformer",
        "raster_transformer.min_max_transformer",
        "raster_transformer.nan_transformer",
        "raster_transformer.raster_transformer",
        "raster_transformer.reclass_transformer",
        "raster_transformer.rgb_class_transformer",
        "raster_transformer.stats_transformer",
        "scene",
        "vector_source.geojson_vector_source",
        "vector_source.vector_source",
        "vector_transformer.buffer_transformer",
        "vector_transformer.class_inference_transformer",
        "vector_transformer.shift_transformer",
        "vector_transformer.vector_transformer",
    ],
    "rastervision.core.evaluation": [
        "chip_classification_evaluator",
        "classification_evaluator",
        "evaluator",
        "object_detection_evaluator",
        "semantic_segmentation_evaluator",
    ],
    "rastervision.core.rv_pipeline": [
        "chip_classification",
        "object_detection",
        "rv_pipeline",
        "semantic_segmentation",
    ],
    "rastervision.pytorch_backend": [
        "pytorch_chip_classification",
        "pytorch_learner_backend",
        "pytorch_object_detection",
        "pytorch_semantic_segmentation",
    ],
}

MOVED: dict[str, str] = {
    **{f"{package}.{name}_config": f"{package}.{name}" for package, names in _TWINS.items() for name in names},
    "rastervision.core.data.label.tfod_utils": "rastervision.core.data.label.np_box_list",
    "rastervision.core.data.label.tfod_utils.np_box_list": "rastervision.core.data.label.np_box_list",
    "rastervision.pipeline.pipeline_config": "rastervision.pipeline.pipeline",
    "rastervision.pytorch_learner.learner_config": "rastervision.pytorch_backend.learner_config",
    "rastervision.pytorch_learner.classification_learner_config": (
        "rastervision.pytorch_backend.learner_config.classification"
    ),
    "rastervision.pytorch_learner.object_detection_learner_config": (
        "rastervision.pytorch_backend.learner_config.object_detection"
    ),
    "rastervision.pytorch_learner.regression_learner_config": "rastervision.pytorch_backend.learner_config.regression",
    "rastervision.pytorch_learner.semantic_segmentation_learner_config": (
        "rastervision.pytorch_backend.learner_config.semantic_segmentation"
    ),
    "rastervision.pytorch_learner.dataset.utils": "rastervision.pytorch_learner.dataset.image_folder",
    "rastervision.pytorch_learner.dataset.utils.utils": "rastervision.pytorch_learner.dataset.image_folder",
    "rastervision.pytorch_learner.utils.prediction": "rastervision.pytorch_learner.predict",
    "rastervision.pytorch_learner.utils.torch_hub": "rastervision.pytorch_learner.torch_hub",
    "rastervision.pytorch_learner.utils.utils": "rastervision.pytorch_learner.utils",
}


class _MovedModuleFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Makes a module for an old path that looks its names up in the new one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        # as a package, so that paths below an old package resolve too
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True) if fullname in MOVED else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        new = MOVED[old]
        warnings.warn(f"{old} moved to {new}; import it from there.", DeprecationWarning, stacklevel=2)
        target = importlib.import_module(new)

        def getattr_of_target(name: str) -> Any:
            return getattr(target, name)

        module.__dict__.update(
            __doc__=target.__doc__, __all__=getattr(target, "__all__", []), __getattr__=getattr_of_target
        )


_finder = _MovedModuleFinder()


def add(moved: Mapping[str, str]) -> None:
    """Add rows ``{old module: new module}`` to the table."""
    MOVED.update(moved)


def install() -> None:
    """Serve the table; does nothing the second time."""
    if _finder not in sys.meta_path:
        sys.meta_path.append(_finder)
