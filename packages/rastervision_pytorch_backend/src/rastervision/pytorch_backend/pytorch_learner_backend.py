"""The backend that all tasks share: chips in zip files, a learner that trains, its bundle for prediction."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import Field

from rastervision.core.backend.backend import Backend, BackendConfig
from rastervision.core.data_sample import DataSample
from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.pipeline.lazy import load_object
from rastervision.pytorch_backend.learner_config.data import DataConfig
from rastervision.pytorch_backend.learner_config.geo_data import GeoDataConfig
from rastervision.pytorch_backend.learner_config.image_data import ImageDataConfig
from rastervision.pytorch_backend.learner_config.model import ModelConfig
from rastervision.pytorch_backend.learner_config.solver import SolverConfig
from rastervision.pytorch_backend.onnx_predict import OnnxModel, open_onnx_model
from rastervision.pytorch_backend.sample_writer import PyTorchLearnerSampleWriter, get_image_ext, write_chip

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rastervision.core.data.dataset_config import DatasetConfig
    from rastervision.core.data.label.labels import Labels
    from rastervision.core.data.raster_source.raster_source import RasterSourceConfig
    from rastervision.core.data.scene import Scene, SceneConfig
    from rastervision.core.rv_pipeline.chip_options import ChipOptions
    from rastervision.core.rv_pipeline.rv_pipeline import PredictOptions, RVPipelineConfig
    from rastervision.pipeline.io_report import CommandIODefinition
    from rastervision.pytorch_backend.chipping import ChipCount, Split
    from rastervision.pytorch_backend.learner_config.learner import LearnerConfig

__all__ = [
    "SPLITS",
    "PyTorchLearnerBackend",
    "PyTorchLearnerBackendConfig",
    "PyTorchLearnerSampleWriter",
    "get_image_ext",
    "write_chip",
]

log = logging.getLogger(__name__)

W = TypeVar("W", bound=PyTorchLearnerSampleWriter)

SPLITS: list[Split] = ["train", "valid", "test"]

MODEL_BUNDLE = "model-bundle.zip"
_DEFAULT_CHIP_WORKERS = 4


@register_config("pytorch_learner_backend")
class PyTorchLearnerBackendConfig(BackendConfig):
    """Configure a `PyTorchLearnerBackend`."""

    predicts_parts: ClassVar[bool] = True

    model: ModelConfig = Field(description="The model.")
    solver: SolverConfig = Field(description="How to train.")
    data: DataConfig = Field(description="Training data: chips that the chip command writes, or scenes directly.")
    log_tensorboard: bool = Field(True, description="Write TensorBoard logs.")
    loggers: list[str] = Field([], description="More loggers by name, such as mlflow or wandb.")
    run_tensorboard: bool = Field(False, description="Run a TensorBoard server during training.")
    save_all_checkpoints: bool = Field(False, description="Keep the weights of every epoch, not only of the last.")
    export_onnx: bool = Field(
        False, description="Add the model to the bundle as model.onnx, with which PyTorch is not needed to predict."
    )

    def get_bundle_filenames(self) -> list[str]:
        """Return the names of the files in ``train_uri`` that the model bundle needs."""
        return [MODEL_BUNDLE]

    def filter_commands(self, commands: list[str]) -> list[str]:
        """Return the commands that this backend needs: no chips are written if data comes from the scenes."""
        if isinstance(self.data, GeoDataConfig):
            return [command for command in commands if command != "chip"]
        return commands

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report the training data, and the files of model and loss; other commands find all in the bundle."""
        if command == "train":
            super().report_io(command, io_def)

    def command_config(self, command: str) -> Any:
        """Return the part of this config that a command depends on: for train what the model depends on."""
        if command != "train":
            return {"type_hint": self.registered_type_hint}
        part = self.json(exclude={"log_tensorboard", "loggers", "run_tensorboard"})
        del part["data"]["num_workers"]
        for scene in _scene_dicts(part["data"].get("scene_dataset") or {}):
            scene.pop("label_store", None)  # predictions of scenes play no part in training
        return part

    def update(self, pipeline: RVPipelineConfig | None = None) -> None:
        """Fill what is not set of ``data``: classes, number of channels, and where chips or scenes are."""
        super().update(pipeline=pipeline)
        data = self.data
        if pipeline is None:
            data.update()
            return
        if isinstance(data, ImageDataConfig) and data.uri is None and data.group_uris is None:
            data.uri = pipeline.chip_uri
        if isinstance(data, GeoDataConfig):
            if data.scene_dataset is None:
                data.scene_dataset = pipeline.dataset
            if not data.sampling and pipeline.chip_options is not None:
                data.sampling = pipeline.chip_options.sampling
        self._take_classes(pipeline)
        if data.img_channels is None:
            data.img_channels = self.get_img_channels(pipeline)
        data.update()

    def _take_classes(self, pipeline: RVPipelineConfig) -> None:
        """Set the classes of the data to those of the pipeline, which may have got a null class since."""
        wanted, given = pipeline.dataset.class_config, self.data.class_config
        names = [] if given is None else given.names
        without_null = [name for name in wanted.names if name != wanted.null_class]
        if given is None or (names != wanted.names and names == without_null):
            self.data.class_config = wanted
        elif names != wanted.names:
            raise ConfigError(
                f"backend.data.class_config has the classes {names}, but dataset.class_config has "
                f"{wanted.names}. "
                "Leave backend.data.class_config out: it is taken from the dataset."
            )

    def get_img_channels(self, pipeline_cfg: RVPipelineConfig) -> int:
        """Return the number of channels: of a channel order, or else of the first image."""
        scenes = pipeline_cfg.dataset.all_scenes
        for scene in scenes:
            if scene.raster_source.channel_order is not None:
                return len(scene.raster_source.channel_order)
        return _count_channels(scenes[0].raster_source) if scenes else 3

    def get_learner_config(self, pipeline: RVPipelineConfig | None) -> LearnerConfig:
        """Return the config of the learner; each task has its own."""
        raise NotImplementedError

    def _learner_fields(self, pipeline: RVPipelineConfig | None) -> dict[str, Any]:
        """Return the fields of the config of the learner, which writes to the pipeline's ``train_uri``."""
        names = (
            *("data", "model", "solver", "log_tensorboard", "loggers", "run_tensorboard"),
            *("save_all_checkpoints", "export_onnx"),
        )
        fields = {name: getattr(self, name) for name in names}
        return {**fields, "output_uri": None if pipeline is None else pipeline.train_uri}

    def build(self, pipeline: RVPipelineConfig | None, tmp_dir: str) -> PyTorchLearnerBackend:
        """Build the backend of a pipeline; ``tmp_dir`` is a local folder for temporary files."""
        raise ConfigError(f"{type(self).__name__} has no backend in this release, so its pipeline cannot be run yet.")


