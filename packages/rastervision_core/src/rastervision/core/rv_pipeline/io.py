"""What each command of a pipeline over scenes reads and writes, and on which part of the config it depends.

Both are told from the config alone, before anything is run. The pipeline decides who takes part in a command and
asks its parts, which know their URIs. Next: `rastervision.pipeline.planner`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rastervision.core.data.raster_transformer.stats_transformer import StatsTransformerConfig
from rastervision.core.rv_pipeline.chip_record import chip_record_uri
from rastervision.core.rv_pipeline.rv_pipeline import ALL_COMMANDS, find_configs
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.io_report import CommandIODefinition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.rv_pipeline.rv_pipeline import RVPipelineConfig

__all__ = ["get_command_config", "report_command_io"]


def report_command_io(config: RVPipelineConfig, command: str, io_def: CommandIODefinition) -> None:
    """Report what a command of an updated pipeline reads and writes; nothing for commands of subclasses."""
    report = _REPORTS.get(command)
    if report is not None:
        report(config, io_def)


def get_command_config(config: RVPipelineConfig, command: str) -> dict[str, Any] | None:
    """Return the part of a config that a command depends on, as JSON-compatible values.

    None if that is all of it, as for bundle and for commands of subclasses. Two pipelines that share the URIs and
    settings of a command have equal parts, wherever they write the rest.
    """
    part = _CONFIGS.get(command)
    return None if part is None else part(config)


# -- what is read and written ------------------------------------------------------------------------------------


def _analyze(config: RVPipelineConfig, io_def: CommandIODefinition) -> None:
    if config.analyzers:
        config.dataset.report_io("analyze", io_def)
        io_def.add_outputs(_analysis_uris(config, io_def))


def _chip(config: RVPipelineConfig, io_def: CommandIODefinition) -> None:
    if not _makes_chips(config):
        return
    config.dataset.report_io("chip", io_def)
    if config.chip_uri:
        io_def.add_outputs(chip_record_uri(config.chip_uri, i, io_def.num_splits) for i in range(io_def.num_splits))
    else:
        io_def.add_missing("chip_uri is not set, so there is no place for chips. Set it, or root_uri.")


def _train(config: RVPipelineConfig, io_def: CommandIODefinition) -> None:
    data = CommandIODefinition()
    config.backend.report_io("train", data)
    if not data.declared and _makes_chips(config):
        # a backend that does not report is taken to read the chips: else training might not wait for them
        data.add_input(config.chip_uri, "dir")
    io_def.merge(data)
    io_def.add_input(config.source_bundle_uri)
    io_def.add_outputs(_model_uris(config, io_def))


def _predict(config: RVPipelineConfig, io_def: CommandIODefinition) -> None:
    io_def.add_inputs(_model_uris(config, io_def))
    config.dataset.report_io("predict", io_def)


def _eval(config: RVPipelineConfig, io_def: CommandIODefinition) -> None:
    config.dataset.report_io("eval", io_def)
    for group, _ in config.dataset.get_evaluated_groups():
        for evaluator in config.evaluators:
            try:
                io_def.add_outputs(evaluator.get_output_uris(group))
            except ConfigError as e:
                io_def.add_missing(str(e))


def _bundle(config: RVPipelineConfig, io_def: CommandIODefinition) -> None:
    if not config.bundle_uri:
        return
    io_def.add_inputs(_model_uris(config, io_def))
    io_def.add_inputs(_analysis_uris(config, io_def))
    template = [scene.raster_source for scene in config.dataset.validation_scenes[:1]]
    for transformer in find_configs(template, StatsTransformerConfig):
        transformer.report_io("bundle", io_def)
    io_def.add_output(config.get_model_bundle_uri())


_REPORTS: dict[str, Callable[[RVPipelineConfig, CommandIODefinition], None]] = {
    "analyze": _analyze,
    "chip": _chip,
    "train": _train,
    "predict": _predict,
    "eval": _eval,
    "bundle": _bundle,
}


def _makes_chips(config: RVPipelineConfig) -> bool:
    return "chip" in config.backend.filter_commands(list(ALL_COMMANDS))


def _analysis_uris(config: RVPipelineConfig, io_def: CommandIODefinition) -> list[str]:
    try:
        return [u for g, _ in config.dataset.get_groups() for a in config.analyzers for u in a.get_output_uris(g)]
    except ConfigError as e:
        io_def.add_missing(str(e))
        return []


def _model_uris(config: RVPipelineConfig, io_def: CommandIODefinition) -> list[str]:
    """Return the files of the trained model that later commands need."""
    if not config.train_uri:
        io_def.add_missing("train_uri is not set, so there is no place for the model. Set it, or root_uri.")
        return []
    try:
        names = config.backend.get_bundle_filenames()
    except NotImplementedError:  # a backend of a plugin that cannot be bundled
        return []
    return [f"{config.train_uri.rstrip('/')}/{name}" for name in names]


# -- what of the config matters ----------------------------------------------------------------------------------


def _analyze_config(config: RVPipelineConfig) -> dict[str, Any]:
    dataset = config.dataset
    return {
        "analyzers": [analyzer.json() for analyzer in config.analyzers],
        "scene_groups": {name: [s.id for s in scenes] for name, scenes in dataset.get_groups()},
        "scenes": [
            {"id": s.id, "raster_source": _without_transformers(s.raster_source.json())}
            for s in dataset.get_command_scenes("analyze")
        ],
    }


def _chip_config(config: RVPipelineConfig) -> dict[str, Any]:
    # the parts of the data set differ: their chips go to folders of their own
    scenes = config.dataset.get_command_scenes("chip")
    return {
        "class_config": config.dataset.class_config.json(),
        "num_train_scenes": len(config.dataset.train_scenes),
        "num_validation_scenes": len(config.dataset.validation_scenes),
        "scenes": _dump(scenes, exclude={"label_store"}),
        "chip_options": None if config.chip_options is None else config.chip_options.json(),
        "backend": config.backend.command_config("chip"),
    }


def _train_config(config: RVPipelineConfig) -> dict[str, Any]:
    return {
        "class_config": config.dataset.class_config.json(),
        "source_bundle_uri": config.source_bundle_uri,
        "backend": config.backend.command_config("train"),
    }


def _predict_config(config: RVPipelineConfig) -> dict[str, Any]:
    return {
        "class_config": config.dataset.class_config.json(),
        "scenes": _dump(config.dataset.get_command_scenes("predict")),
        "predict_options": config.get_predict_options().json(),
        "backend": config.backend.command_config("predict"),
    }


def _eval_config(config: RVPipelineConfig) -> dict[str, Any]:
    dataset = config.dataset
    return {
        "class_config": dataset.class_config.json(),
        "scene_groups": {name: [s.id for s in scenes] for name, scenes in dataset.get_evaluated_groups()},
        "scenes": _dump(dataset.get_command_scenes("eval")),
        "evaluators": [evaluator.json() for evaluator in config.evaluators],
    }


_CONFIGS: dict[str, Callable[[RVPipelineConfig], dict[str, Any]]] = {
    "analyze": _analyze_config,
    "chip": _chip_config,
    "train": _train_config,
    "predict": _predict_config,
    "eval": _eval_config,
}


def _dump(scenes: Iterable[SceneConfig], exclude: set[str] | None = None) -> list[Any]:
    return [scene.json(exclude=exclude) for scene in scenes]


def _without_transformers(value: Any) -> Any:
    """Leave out the transformers of a saved raster source and of those in it."""
    if isinstance(value, list):
        return [_without_transformers(item) for item in value]
    if not isinstance(value, dict):
        return value
    is_raster_source = "channel_order" in value
    return {
        name: _without_transformers(item)
        for name, item in value.items()
        if not (is_raster_source and name == "transformers")
    }
