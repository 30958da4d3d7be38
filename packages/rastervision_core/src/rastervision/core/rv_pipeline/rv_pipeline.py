"""The commands of a geospatial pipeline, each a method: analyze, chip, train, predict, eval, bundle.

The path of the data: scenes (`core.data.scene`) -> chips and model (`backend`) -> labels -> label store ->
evaluation.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

from pydantic import Field, model_validator

from rastervision.core.analyzer.analyzer import AnalyzerConfig
from rastervision.core.analyzer.stats_analyzer import StatsAnalyzer
from rastervision.core.backend.backend import BackendConfig
from rastervision.core.data.dataset_config import DatasetConfig
from rastervision.core.data.scene import SceneConfig, naming_scene
from rastervision.core.evaluation.evaluator import EvaluatorConfig
from rastervision.core.rv_pipeline.chip_options import ChipOptions
from rastervision.core.rv_pipeline.chip_record import ChipRecord
from rastervision.pipeline.config import Config, ConfigError, register_config
from rastervision.pipeline.config_tree import is_own, without_gc
from rastervision.pipeline.default_providers import default_config
from rastervision.pipeline.pipeline import Pipeline, PipelineConfig
from rastervision.pipeline.progress import track

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rastervision.core.backend.backend import Backend
    from rastervision.core.box import Box
    from rastervision.core.data.label.labels import Labels
    from rastervision.core.data.label_store.label_store import LabelStoreConfig
    from rastervision.core.data.scene import Scene
    from rastervision.core.data_sample import DataSample
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["DatasetConfig", "PredictOptions", "RVPipeline", "RVPipelineConfig", "SceneConfig", "find_configs"]

log = logging.getLogger(__name__)

ALL_COMMANDS = ("analyze", "chip", "train", "predict", "eval", "bundle")
BUNDLE_NAME = "model-bundle.zip"
NUM_PREVIEWS = 3
# each has files open, of which a process may often have no more than 1024
_MAX_OPEN_SCENES = 200

C = TypeVar("C", bound=Config)


@register_config("predict_options")
class PredictOptions(Config):
    """Configure how a scene is predicted."""

    chip_sz: int = Field(300, gt=0, description="Side of the windows that are predicted, in pixels.")
    stride: int | None = Field(None, gt=0, description="Step between windows; chip_sz if not given.")
    batch_sz: int = Field(8, gt=0, description="Number of windows that the model is given at once.")

    @model_validator(mode="after")
    def validate_stride(self) -> Self:
        """Fill the stride."""
        if self.stride is None:
            self.__dict__["stride"] = self._default_stride()
        return self

    def _default_stride(self) -> int:
        return self.chip_sz


@register_config("rv_pipeline")
class RVPipelineConfig(PipelineConfig):
    """Configure an `RVPipeline`."""

    command_uri_fields: ClassVar[Sequence[str]] = tuple(f"{command}_uri" for command in ALL_COMMANDS)

    dataset: DatasetConfig = Field(description="Classes and scenes.")
    backend: BackendConfig = Field(description="The machine learning library and its model.")
    evaluators: list[EvaluatorConfig] = Field([], description="How predictions are evaluated; the task has a default.")
    analyzers: list[AnalyzerConfig] = Field(
        [], description="What is computed from the imagery first; statistics if a scene needs them."
    )
    analyze_uri: str | None = Field(None, description="Folder of statistics; <root_uri>/analyze if not given.")
    chip_uri: str | None = Field(None, description="Folder of training chips; <root_uri>/chip if not given.")
    train_uri: str | None = Field(None, description="Folder of the training run; <root_uri>/train if not given.")
    predict_uri: str | None = Field(None, description="Folder of predictions; <root_uri>/predict if not given.")
    eval_uri: str | None = Field(None, description="Folder of evaluations; <root_uri>/eval if not given.")
    bundle_uri: str | None = Field(None, description="Folder of the model bundle; <root_uri>/bundle if not given.")
    source_bundle_uri: str | None = Field(None, description="Model bundle whose weights training starts from.")
    chip_options: ChipOptions | None = Field(None, description="Which chips are written for training.")
    predict_options: PredictOptions | None = Field(None, description="How scenes are predicted.")

    def build(self, tmp_dir: str) -> RVPipeline:
        """Build the pipeline; ``tmp_dir`` is a local folder for temporary files."""
        return RVPipeline(self, tmp_dir)

    def update(self) -> None:
        """Fill what depends on other parts of the pipeline: URIs, label stores, evaluators, analyzers.

        Works on copies of what something else refers to as well, so that a dataset given to two pipelines is not
        changed by either; parts that are one object (the dataset of the pipeline and of the backend) stay one. May
        be called again.

        Raises:
            ConfigError: There is no place for statistics that imagery is transformed by.
        """
        if self.root_uri:
            for command in ALL_COMMANDS:
                if getattr(self, f"{command}_uri") is None:
                    setattr(self, f"{command}_uri", f"{self.root_uri.rstrip('/')}/{command}")
        with without_gc():
            self._own_parts()
            self._add_stats_analyzer()
            for dataset in self._datasets():
                self.update_dataset(dataset)
        if not self.evaluators:
            self.evaluators = [self.get_default_evaluator()]
        for part in (*self.analyzers, *self.evaluators, self.backend):
            part.update(pipeline=self)

    def _own_parts(self) -> None:
        """Copy the parts. The dataset, which may be large, is only copied if something outside refers to it."""
        names = ("dataset", "backend", "evaluators", "analyzers", "chip_options", "predict_options")
        in_backend = sum(d is self.dataset for d in find_configs(self.backend, DatasetConfig))
        kept = {id(self.dataset): self.dataset} if is_own(self, "dataset", others=in_backend) else {}
        # one deepcopy call, so that objects that were shared between the parts still are
        copies = copy.deepcopy([self.__dict__[name] for name in names], kept)
        self.__dict__.update(zip(names, copies, strict=True))

    def _datasets(self) -> list[DatasetConfig]:
        """Return the dataset of the pipeline and those that the backend holds."""
        found = {id(d): d for d in (self.dataset, *find_configs(self.backend, DatasetConfig))}
        return list(found.values())

    def update_dataset(self, dataset: DatasetConfig) -> None:
        """Fill what a dataset takes from the pipeline; tasks extend this."""
        dataset.update(pipeline=self)

    def _add_stats_analyzer(self) -> None:
        """Add the analyzer that writes the statistics that imagery is transformed by, if any is."""
        from rastervision.core.analyzer.stats_analyzer import StatsAnalyzerConfig
        from rastervision.core.data.raster_transformer.stats_transformer import StatsTransformerConfig

        sources = [scene.raster_source for scene in self.dataset.all_scenes]
        transformers = find_configs(sources, StatsTransformerConfig)
        analyzers = [a for a in self.analyzers if isinstance(a, StatsAnalyzerConfig)]
        if not self.analyze_uri:
            if any(t.stats_uri is None for t in transformers) and not any(a.output_uri for a in analyzers):
                raise ConfigError(
                    "Imagery is transformed by statistics (stats_transformer), but there is no place to write "
                    "them: analyze_uri is not set. Set root_uri or analyze_uri."
                )
        elif not analyzers and next(transformers, None) is not None:
            self.analyzers = [*self.analyzers, StatsAnalyzerConfig()]

    def validate_config(self) -> None:
        """Check that scenes have window sampling if it is given by scene.

        Raises:
            ConfigError: They do not.
        """
        sampling = self.chip_options.sampling if self.chip_options is not None else None
        if isinstance(sampling, dict):
            ids = {s.id for s in self.dataset.all_scenes if s.label_source is not None}
            if ids - set(sampling):
                raise ConfigError(
                    f"chip_options.sampling has no entry for the scenes {sorted(ids - set(sampling))}. "
                    "Add one for each scene, or give one for all of them."
                )

    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        """Report what a command reads and writes, after `update`; nothing for a command that a subclass adds."""
        from rastervision.core.rv_pipeline.io import report_command_io

        report_command_io(self, command, io_def)
        if command == "eval":
            io_def.add_outputs(uri for _, uri in self.get_previews())

    def get_previews(self) -> list[tuple[SceneConfig, str]]:
        """Return the scenes of which eval makes pictures, the first labelled validation scenes, with their URIs."""
        from rastervision.core.evaluation.preview import preview_uri

        if not self.eval_uri:
            return []
        scenes = [s for s in self.dataset.validation_scenes if s.label_source is not None][:NUM_PREVIEWS]
        return [(scene, preview_uri(self.eval_uri, scene.id)) for scene in scenes]

    def command_config(self, command: str) -> Any:
        """Return the part of this config that a command depends on, as JSON-compatible values."""
        from rastervision.core.rv_pipeline.io import get_command_config

        part = get_command_config(self, command)
        return super().command_config(command) if part is None else part

    def get_default_label_store(self, scene: SceneConfig) -> LabelStoreConfig:
        """Return where predictions of a scene are stored unless it says so itself; providers tell it by the task."""
        return cast("LabelStoreConfig", default_config("label_store", task=self))

    def get_default_evaluator(self) -> EvaluatorConfig:
        """Return how predictions are evaluated unless the pipeline says so; providers tell it by the task."""
        return cast("EvaluatorConfig", default_config("evaluator", task=self))

    def get_predict_options(self) -> PredictOptions:
        """Return ``predict_options``, or the defaults of the task."""
        return self.predict_options or PredictOptions()

    def get_model_bundle_uri(self) -> str:
        """Return the URI of the bundle that the bundle command writes.

        Raises:
            ConfigError: ``bundle_uri`` is not set.
        """
        if not self.bundle_uri:
            raise ConfigError("bundle_uri is not set. Set it or root_uri, and call update().")
        return f"{self.bundle_uri.rstrip('/')}/{BUNDLE_NAME}"


def find_configs(value: Any, config_cls: type[C]) -> Iterator[C]:
    """Yield the configs of a class (or its subclasses) in a config, list or dict, at any depth."""
    if isinstance(value, config_cls):
        yield value
    if isinstance(value, Config):
        value = value.__dict__
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple, set)):
        return
    for item in value:
        if isinstance(item, (Config, dict, list, tuple, set)):
            yield from find_configs(item, config_cls)


class RVPipeline(Pipeline):
    """A pipeline over scenes.

    Args:
        config: The pipeline's config, after ``update()``.
        tmp_dir: Local folder for temporary files.

    Attributes:
        backend: The backend with its model, once `build_backend` was called.
    """

    all_commands: ClassVar[Sequence[str]] = ALL_COMMANDS
    split_commands: ClassVar[Sequence[str]] = ("chip", "predict")  # type: ignore[misc]
    gpu_commands: ClassVar[Sequence[str]] = ("train", "predict")  # type: ignore[misc]

    config: RVPipelineConfig

    def __init__(self, config: RVPipelineConfig, tmp_dir: str) -> None:
        super().__init__(config, tmp_dir)
        self.backend: Backend | None = None

    @property
    def commands(self) -> list[str]:  # type: ignore[override]
        """Those of ``all_commands`` that this pipeline needs, in order."""
        commands = self.config.backend.filter_commands(list(ALL_COMMANDS))
        return [c for c in commands if c != "analyze" or self.config.analyzers]

    # -- commands --------------------------------------------------------------------------------------------

    def analyze(self) -> None:
        """Run each analyzer on each group of scenes, without their raster transformers."""
        for analyzer_config in self.config.analyzers:
            for name, scenes in self._analysis_groups(analyzer_config):
                analyzer = analyzer_config.build(scene_group=(name, [s.id for s in scenes]))
                log.info("analyzing %s: %d scenes", name, len(scenes))
                built: Any = (self.build_scene(s, use_transformers=False) for s in scenes)
                if isinstance(analyzer, StatsAnalyzer) and len(scenes) > _MAX_OPEN_SCENES:
                    built = track(built, f"analyze {name}", len(scenes))
                else:
                    built = list(built)
                analyzer.process(built, self.tmp_dir)

    def _analysis_groups(self, analyzer: AnalyzerConfig) -> list[tuple[str, list[SceneConfig]]]:
        """Return the groups of scenes; all scenes together if the analyzer has one file for all groups.

        So do configs up to release 0.13, which had no groups.
        """
        groups = [(name, list(scenes)) for name, scenes in self.config.dataset.get_groups()]
        written = {tuple(analyzer.get_output_uris(name)) for name, _ in groups}
        if len(groups) > 1 and len(written) == 1 and written != {()}:
            return [("all_scenes", list({id(s): s for _, scenes in groups for s in scenes}.values()))]
        return groups

    def chip(self, split_ind: int = 0, num_splits: int = 1) -> None:
        """Write training chips of the scenes, or of one of ``num_splits`` parts of them, and a `ChipRecord`."""
        if self.config.chip_options is None:
            raise ConfigError("chip_options is not set, so it is not known what chips to write. Set chip_options.")
        record = ChipRecord(self.config.chip_uri, split_ind, num_splits) if self.config.chip_uri else None
        if record is not None:
            record.withdraw()
        dataset = self.config.dataset.get_split_config(split_ind, num_splits)
        written: Sequence[str] | None = ()
        if dataset.all_scenes:
            backend = self.config.backend.build(self.config, self.tmp_dir)
            written = backend.chip_dataset(dataset, self.config.chip_options)
        else:
            log.info("no scenes in split %d of %d", split_ind, num_splits)
        if record is not None:
            record.write(written)

    def train(self) -> None:
        """Train a model and save it."""
        backend = self.config.backend.build(self.config, self.tmp_dir)
        backend.train(source_bundle_uri=self.config.source_bundle_uri)

    def build_backend(self, uri: str | None = None) -> None:
        """Build the backend and load its model, from a bundle at ``uri`` or from where training saved it."""
        backend = self.config.backend.build(self.config, self.tmp_dir)
        backend.load_model(uri)
        self.backend = backend

    def predict(self, split_ind: int = 0, num_splits: int = 1) -> None:
        """Predict the validation and test scenes, or one of ``num_splits`` parts of them, and store labels.

        Stored labels are replaced scene by scene, each as a whole. If there are more parts than scenes, scenes are cut,
        and `merge_splits` makes the labels of their parts.
        """
        from rastervision.core.rv_pipeline.scene_parts import predict_part

        if self.splits_are_merged("predict", num_splits):
            predict_part(self, split_ind, num_splits)
            return
        dataset = self.config.dataset.get_split_config(split_ind, num_splits)
        scenes = [*dataset.validation_scenes, *dataset.test_scenes]
        if not scenes:
            log.info("no scenes in split %d of %d", split_ind, num_splits)
            return
        if self.backend is None:
            self.build_backend()
        for scene_config in scenes:
            with naming_scene(scene_config.id):
                self.predict_and_save(self.build_scene(scene_config))

    def predict_and_save(self, scene: Scene) -> None:
        """Predict a scene, and store its labels."""
        if scene.label_store is None:
            raise ConfigError(f"Scene {scene.id!r} has no label_store for its prediction. Call update() first.")
        log.info("predicting %s: %dx%d pixels", scene.id, *scene.extent.size)
        scene.label_store.save(self.predict_scene(scene))

    def splits_are_merged(self, command: str, num_splits: int) -> bool:
        """Return whether the parts have to be merged: those of predict, if scenes are cut."""
        from rastervision.core.rv_pipeline.scene_parts import predicts_parts

        # a subclass that predicts in its own way knows nothing of parts of scenes
        ours = all(getattr(type(self), n) is getattr(RVPipeline, n) for n in ("predict", "predict_scene"))
        return command == "predict" and ours and predicts_parts(self.config, num_splits)

    def merge_splits(self, command: str, num_splits: int) -> None:
        """Make and store the labels of the scenes that were predicted in parts, without a whole scene in memory."""
        from rastervision.core.rv_pipeline.scene_parts import merge_parts

        merge_parts(self, num_splits)

    def predict_scene(self, scene: Scene) -> Labels:
        """Return the predicted labels of a scene; for some tasks they are computed while they are saved."""
        if self.backend is None:
            self.build_backend()
        assert self.backend is not None
        labels = self.backend.predict_scene(scene, self.config.get_predict_options())
        return self.post_process_predictions(labels, scene)

    def eval(self) -> None:
        """Evaluate the predictions of each group of scenes, except the training scenes.

        Scenes that are not predicted, or have no label source, are left out. Also writes pictures of the first
        validation scenes.
        """
        for name, scenes in self.config.dataset.get_evaluated_groups():
            for evaluator_config in self.config.evaluators:
                evaluator = evaluator_config.build(self.config.dataset.class_config, (name, [s.id for s in scenes]))
                log.info("evaluating %s: %d scenes", name, len(scenes))
                evaluator.process(self.build_scene(s) for s in scenes)
        self.write_previews()

    def write_previews(self) -> None:
        """Write ``<eval_uri>/<id>.png`` with image, labels and prediction of the first validation scenes."""
        from rastervision.core.evaluation.preview import write_preview

        for scene_config, uri in self.config.get_previews():
            with naming_scene(scene_config.id):
                write_preview(self.build_scene(scene_config), self.config.dataset.class_config, uri)
            log.info("wrote %s", uri)

    def bundle(self) -> None:
        """Write a zip file with what predicting new imagery needs: the model, the config, the statistics."""
        from rastervision.core.rv_pipeline.bundle import make_bundle

        make_bundle(self.config, self.tmp_dir)

    def summary(self) -> str | None:
        """Return the metrics and where the outputs are, as text for a terminal; None if there are none."""
        from rastervision.core.rv_pipeline.summary import summarize

        return summarize(self.config)

    # -- hooks of tasks --------------------------------------------------------------------------------------

    def get_train_windows(self, scene: Scene) -> list[Box]:
        """Return the training windows of a scene. Backends place them now; kept for subclasses of 0.31."""
        raise NotImplementedError

    def get_train_labels(self, window: Box, scene: Scene) -> Labels:
        """Return the training labels of a window. The backend reads them now; kept for subclasses of 0.31."""
        raise NotImplementedError

    def post_process_sample(self, sample: DataSample) -> DataSample:
        """Return a training sample as it is to be written."""
        return sample

    def post_process_batch(self, windows: list[Box], chips: NDArray[np.generic], labels: Labels) -> Labels:
        """Return the labels of a batch of windows as they are to be kept."""
        return labels

    def post_process_predictions(self, labels: Labels, scene: Scene) -> Labels:
        """Return the predicted labels of a scene as they are to be stored."""
        return labels

    # -- helpers ---------------------------------------------------------------------------------------------

    def build_scene(self, scene_config: SceneConfig, use_transformers: bool = True) -> Scene:
        """Build a scene of the data set, without its raster transformers if so told."""
        return scene_config.build(self.config.dataset.class_config, self.tmp_dir, use_transformers=use_transformers)
