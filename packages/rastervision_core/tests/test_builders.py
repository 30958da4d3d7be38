"""Builders of the registered configs: keys, round trips, and what URIs and tasks stand for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rastervision.core.backend import BackendConfig
from rastervision.core.data import (
    ChipClassificationGeoJSONStoreConfig,
    ChipClassificationLabelSourceConfig,
    ClassConfig,
    DatasetConfig,
    GeoJSONVectorSourceConfig,
    LabelSourceConfig,
    LabelStoreConfig,
    ObjectDetectionGeoJSONStoreConfig,
    ObjectDetectionLabelSourceConfig,
    RasterioSourceConfig,
    RasterizedSourceConfig,
    RasterSourceConfig,
    SceneConfig,
    SemanticSegmentationLabelSourceConfig,
    SemanticSegmentationLabelStoreConfig,
    StatsTransformerConfig,
    VectorSourceConfig,
    XarraySourceConfig,
)
from rastervision.core.evaluation import SemanticSegmentationEvaluatorConfig
from rastervision.core.rv_pipeline import (
    ChipClassificationConfig,
    ObjectDetectionConfig,
    RVPipelineConfig,
    SemanticSegmentationConfig,
)
from rastervision.pipeline import builder_keys
from rastervision.pipeline.builder_fields import fields_of
from rastervision.pipeline.config import Config, build_config
from rastervision.pipeline.default_providers import DefaultProvider
from rastervision.pipeline.errors import ConfigError, RegistryError
from rastervision.pipeline.registry import registry_
from rastervision.testing import declared_type_hints, example_configs

TASKS: dict[str, type[RVPipelineConfig]] = {
    "chip_classification": ChipClassificationConfig,
    "object_detection": ObjectDetectionConfig,
    "semantic_segmentation": SemanticSegmentationConfig,
}
STORES = {
    "chip_classification": ChipClassificationGeoJSONStoreConfig,
    "object_detection": ObjectDetectionGeoJSONStoreConfig,
    "semantic_segmentation": SemanticSegmentationLabelStoreConfig,
}
CLASSES = ClassConfig(names=["a", "b"])


@pytest.fixture(autouse=True)
def no_key_was_used_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder_keys, "_warned", set())


def scene_builder() -> Any:
    return SceneConfig.builder().with_id("x").with_raster_source("a.tif")


def pipeline_of(task: str, scene: Any, root_uri: str | Path = "out") -> Any:
    """A builder of a pipeline of a task that has one scene, to predict."""
    dataset = DatasetConfig.builder().with_class_config(CLASSES).with_train_scenes([]).with_validation_scene(scene)
    return TASKS[task].builder().with_root_uri(str(root_uri)).with_backend(BackendConfig()).with_dataset(dataset)


# -- keys ------------------------------------------------------------------------------------------------------


def test_scenario_06_a_key_in_any_case_builds_the_registered_class() -> None:
    for key in ("rasterio_source", "RASTERIO_SOURCE"):
        built = RasterSourceConfig.builder(key).with_uri("a.tif").build()
        assert type(built) is registry_.get_config("rasterio_source") is RasterioSourceConfig


def test_scenario_07_keys_of_another_family_and_unknown_keys_are_errors() -> None:
    with pytest.raises(ConfigError, match="ObjectDetectionLabelSourceConfig"):
        RasterSourceConfig.builder("OBJECT_DETECTION_LABEL_SOURCE")
    with pytest.raises(ConfigError, match="'OBJECT_DETECTION' is a ObjectDetectionConfig"):
        RasterSourceConfig.builder("OBJECT_DETECTION")
    with pytest.raises(RegistryError, match="'BETAMAX_SOURCE'"):
        RasterSourceConfig.builder("BETAMAX_SOURCE")


def test_scenario_08_an_old_key_works_each_time_and_warns_once() -> None:
    with pytest.warns(DeprecationWarning, match="GEOTIFF_SOURCE") as warned:
        builders = [RasterSourceConfig.builder("GEOTIFF_SOURCE") for _ in range(2)]

    assert [type(b.with_values(uris=["a.tif"]).build()) for b in builders] == [RasterioSourceConfig] * 2
    assert len(warned) == 1


@pytest.mark.parametrize(
    ("family", "key", "type_hint"),
    [
        (RasterSourceConfig, "RASTERIZED_SOURCE", "rasterized_source"),
        (VectorSourceConfig, "GEOJSON_SOURCE", "geojson_vector_source"),
        (LabelSourceConfig, "OBJECT_DETECTION", "object_detection_label_source"),
        (LabelSourceConfig, "chip_classification", "chip_classification_label_source"),
        (LabelStoreConfig, "CHIP_CLASSIFICATION_GEOJSON", "chip_classification_geojson_store"),
        (LabelStoreConfig, "SEMANTIC_SEGMENTATION_RASTER", "semantic_segmentation_label_store"),
        (RVPipelineConfig, "OBJECT_DETECTION", "object_detection"),
        (Config, "STATS_ANALYZER", "stats_analyzer"),
    ],
)
def test_keys_of_older_releases_name_what_took_their_place(family: Any, key: str, type_hint: str) -> None:
    assert family.builder(key).config_class.registered_type_hint == type_hint


@pytest.mark.parametrize(
    ("family", "key", "type_hint"),
    [
        (RasterSourceConfig, "IMAGE_SOURCE", "rasterio_source"),
        (RasterSourceConfig, "GEOJSON_SOURCE", "rasterized_source"),
        (LabelSourceConfig, "OBJECT_DETECTION_GEOJSON", "object_detection_label_source"),
        (LabelSourceConfig, "SEMANTIC_SEGMENTATION_RASTER", "semantic_segmentation_label_source"),
    ],
)
def test_keys_that_older_releases_deprecated_warn(family: Any, key: str, type_hint: str) -> None:
    with pytest.warns(DeprecationWarning, match=type_hint):
        assert family.builder(key).config_class.registered_type_hint == type_hint


@pytest.mark.parametrize("key", ["VECTOR_TILE_SOURCE", "NODATA_AUGMENTOR", "KERAS_CLASSIFICATION", "TF_DEEPLAB"])
def test_keys_without_successor_say_what_to_do(key: str) -> None:
    with pytest.raises(RegistryError, match=r"has no successor\. (Convert|Give|Train)"):
        Config.builder(key)


def test_aliases_and_bases_are_registered() -> None:
    for builders in registry_.declared_builders().values():
        hints = {h for t in (*builders.aliases.values(), *builders.deprecated.values()) for h in t.values()}
        for hint in {*hints, *builders.bases, *builders.aliases, *builders.members, *builders.providers}:
            assert registry_.get_config(hint).registered_type_hint == hint


# -- copies and round trips ------------------------------------------------------------------------------------


def test_scenario_11_a_vector_source_given_to_two_builders_is_not_changed() -> None:
    vectors = GeoJSONVectorSourceConfig(uris="a.json")

    chips = ChipClassificationLabelSourceConfig.builder().with_vector_source(vectors).build()
    boxes = ObjectDetectionLabelSourceConfig.builder().with_vector_source(vectors).build()

    assert chips.vector_source is not None
    assert chips.vector_source.transformers and boxes.vector_source.transformers
    assert chips.vector_source is not boxes.vector_source
    assert vectors.transformers == []


@pytest.mark.parametrize("type_hint", declared_type_hints())
def test_scenario_12_any_config_comes_back_from_its_builder(type_hint: str) -> None:
    for config in example_configs(registry_.get_config(type_hint)):
        _assert_comes_back(config)
        _edit_in_place(config)
        _assert_comes_back(config)


def _assert_comes_back(config: Config) -> None:
    again = config.to_builder().build()
    assert type(again) is type(config)
    assert again == config
    assert again.model_dump_json() == config.model_dump_json()
    assert build_config(json.loads(again.model_dump_json())) == config


def _edit_in_place(root: Config) -> None:
    """Change what is mutable in a config where that leaves it valid, without telling it."""
    for container in list(_containers(root)):
        before = container.copy()
        if isinstance(container, list):
            container.append(container[0])
        else:
            container.pop(next(iter(container)))
        try:
            root.revalidate()
        except (ValidationError, ConfigError):
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(before)


def _containers(config: Config) -> Iterator[Any]:
    """Yield the lists and dicts in a config that are not empty."""
    for name in fields_of(type(config)):
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from _containers(value)
        elif isinstance(value, (list, dict)) and value:
            yield value


def test_scenario_13_a_copy_of_an_updated_pipeline_writes_under_its_own_root(tmp_path: Path) -> None:
    source = RasterioSourceConfig(uris=["a.tif"], channel_order=[0], transformers=[StatsTransformerConfig()])
    scene = scene_builder().with_raster_source(source)
    config = pipeline_of("semantic_segmentation", scene, tmp_path / "old").build()
    config.update()

    other = config.to_builder().clear_command_uris().with_root_uri(str(tmp_path / "new")).build()
    other.update()

    old, new = config.model_dump_json(), other.model_dump_json()
    assert old.count(str(tmp_path / "old")) == new.count(str(tmp_path / "new")) > 8
    assert str(tmp_path / "old") not in new
    assert old.replace(str(tmp_path / "old"), str(tmp_path / "new")) == new


# -- what URIs stand for ---------------------------------------------------------------------------------------


def test_scenario_18_an_image_is_a_rasterio_source_and_takes_the_channel_order() -> None:
    scene = SceneConfig.builder().with_id("x")

    assert scene.with_raster_source("a.TIF").build().raster_source == RasterioSourceConfig(uris=["a.TIF"])
    ordered = scene.with_raster_source("a.TIF", channel_order=[2, 0]).build().raster_source
    assert ordered == RasterioSourceConfig(uris=["a.TIF"], channel_order=[2, 0])


@pytest.mark.parametrize(
    ("uri", "cls"),
    [
        ("a.tiff", RasterioSourceConfig),
        ("https://x.org/a.VRT?token=b.json", RasterioSourceConfig),
        ("s3://x/a.jp2", RasterioSourceConfig),
        ("a.unknown", RasterioSourceConfig),
        ("folder/cube.nc", XarraySourceConfig),
        ("s3://x/cube.zarr/", XarraySourceConfig),
        ("catalog/item.json", XarraySourceConfig),
        ("https://x.org/v1/collections/c/items/S2A_1", XarraySourceConfig),
        ("https://x.org/v1/search?limit=3", XarraySourceConfig),
    ],
)
def test_the_extension_tells_the_raster_source(uri: str, cls: type[RasterSourceConfig]) -> None:
    assert type(SceneConfig.builder().with_id("x").with_raster_source(uri).build().raster_source) is cls


def test_vectors_are_no_raster_source() -> None:
    with pytest.raises(RegistryError, match=r"raster_source for 'labels\.geojson'"):
        SceneConfig.builder().with_id("x").with_raster_source("labels.geojson").build()


@pytest.mark.parametrize(
    ("task", "uri", "more", "cls"),
    [
        ("chip_classification", "a.GeoJSON", {"ioa_thresh": 0.1}, ChipClassificationLabelSourceConfig),
        ("object_detection", "a.json?x=a.tif", {}, ObjectDetectionLabelSourceConfig),
        ("semantic_segmentation", "a.tif", {}, SemanticSegmentationLabelSourceConfig),
        ("semantic_segmentation", "a.geojson", {"background_class_id": 1}, SemanticSegmentationLabelSourceConfig),
    ],
)
def test_scenario_19_task_and_extension_tell_the_label_source(task: str, uri: str, more: Any, cls: Any) -> None:
    scene = scene_builder().with_label_source(uri, **more)

    with pytest.raises(ConfigError, match=r"^label_source: .*with_task"):
        scene.build()
    for as_task in (task, task.upper(), TASKS[task]):
        built = scene.with_task(as_task).build().label_source
        assert type(built) is cls
        assert uri in built.model_dump_json()
        assert all(getattr(built, k, v) == v for k, v in more.items())
    assert type(pipeline_of(task, scene).build().dataset.validation_scenes[0].label_source) is cls
    for unsuitable in ("a.mbtiles", "a.tif" if task != "semantic_segmentation" else "a.pdf"):
        with pytest.raises(RegistryError, match=f"label_source for '{unsuitable}' of the task {task}"):
            scene.with_label_source(unsuitable).with_task(task).build()


def test_vector_labels_of_segmentation_need_a_background() -> None:
    scene = scene_builder().with_task("semantic_segmentation")

    with pytest.raises(ConfigError, match="background_class_id="):
        scene.with_label_source("a.geojson").build()
    built = scene.with_label_source("a.geojson", background_class_id=1).build().label_source
    assert isinstance(built.raster_source, RasterizedSourceConfig)
    assert built.raster_source.rasterizer_config.background_class_id == 1


@pytest.mark.parametrize("task", TASKS)
def test_scenario_20_a_label_store_without_uri_is_that_of_the_task_and_filled_by_update(task: str) -> None:
    scene = scene_builder().with_label_store()

    alone = scene.with_task(task).build().label_store
    assert alone == STORES[task]()
    assert alone.uri is None
    config = pipeline_of(task, scene).build()
    config.update()
    store: Any = config.dataset.validation_scenes[0].label_store
    assert type(store) is STORES[task]
    assert store.uri.startswith("out/predict/")


@pytest.mark.parametrize(
    ("task", "good", "bad"), [("object_detection", "a.json", "a"), ("semantic_segmentation", "a", "a.json")]
)
def test_a_label_store_can_have_a_uri(task: str, good: str, bad: str) -> None:
    scene = scene_builder().with_task(task)

    assert scene.with_label_store(good).build().label_store == STORES[task](uri=good)
    with pytest.raises(RegistryError, match="label_store"):
        scene.with_label_store(bad).build()


def test_scenario_21_a_provider_of_a_plugin_comes_first_until_it_is_removed() -> None:
    class ZarrProvider(DefaultProvider):
        def handles(self, uri: str, task: str | None = None) -> bool:
            return uri.endswith(".zarr")

        def construct(self, uri: str | None = None, task: str | None = None, **kwargs: Any) -> Config:
            return RasterioSourceConfig(uris=[f"ZARR:{uri}"], **kwargs)

    scene, provider = SceneConfig.builder().with_id("x").with_raster_source("a.zarr"), ZarrProvider()
    before = scene.build()

    registry_.add_default_provider("raster_source", provider)
    try:
        assert scene.build().raster_source == RasterioSourceConfig(uris=["ZARR:a.zarr"])
        assert scene.with_raster_source("a.tif").build().raster_source == RasterioSourceConfig(uris=["a.tif"])
    finally:
        registry_.remove_default_provider("raster_source", provider)
    assert scene.build() == before


@pytest.mark.parametrize("task", TASKS)
def test_scenario_22_update_picks_what_the_providers_give(task: str) -> None:
    config = pipeline_of(task, scene_builder()).build()

    config.update()

    assert [e.registered_type_hint for e in config.evaluators] == [f"{task}_evaluator"]
    assert type(config.dataset.validation_scenes[0].label_store) is STORES[task]


def test_scenario_22_an_override_in_a_subclass_still_wins() -> None:
    class Own(ChipClassificationConfig):
        def get_default_label_store(self, scene: SceneConfig) -> LabelStoreConfig:
            return SemanticSegmentationLabelStoreConfig(uri=f"own/{scene.id}")

        def get_default_evaluator(self) -> SemanticSegmentationEvaluatorConfig:
            return SemanticSegmentationEvaluatorConfig(output_uri="own")

    config = Own(**dict(pipeline_of("chip_classification", scene_builder()).build()))

    config.update()

    assert config.dataset.validation_scenes[0].label_store == SemanticSegmentationLabelStoreConfig(uri="own/x")
    assert config.evaluators == [SemanticSegmentationEvaluatorConfig(output_uri="own")]


def test_evaluators_are_told_by_the_pipeline_they_are_in() -> None:
    config = pipeline_of("object_detection", scene_builder()).add_evaluator(output_uri="e").build()

    assert [(e.registered_type_hint, e.output_uri) for e in config.evaluators] == [("object_detection_evaluator", "e")]


@pytest.mark.parametrize(
    "make",
    [
        lambda: SceneConfig(id="x", raster_source="a.tif"),  # type: ignore[arg-type]
        lambda: SceneConfig.model_validate({"id": "x", "raster_source": "a.tif"}),
    ],
)
def test_scenario_23_a_uri_is_not_enough_without_a_builder(make: Callable[[], SceneConfig]) -> None:
    with pytest.raises(ValidationError, match="raster_source"):
        make()
