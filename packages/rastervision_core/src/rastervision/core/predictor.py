"""Predict new imagery with a model bundle."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import weakref
from typing import TYPE_CHECKING, Any

from rastervision.core.data.scene import naming_scene
from rastervision.core.rv_pipeline.rv_pipeline import PredictOptions, RVPipelineConfig, find_configs
from rastervision.pipeline.errors import (
    BundleError,
    ConfigError,
    MissingPluginError,
    NotReadableError,
    RegistryError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.core.data.raster_transformer.stats_transformer import StatsTransformerConfig
    from rastervision.core.data.scene import Scene, SceneConfig
    from rastervision.core.rv_pipeline.rv_pipeline import RVPipeline

__all__ = ["Predictor", "ScenePredictor", "load_bundle"]

log = logging.getLogger(__name__)

# how images are read that whoever predicts names; keys are "<section>_<option>"
_SAFE_SETTINGS = frozenset({"aws_s3_requester_pays"})


def load_bundle(model_bundle_uri: str, tmp_dir: str) -> tuple[RVPipelineConfig, str]:
    """Unpack a model bundle into ``<tmp_dir>/bundle``, and return its config, upgraded, and the folder.

    Raises:
        BundleError: The file is not a readable zip file, or not the bundle of a pipeline.
        NotReadableError: There is no such file.
    """
    from rastervision.pipeline.file_system import download_if_needed
    from rastervision.pipeline.file_system.untrusted_zip import unzip_untrusted

    path = download_if_needed(model_bundle_uri, tmp_dir)
    if not os.path.isfile(path):
        raise NotReadableError(f"There is no model bundle at {model_bundle_uri}.")
    bundle_dir = os.path.join(tmp_dir, "bundle")
    try:
        unzip_untrusted(path, bundle_dir)
    except NotReadableError as e:
        raise BundleError(f"The model bundle {model_bundle_uri} cannot be unpacked: {e}") from e
    config_path = os.path.join(bundle_dir, "pipeline-config.json")
    if not os.path.isfile(config_path):
        raise BundleError(
            f"{model_bundle_uri} has no pipeline-config.json, so it is not the bundle of a pipeline. Use the "
            "model-bundle.zip that the bundle command wrote, not the one in the train folder."
        )
    return _load_config(config_path, model_bundle_uri), bundle_dir


def _load_config(path: str, model_bundle_uri: str) -> RVPipelineConfig:
    from rastervision.pipeline.file_system import file_to_json

    try:
        config_dict = file_to_json(path)
        if isinstance(config_dict, dict):
            _apply_settings(config_dict.get("rv_config"), model_bundle_uri)
        config = RVPipelineConfig.from_dict(config_dict)
    except MissingPluginError:
        raise
    except (
        NotReadableError,
        RegistryError,
        ValueError,
        TypeError,
        RecursionError,
    ) as e:  # pydantic's errors are ValueErrors
        raise BundleError(f"The config in the bundle {model_bundle_uri} is damaged or not valid: {e}") from e
    if not isinstance(config, RVPipelineConfig):
        raise BundleError(
            f"{model_bundle_uri} holds a {type(config).__name__}, not the config of a pipeline over scenes."
        )
    return config


def _apply_settings(settings: Any, model_bundle_uri: str) -> None:
    """Use those settings saved with a pipeline that can do no harm: others could name modules to import, or hosts."""
    from rastervision.pipeline.rv_config import rv_config_

    if not settings or not isinstance(settings, dict):
        return
    safe = {k: v for k, v in settings.items() if k.lower() in _SAFE_SETTINGS and isinstance(v, str)}
    if safe:
        rv_config_.apply_overrides(safe)
    ignored = sorted(settings.keys() - safe.keys())
    if ignored:
        log.info("settings saved in %s that are not used: %s", model_bundle_uri, ", ".join(ignored))


class Predictor:
    """Predicts images with a bundle, reading them as the bundle's first validation scene was read.

    Args:
        model_bundle_uri: The bundle of a pipeline.
        tmp_dir: Local folder for temporary files.
        update_stats: Compute statistics from each image, instead of using those of the training imagery.
        channel_order: Channels of the images to use, in the order of those of training; as in training if
            None.
        scene_group: Group of training scenes whose statistics are used; as in training if None.

    Attributes:
        bundle_dir: Folder with the unpacked bundle.
        config: Config of the bundle's pipeline, with one scene.
        scene: Template of the scenes that are predicted.
        pipeline: The pipeline.
        model_loaded: Whether the model is loaded; the first prediction does it.

    Raises:
        BundleError: The bundle is damaged, or not one of a pipeline, or has no scene to go by.
        ConfigError: The bundle has no statistics of ``scene_group``.
    """

    def __init__(
        self,
        model_bundle_uri: str,
        tmp_dir: str,
        update_stats: bool = False,
        channel_order: Sequence[int] | None = None,
        scene_group: str | None = None,
    ) -> None:
        self.tmp_dir = tmp_dir
        self.update_stats = update_stats
        self.model_loaded = False
        self.config, self.bundle_dir = load_bundle(model_bundle_uri, tmp_dir)
        self.scene = self._template(model_bundle_uri)
        if channel_order is not None:
            self.scene.raster_source.channel_order = list(channel_order)
        self._locate_stats(scene_group)
        dataset = self.config.dataset
        dataset.train_scenes, dataset.validation_scenes, dataset.test_scenes = [], [self.scene], []
        dataset.scene_groups = {}
        self.pipeline: RVPipeline = self.config.build(tmp_dir)

    def _template(self, model_bundle_uri: str) -> SceneConfig:
        """Return the first validation scene without what is only true for that scene."""
        dataset = self.config.dataset
        scenes = [*dataset.validation_scenes, *dataset.test_scenes, *dataset.train_scenes]
        if not scenes:
            raise BundleError(
                f"The pipeline of {model_bundle_uri} has no scene, so it is not known how to read images. "
                "Use predict_scene with a scene config instead."
            )
        scene = scenes[0].copy()
        if not hasattr(scene.raster_source, "uris") or not hasattr(scene.label_store, "uri"):
            raise BundleError(
                f"Scene {scene.id!r} of {model_bundle_uri} does not read images by URI and store labels by "
                "URI, so it "
                "cannot be used with other images. Use predict_scene with a scene config instead."
            )
        scene.label_source = None
        scene.aoi_uris = None
        scene.raster_source.bbox = None
        if hasattr(scene.label_store, "vector_output"):
            from rastervision.core.data.label_store.vector_output import PolygonVectorOutputConfig

            num_classes = len(dataset.class_config)
            outputs = [PolygonVectorOutputConfig(class_id=i) for i in range(num_classes)]
            scene.label_store.vector_output = outputs  # type: ignore[union-attr]
        return scene

    def _stats_transformers(self) -> list[StatsTransformerConfig]:
        from rastervision.core.data.raster_transformer.stats_transformer import StatsTransformerConfig

        return list(find_configs(self.scene.raster_source, StatsTransformerConfig))

    def _locate_stats(self, scene_group: str | None) -> None:
        """Point the transformers to the statistics in the bundle."""
        for transformer in self._stats_transformers():
            if scene_group is not None:
                transformer.scene_group = scene_group
            transformer.update_root(self.bundle_dir)
            if self.update_stats or os.path.isfile(transformer.stats_uri or ""):
                continue
            folder = os.path.join(self.bundle_dir, "analyze", "stats")
            groups = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
            raise ConfigError(
                f"The model bundle has no statistics of the scene group {transformer.scene_group!r}, it has "
                f"{groups}. "
                "Name one of them with --scene-group, or compute them from the image with --update-stats."
            )

    def predict(self, image_uris: str | Sequence[str], label_uri: str) -> None:
        """Predict one image, which may consist of several files, and store the labels.

        Args:
            image_uris: The image.
            label_uri: Where the labels go: a folder or a file, depending on the task.

        Raises:
            ConfigError: The image has other channels than the model was trained on.
            NotReadableError: The image cannot be read.
        """
        uris = [image_uris] if isinstance(image_uris, str) else list(image_uris)
        config = self.scene.copy()
        config.id = os.path.basename(uris[0])  # what errors name; the template is another scene
        config.raster_source.uris = uris  # type: ignore[attr-defined]
        config.label_store.uri = label_uri  # type: ignore[union-attr]
        if self.update_stats:
            self._write_stats(config)
        scene = config.build(self.config.dataset.class_config, self.tmp_dir)
        self._check_channels(scene, uris)
        if not self.model_loaded:
            self.pipeline.build_backend(os.path.join(self.bundle_dir, "model-bundle.zip"))
            self.model_loaded = True
        log.info("predicting %s", ", ".join(uris))
        assert scene.label_store is not None
        scene.label_store.save(self.pipeline.predict_scene(scene))

    def _check_channels(self, scene: Scene, uris: list[str]) -> None:
        expected = getattr(getattr(self.config.backend, "data", None), "img_channels", None)
        if expected is not None and scene.raster_source.num_channels != expected:
            raise ConfigError(
                f"{', '.join(uris)} gives {scene.raster_source.num_channels} channels, but the model was "
                "trained on "
                f"{expected}. Choose them with --channel-order."
            )

    def _write_stats(self, scene_config: SceneConfig) -> None:
        """Compute statistics of an image, and write them where the scene's transformers look for them."""
        from rastervision.core.analyzer.stats_analyzer import StatsAnalyzer, StatsAnalyzerConfig
        from rastervision.core.data.raster_source.raster_source import RasterSourceConfig
        from rastervision.core.data.raster_transformer.stats_transformer import StatsTransformerConfig
        from rastervision.core.data.scene import Scene

        options = next(find_configs(self.config.analyzers, StatsAnalyzerConfig), StatsAnalyzerConfig())
        updated = 0
        for source_config in find_configs(scene_config.raster_source, RasterSourceConfig):
            own = [t for t in source_config.transformers if isinstance(t, StatsTransformerConfig)]
            if not own:
                continue
            uri = os.path.join(self.bundle_dir, "updated-stats", str(updated), "stats.json")
            updated += 1
            with naming_scene(scene_config.id, "raster_source"):
                source = source_config.build(self.tmp_dir, use_transformers=False)
            analyzer = StatsAnalyzer(uri, options.sample_prob, options.chip_sz, options.nodata_value)
            analyzer.process([Scene(scene_config.id, source)], self.tmp_dir)
            for transformer in own:
                transformer.stats_uri = uri
                # the statistics are those of the channels as they are read
                transformer.needs_channel_order = False
        if not updated:
            log.warning("the bundle's imagery is not transformed by statistics: update_stats has no effect")


