"""Keys that older releases had for the configs of this package, and what a bare URI or a task stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from rastervision.core.data.vector_source.vector_file import GEOJSON_LINES, OGR_FILES, PARQUET_FILES
from rastervision.pipeline.builder_keys import Builders
from rastervision.pipeline.default_providers import DefaultProvider, default_config, extension_of
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.registry import registry_

if TYPE_CHECKING:
    from rastervision.pipeline.config import Config

__all__ = ["BUILDERS"]

GEOJSON = frozenset({".json", ".geojson"})
VECTORS = GEOJSON | GEOJSON_LINES | OGR_FILES | PARQUET_FILES
RASTERS = frozenset({".tif", ".tiff", ".vrt", ".jp2", ".img", ".png", ".jpg", ".jpeg"})
CUBES = frozenset({".nc", ".zarr"})


def _config(type_hint: str, **values: Any) -> Config:
    cls: Any = registry_.get_config(type_hint)
    return cast("Config", cls(**values))


class _VectorsProvider(DefaultProvider):
    """Makes a vector source of a GeoJSON file, or one of another format of vectors."""

    def handles(self, uri: str, task: str | None = None) -> bool:
        return extension_of(uri) in VECTORS

    def construct(self, uri: str | None = None, task: str | None = None, **kwargs: Any) -> Config:
        return _config("geojson_vector_source", uris=[uri], **kwargs)


class _XarrayProvider(DefaultProvider):
    """Makes an xarray source of a NetCDF file, a Zarr store, or what a STAC catalog describes."""

    def handles(self, uri: str, task: str | None = None) -> bool:
        return extension_of(uri) in CUBES or self._is_item(uri) or self._is_collection(uri)

    @staticmethod
    def _is_item(uri: str) -> bool:
        # the address of an item in a STAC API has no extension
        parent = urlsplit(uri).path.rstrip("/").rpartition("/")[0]
        return extension_of(uri) == ".json" or ("://" in uri and parent.endswith("/items"))

    @staticmethod
    def _is_collection(uri: str) -> bool:
        return "://" in uri and urlsplit(uri).path.rstrip("/").endswith(("/items", "/search"))

    def construct(self, uri: str | None = None, task: str | None = None, **kwargs: Any) -> Config:
        from rastervision.core.data.raster_source import STACItemCollectionConfig, STACItemConfig, XarraySourceConfig

        assert uri is not None
        stac_class = STACItemCollectionConfig if self._is_collection(uri) else STACItemConfig
        return XarraySourceConfig(stac=stac_class(uri=uri), **kwargs)


class _RasterioProvider(DefaultProvider):
    """Makes a rasterio source of all that GDAL may be able to read."""

    def handles(self, uri: str, task: str | None = None) -> bool:
        return extension_of(uri) not in VECTORS - {".zip"}

    def construct(self, uri: str | None = None, task: str | None = None, **kwargs: Any) -> Config:
        return _config("rasterio_source", uris=[uri], **kwargs)


class _TaskProvider(DefaultProvider):
    """Makes the config of one task that is right whatever the data."""

    def __init__(self, task: str, type_hint: str) -> None:
        self.task, self.type_hint = task, type_hint

    def is_default_for(self, task: str) -> bool:
        return task == self.task

    def construct(self, uri: str | None = None, task: str | None = None, **kwargs: Any) -> Config:
        return _config(self.type_hint, **kwargs)


class _LabelStoreProvider(_TaskProvider):
    """Makes the label store of a task; with a URI if it can be the place of its labels."""

    needs_task = True

    def handles(self, uri: str, task: str | None = None) -> bool:
        if task != self.task:
            return False
        extension = extension_of(uri)
        if task == "semantic_segmentation":
            # a folder of several files
            return extension not in VECTORS | RASTERS
        return extension in GEOJSON

    def construct(self, uri: str | None = None, task: str | None = None, **kwargs: Any) -> Config:
        return _config(self.type_hint, uri=uri, **kwargs)


class _VectorLabelsProvider(DefaultProvider):
    """Makes the label source of a task whose labels are vectors."""

    needs_task = True

    def __init__(self, task: str) -> None:
        self.task = task

    def handles(self, uri: str, task: str | None = None) -> bool:
        return task == self.task and extension_of(uri) in VECTORS

    def construct(self, uri: str | None = None, task: str | None = None, **kwargs: Any) -> Config:
        vector_source = default_config("vector_source", uri)
        return _config(f"{self.task}_label_source", vector_source=vector_source, **kwargs)


class _RegressionLabelsProvider(DefaultProvider):
    """Makes the label source of chip regression of vectors, or of a raster with a channel per target."""

    needs_task = True

    def handles(self, uri: str, task: str | None = None) -> bool:
        return task == "chip_regression" and extension_of(uri) in VECTORS | RASTERS

    def construct(self, uri: str | None = None, task: str | None = None, **kwargs: Any) -> Config:
        assert uri is not None
        group = "vector_source" if extension_of(uri) in VECTORS else "raster_source"
        return _config("chip_regression_label_source", **{group: default_config(group, uri)}, **kwargs)


class _SegmentationLabelsProvider(DefaultProvider):
    """Makes the label source of semantic segmentation of a label raster, or of vectors to rasterise."""

    needs_task = True

    def handles(self, uri: str, task: str | None = None) -> bool:
        return task == "semantic_segmentation" and extension_of(uri) in VECTORS | RASTERS

    def construct(
        self, uri: str | None = None, task: str | None = None, background_class_id: int | None = None, **kwargs: Any
    ) -> Config:
        from rastervision.core.data.label_source import SemanticSegmentationLabelSourceConfig
        from rastervision.core.data.raster_source import RasterizedSourceConfig, RasterizerConfig

        assert uri is not None
        if extension_of(uri) not in VECTORS:
            source = default_config("raster_source", uri)
        elif background_class_id is None:
            raise ConfigError(
                f"To rasterise {uri} it must be known which class pixels have that no polygon covers. Call "
                "with_label_source(uri, background_class_id=...)."
            )
        else:
            source = RasterizedSourceConfig(
                vector_source=default_config("vector_source", uri),
                rasterizer_config=RasterizerConfig(background_class_id=background_class_id),
            )
        return SemanticSegmentationLabelSourceConfig(raster_source=source, **kwargs)


BUILDERS = Builders(
    aliases={
        "vector_source": {"geojson_source": "geojson_vector_source"},
        "label_source": {
            "chip_classification": "chip_classification_label_source",
            "chip_regression": "chip_regression_label_source",
            "object_detection": "object_detection_label_source",
            "semantic_segmentation": "semantic_segmentation_label_source",
        },
        "label_store": {
            "chip_classification_geojson": "chip_classification_geojson_store",
            "chip_regression_geojson": "chip_regression_geojson_store",
            "object_detection_geojson": "object_detection_geojson_store",
            "semantic_segmentation_raster": "semantic_segmentation_label_store",
        },
    },
    deprecated={
        "raster_source": {
            "geotiff_source": "rasterio_source",
            "image_source": "rasterio_source",
            "geojson_source": "rasterized_source",
        },
        "label_source": {
            "chip_classification_geojson": "chip_classification_label_source",
            "object_detection_geojson": "object_detection_label_source",
            "semantic_segmentation_raster": "semantic_segmentation_label_source",
        },
    },
    members={"raster_source": {"rasterized_source"}},
    bases=(
        "analyzer",
        "backend",
        "classification_evaluator",
        "evaluator",
        "label_source",
        "label_store",
        "raster_source",
        "raster_transformer",
        "vector_output",
        "vector_source",
        "vector_transformer",
    ),
    retired={
        "vector_tile_source": "Convert the tiles to GeoJSON and use GEOJSON_VECTOR_SOURCE.",
        "nodata_augmentor": "Give the data config of the backend albumentations transforms as aug_transform.",
        "tf_*": "Train with one of the PYTORCH_ backends.",
        "keras_*": "Train with one of the PYTORCH_ backends.",
    },
    providers={
        "raster_source": [_XarrayProvider(), _RasterioProvider()],
        "vector_source": [_VectorsProvider()],
        "label_source": [
            _VectorLabelsProvider("chip_classification"),
            _RegressionLabelsProvider(),
            _VectorLabelsProvider("object_detection"),
            _SegmentationLabelsProvider(),
        ],
        "label_store": [
            _LabelStoreProvider("chip_classification", "chip_classification_geojson_store"),
            _LabelStoreProvider("chip_regression", "chip_regression_geojson_store"),
            _LabelStoreProvider("object_detection", "object_detection_geojson_store"),
            _LabelStoreProvider("semantic_segmentation", "semantic_segmentation_label_store"),
        ],
        "evaluator": [
            _TaskProvider(task, f"{task}_evaluator")
            for task in ("chip_classification", "chip_regression", "object_detection", "semantic_segmentation")
        ],
    },
)