def _scene_dicts(dataset: dict[str, Any]) -> list[dict[str, Any]]:
    return [scene for name in ("train_scenes", "validation_scenes", "test_scenes") for scene in dataset.get(name, [])]


def _count_channels(source: RasterSourceConfig) -> int:
    """Return the number of channels that chips of a source will have.

    Its transformers are not built with it: they may need statistics that analyze has yet to write.
    """
    from rastervision.core.data.raster_transformer.stats_transformer import StatsTransformerConfig
    from rastervision.pipeline.file_system.utils import get_tmp_dir

    with get_tmp_dir() as tmp_dir:
        count = source.build(tmp_dir, use_transformers=False).num_channels
    for transformer in source.transformers:
        if not isinstance(transformer, StatsTransformerConfig):
            count = transformer.build().get_out_channels(count)
    return count


class PyTorchLearnerBackend(Backend):
    """Writes chips without PyTorch; trains and predicts with a learner of rastervision_pytorch_learner."""

    predict_function: ClassVar[str | None] = None
    """Reference ``module:function`` of what predicts: ``(learner, scene, predict options) -> labels``."""

    def __init__(self, pipeline_cfg: RVPipelineConfig, learner_cfg: LearnerConfig, tmp_dir: str) -> None:
        """Constructor.

        Args:
            pipeline_cfg: The pipeline, with its URIs filled.
            learner_cfg: The learner.
            tmp_dir: Local folder for temporary files.
        """
        self.pipeline_cfg = pipeline_cfg
        self.learner_cfg = learner_cfg
        self.tmp_dir = tmp_dir
        self.learner: Any | None = None

    def get_sample_writer(self) -> PyTorchLearnerSampleWriter:
        """Return a writer of training chips; each task has its own."""
        raise NotImplementedError

    def _make_writer(self, writer_class: type[W]) -> W:
        """Return a writer of chips to the pipeline's ``chip_uri``."""
        if self.pipeline_cfg.chip_uri is None:
            raise ConfigError("chip_uri is not set. Set it, or set root_uri and call update() of the pipeline config.")
        return writer_class(self.pipeline_cfg.chip_uri, self.pipeline_cfg.dataset.class_config, self.tmp_dir)

    def chip_dataset(
        self,
        dataset: DatasetConfig,
        chip_options: ChipOptions,
        dataloader_kw: Mapping[str, Any] | None = None,
    ) -> list[str]:
        """Write the chips of all scenes of a dataset to one zip file in ``chip_uri``, and return its URI in a list.

        The list is empty if the options keep no chip.

        Args:
            dataset: The scenes; often a part of those of the pipeline.
            chip_options: Which windows, and which of their chips.
            dataloader_kw: ``num_workers`` is the number of threads.

        Raises:
            ConfigError: A training or validation scene has no labels, or no training chip is kept.
        """
        if not dataset.all_scenes:
            log.info("no scenes to chip in this split")
            return []
        num_workers = int((dataloader_kw or {}).get("num_workers") or self._num_chip_workers())
        counts: list[tuple[Split, ChipCount]] = []
        with self.get_sample_writer() as writer:
            writer.scene_ids = {scene.id for scene in dataset.all_scenes}
            writer.known_scene_ids = {scene.id for scene in self.pipeline_cfg.dataset.all_scenes}
            groups = (dataset.train_scenes, dataset.validation_scenes, dataset.test_scenes)
            for split, scenes in zip(SPLITS, groups, strict=True):
                for scene in scenes:
                    count = self._chip_scene(scene, split, dataset, chip_options, writer, num_workers)
                    counts.append((split, count))
            whole = writer.scene_ids == writer.known_scene_ids
            _check_some_kept(counts, chip_options, whole=whole)
        return writer.written_uris

    def chip_pytorch_dataset(
        self,
        dataset: Any,
        sample_writer: PyTorchLearnerSampleWriter,
        chip_options: ChipOptions,
        split: Split | None = None,
        dataloader_kw: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the samples of a dataset of the learner package that the options keep.

        `chip_dataset` does not need this: it reads scenes itself, in several threads.

        Args:
            dataset: Gives pairs of chip (H, W, C) and label as arrays, ``((chip, label), window)`` with
                ``return_window``; such as those that ``build(for_chipping=True)`` of a `GeoDataConfig` makes.
            sample_writer: An entered sample writer.
            chip_options: Which chips are kept.
            split: Part of the data set that the samples are for.
            dataloader_kw: No effect.
        """
        scene_id = getattr(getattr(dataset, "scene", None), "id", None)
        for i in range(len(dataset)):
            sample, window = dataset[i], None
            if getattr(dataset, "return_window", False):
                sample, window = sample
            chip, label = sample
            if chip_options.keep_chip(chip, label):
                sample_writer.write_sample(DataSample(chip, label, split, scene_id, window))

    def _chip_scene(
        self,
        scene_config: SceneConfig,
        split: Split,
        dataset: DatasetConfig,
        chip_options: ChipOptions,
        writer: PyTorchLearnerSampleWriter,
        num_workers: int,
    ) -> ChipCount:
        from rastervision.core.data.scene import naming_scene
        from rastervision.pytorch_backend.chipping import ChipCount, chip_scene

        if scene_config.label_source is None:
            if split == "test":
                log.info("scene %s has no label_source and is not chipped", scene_config.id)
                return ChipCount()
            group = "train_scenes" if split == "train" else "validation_scenes"
            raise ConfigError(
                f"Scene {scene_config.id!r} in {group} has no label_source, so no chips can be made of it. "
                "Give it one, or move it to test_scenes."
            )
        with naming_scene(scene_config.id):
            scene = scene_config.build(dataset.class_config, self.tmp_dir)
            return chip_scene(scene, split, chip_options, writer, num_workers)

    def _num_chip_workers(self) -> int:
        from rastervision.pipeline import rv_config_

        wanted = rv_config_.get_namespace_option("rastervision", "CHIP_NUM_WORKERS")
        return int(wanted) if wanted is not None else min(_DEFAULT_CHIP_WORKERS, os.cpu_count() or 1)

    def _learner_class(self) -> Any:
        if self.learner_cfg.learner_class is None:
            raise NotImplementedError(f"{type(self.learner_cfg).__name__} names no learner; use the config of a task.")
        return load_object(self.learner_cfg.learner_class)

    def train(self, source_bundle_uri: str | None = None) -> None:
        """Train a model and write weights, logs and a bundle to ``train_uri``.

        Args:
            source_bundle_uri: Model bundle, of a pipeline or of a learner, with weights to start from.

        Raises:
            MissingPackageError: rastervision_pytorch_learner is not installed.
        """
        if source_bundle_uri is None:
            learner = self.learner_cfg.build(tmp_dir=self.tmp_dir, training=True)
        else:
            learner_class = self._learner_class()
            learner = learner_class.from_model_bundle(
                self._learner_bundle(source_bundle_uri),
                tmp_dir=self.tmp_dir,
                cfg=self.learner_cfg,
                training=True,
            )
        learner.main()

    def _learner_bundle(self, uri: str) -> str:
        """Return the local path of the learner's bundle at ``uri``, or in the pipeline's bundle there."""
        from rastervision.pipeline.file_system.untrusted_zip import unzip_untrusted
        from rastervision.pipeline.file_system.utils import download_if_needed

        _check_exists(uri, "source_bundle_uri")
        path = download_if_needed(uri, self.tmp_dir)
        folder = os.path.join(self.tmp_dir, "source-bundle")
        unzip_untrusted(path, folder)
        inner = os.path.join(folder, MODEL_BUNDLE)
        return inner if os.path.exists(inner) else path

    def load_model(self, uri: str | None = None) -> None:
        """Load the trained model, from a learner's bundle at ``uri`` or from where training wrote it.

        Where PyTorch is not installed, or the setting ``rastervision.use_onnx`` is on, it is the exported model of the
        bundle, run by ONNX Runtime.

        Raises:
            NotReadableError: There is no bundle.
            BundleError: It is damaged, or of another task.
            MissingPackageError: rastervision_pytorch_learner is not installed, and the bundle has no exported model.
        """
        bundle_uri = uri or self.learner_cfg.get_model_bundle_uri()
        _check_exists(bundle_uri, "the train command's output")
        self.learner = open_onnx_model(bundle_uri, self.tmp_dir, self.learner_cfg)
        if self.learner is not None:
            return
        learner_class = self._learner_class()
        if uri is None:
            # the config of this run is the user's own, unlike that of a bundle from elsewhere
            load_object("rastervision.pytorch_learner.trust:note_own_config")(self.learner_cfg)
        self.learner = learner_class.from_model_bundle(bundle_uri, tmp_dir=self.tmp_dir, training=False)

    def predict_scene(
        self,
        scene: Scene,
        predict_options: PredictOptions | None = None,
        chip_sz: int | None = None,
        stride: int | None = None,
    ) -> Labels:
        """Return the predicted labels of a scene; loads the trained model first if need be.

        For some tasks windows are predicted while a label store takes the labels, band by band.

        Args:
            scene: The scene.
            predict_options: Those of the pipeline if not given.
            chip_sz: Side of the windows in pixels, instead of that in the options.
            stride: Step between windows, instead of that in the options.
        """
        if self.predict_function is None:
            raise NotImplementedError(f"{type(self).__name__} does not say how it predicts; use the backend of a task.")
        options = self.pipeline_cfg.get_predict_options() if predict_options is None else predict_options
        if chip_sz is not None or stride is not None:
            options = options.model_copy(update={"chip_sz": chip_sz or options.chip_sz, "stride": stride or chip_sz})
        if self.learner is None:
            self.load_model()
        if isinstance(self.learner, OnnxModel):
            return self.learner.predict_scene(scene, options)
        labels: Labels = load_object(self.predict_function)(self.learner, scene, options)
        return labels


def _check_exists(uri: str, what: str) -> None:
    from rastervision.pipeline.file_system.utils import file_exists

    if not file_exists(uri, include_dir=False):
        raise NotReadableError(f"There is no model bundle at {uri} ({what}). Run the train command first.")


def _check_some_kept(counts: list[tuple[Split, ChipCount]], options: ChipOptions, whole: bool) -> None:
    """Say which options are to blame if no training chip is kept; only warn for a part of the scenes."""
    windows = sum(count.windows for split, count in counts if split == "train")
    kept = sum(count.kept for split, count in counts if split == "train")
    if kept or all(split != "train" for split, _ in counts):
        return
    if windows:
        filters = {name: value for name, value in options if name not in ("sampling", "type_hint")}
        given = ", ".join(f"{name}={value}" for name, value in filters.items() if value is not None)
        message = f"chip_options keeps none of {windows} training chips ({given}). Relax these filters."
    else:
        message = (
            "There is no window to chip in the training scenes. Make chip_options.sampling.size smaller, "
            "or the AOIs of the scenes larger."
        )
    if whole:
        raise ConfigError(message)
    log.warning("%s (This is one split of the scenes; others may have chips.)", message)