class ScenePredictor:
    """Predicts scenes, each with its own config, with a bundle.

    Args:
        model_bundle_uri: The bundle of a pipeline.
        predict_options: Instead of those of the bundle; an object, a dict or the URI of a JSON file.
        tmp_dir: Local folder for temporary files; one is made if None.

    Attributes:
        pipeline: The bundle's pipeline.
        pipeline_config: Its config.
        class_config: Its classes.
        tmp_dir: Local folder for temporary files.
    """

    def __init__(
        self,
        model_bundle_uri: str,
        predict_options: str | dict[str, Any] | PredictOptions | None = None,
        tmp_dir: str | None = None,
    ) -> None:
        from rastervision.pipeline.rv_config import rv_config_

        if tmp_dir is None:
            tmp_dir = tempfile.mkdtemp(dir=rv_config_.get_tmp_dir_root(), prefix="predict-")
            weakref.finalize(self, shutil.rmtree, tmp_dir, ignore_errors=True)
        self.tmp_dir = tmp_dir
        self.pipeline_config, self.bundle_dir = load_bundle(model_bundle_uri, tmp_dir)
        if predict_options is not None:
            if isinstance(predict_options, dict) and "type_hint" not in predict_options:
                hint = type(self.pipeline_config.get_predict_options()).registered_type_hint
                predict_options = {**predict_options, "type_hint": hint}
            self.pipeline_config.predict_options = PredictOptions.deserialize(predict_options)
        self.class_config = self.pipeline_config.dataset.class_config
        self.pipeline: RVPipeline = self.pipeline_config.build(tmp_dir)

    def build_scene(self, scene_config: str | dict[str, Any] | SceneConfig) -> Scene:
        """Build a scene from its config: an object, a dict or the URI of a JSON file."""
        from rastervision.core.data.scene import SceneConfig

        config = SceneConfig.deserialize(scene_config)
        if config.label_store is None:
            raise ConfigError(f"Scene {config.id!r} has no label_store, so there is no place for the prediction.")
        return config.build(self.class_config, self.tmp_dir)

    def predict(self, scene_config: str | dict[str, Any] | SceneConfig) -> None:
        """Predict a scene and store the labels in its label store."""
        self.predict_scene(self.build_scene(scene_config))

    def predict_scene(self, scene: Scene) -> None:
        """Predict a scene and store the labels in its label store."""
        if scene.label_store is None:
            raise ConfigError(f"Scene {scene.id!r} has no label_store, so there is no place for the prediction.")
        if self.pipeline.backend is None:
            self.pipeline.build_backend(os.path.join(self.bundle_dir, "model-bundle.zip"))
        with naming_scene(scene.id):
            scene.label_store.save(self.pipeline.predict_scene(scene))
