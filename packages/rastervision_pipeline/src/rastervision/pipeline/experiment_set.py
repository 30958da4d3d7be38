"""Experiment sets: classes whose methods make the pipeline configs of a run, as in releases up to 0.11."""

from __future__ import annotations

import inspect
import os
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from rastervision.pipeline import config_files
from rastervision.pipeline.error_text import did_you_mean
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.pipeline import PipelineConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import ModuleType

__all__ = ["ExperimentSet", "experiment_source", "load_experiments"]

_SAVED_CONFIGS = (".json", ".yaml", ".yml")


class ExperimentSet:
    """Base of classes whose methods ``exp_...`` each make one or more experiments.

    A method returns a pipeline config (`AuxCommandConfig` is one too), a pair of a name and a config, or a list
    of these. Without a name, an experiment goes by its ``root_uri``. The parameters of a method are set with
    ``-a KEY VALUE``; one called ``runner`` gets the name of the runner.

    Example:
        >>> class TreeCover(ExperimentSet):
        ...     def exp_small_chips(self, out: str) -> PipelineConfig:
        ...         return PipelineConfig(root_uri=f"{out}/small")
    """


def experiment_source(experiment_module: str | None, path: str | None) -> str | None:
    """Return the module or file that the options ``-e`` and ``--path`` name; None if neither is given.

    Raises:
        ConfigError: Both are given.
    """
    if experiment_module and path:
        raise ConfigError(
            f"-e {experiment_module} and --path {path} both say where the experiments are. Give only one of them."
        )
    return experiment_module or path


def load_experiments(
    module_or_path: str,
    runner: str,
    args: Mapping[str, Any],
    prefix: str = "exp_",
    methods: Sequence[str] = (),
    filters: Sequence[str] = (),
    sets_only: bool = False,
) -> list[tuple[str, PipelineConfig]]:
    """Return the experiments that a module, a Python file or a saved config holds, each with its name.

    Args:
        module_or_path: Dotted name of a module, or path or URI of a ``.py``, ``.json`` or ``.yaml`` file.
        runner: Name of the runner.
        args: Arguments for ``get_configs``, ``get_config`` or the methods of experiment sets.
        prefix: What the names of methods that make experiments begin with.
        methods: Patterns as in ``*.TreeCover.exp_*``, of which module.Class.method has to match one.
        filters: Patterns of which the name of an experiment has to match one.
        sets_only: Leave out the functions ``get_configs`` and ``get_config``, which otherwise come before the sets.

    Raises:
        ConfigError: There is nothing that makes experiments, an argument is missing or unknown, something else
            than a pipeline config is returned, or two experiments have the same name.
    """
    if module_or_path.lower().endswith(_SAVED_CONFIGS):
        found = _named(config_files.get_configs(module_or_path, runner, dict(args)), module_or_path)
    else:
        module = config_files.load_module(module_or_path)
        label = os.path.basename(module_or_path).removesuffix(".py") if _is_file(module_or_path) else module_or_path
        function = getattr(module, "get_configs", None) or getattr(module, "get_config", None)
        if function is not None and not sets_only:
            found = []
            if _matches(f"{label}.{function.__name__}", methods):
                configs = config_files.configs_of_module(module, module_or_path, runner, dict(args))
                found = _named(configs, f"{label}.{function.__name__}")
        else:
            found = _from_sets(module, label, runner, args, prefix, methods)
    _check_names(found)
    return [(name, cfg) for name, cfg in found if _matches(name, filters)]


def _is_file(module_or_path: str) -> bool:
    return module_or_path.endswith(".py")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _from_sets(
    module: ModuleType, label: str, runner: str, args: Mapping[str, Any], prefix: str, patterns: Sequence[str]
) -> list[tuple[str, PipelineConfig]]:
    made_by = _methods_of(module, label, prefix)
    _check_args_are_known(made_by.values(), args, label)
    found: list[tuple[str, PipelineConfig]] = []
    for name, method in made_by.items():
        if _matches(name, patterns):
            found += _named(method(**_arguments(name, method, runner, args)), name)
    return found


def _methods_of(module: ModuleType, label: str, prefix: str) -> dict[str, Callable[..., Any]]:
    """Return the methods that make experiments as module.Class.method, in the order of their definition."""
    classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, ExperimentSet)]
    classes = [c for c in dict.fromkeys(classes) if c is not ExperimentSet]
    if not classes:
        raise ConfigError(
            f"{label} has no function get_configs or get_config, and no subclass of ExperimentSet. Write one."
        )
    made_by: dict[str, Callable[..., Any]] = {}
    for cls in classes:
        try:
            experiments = cls()
        except TypeError as e:
            raise ConfigError(f"{label}.{cls.__qualname__} cannot be made without arguments: {e}.") from e
        names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
        for name in names:
            if name.startswith(prefix) and callable(method := getattr(experiments, name)):
                made_by[f"{label}.{cls.__qualname__}.{name}"] = method
    return made_by


def _parameters(method: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the parameters of a method that can be given by name; ``**kwargs`` under ``**``."""
    found = {}
    for p in inspect.signature(method).parameters.values():
        if p.kind is p.VAR_KEYWORD:
            found["**"] = p
        elif p.kind is not p.VAR_POSITIONAL:
            found[p.name] = p
    return found


def _check_args_are_known(methods: Iterable[Callable[..., Any]], args: Mapping[str, Any], label: str) -> None:
    known = {name for method in methods for name in _parameters(method)}
    for name in args:
        if name not in known and "**" not in known:
            hint = did_you_mean(name, known) or "They take none."
            raise ConfigError(f"No experiment of {label} has an argument {name!r}. {hint}")


def _arguments(name: str, method: Callable[..., Any], runner: str, args: Mapping[str, Any]) -> dict[str, Any]:
    parameters = _parameters(method)
    given = dict(args)
    if "runner" in parameters:
        given.setdefault("runner", runner)
    required = [n for n, p in parameters.items() if n != "**" and p.default is p.empty]
    missing = [n for n in required if n not in given]
    if missing:
        flags = " ".join(f"-a {n} VALUE" for n in missing)
        raise ConfigError(f"{name} needs {', '.join(missing)}. Add {flags}.")
    return given if "**" in parameters else {k: v for k, v in given.items() if k in parameters}


def _named(result: Any, source: str) -> list[tuple[str, PipelineConfig]]:
    """Return what a method returned as a list of names and configs."""
    found = []
    for item in result if isinstance(result, list) else [result]:
        is_pair = isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)
        name, cfg = item if is_pair else (None, item)
        if not isinstance(cfg, PipelineConfig):
            raise ConfigError(
                f"{source} returns a {type(cfg).__name__}, but a PipelineConfig, or a list of them, is needed."
            )
        found.append((name or cfg.root_uri or source, cfg))
    return found


def _check_names(experiments: Iterable[tuple[str, PipelineConfig]]) -> None:
    # two with one root_uri are told of where the run is planned, with all they have in common
    roots: dict[str, str | None] = {}
    for name, cfg in experiments:
        if roots.setdefault(name, cfg.root_uri) != cfg.root_uri:
            raise ConfigError(f"Two experiments are called {name!r}. Give each its own name.")
