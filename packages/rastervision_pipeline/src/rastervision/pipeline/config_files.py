"""Get pipeline configs from what a user names: a Python file, a module, or a JSON or YAML file."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.config import Config
from rastervision.pipeline.config_loading import load_config
from rastervision.pipeline.config_text import ConfigText, is_config_text, read_config_text
from rastervision.pipeline.config_tree import with_rare_gc, without_gc
from rastervision.pipeline.error_text import did_you_mean
from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.pipeline.file_system.utils import download_if_needed
from rastervision.pipeline.pipeline import PipelineConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = [
    "configs_of_module",
    "get_configs",
    "get_configs_from_module",
    "keep_pipeline_config",
    "line_of_config_file",
    "load_module",
    "read_pipeline_config",
]

# below rastervision.pipeline, so that what the file logs is shown and its configs belong to that plugin
_MODULE_PREFIX = "rastervision.pipeline._config_file_"
_kept: dict[str, tuple[Any, PipelineConfig]] = {}  # URI -> settings and config


def get_configs(
    cfg_module_path: str, runner: str | None = None, args: dict[str, Any] | None = None
) -> list[PipelineConfig]:
    """Return the pipeline configs that a Python file or module makes, or that a JSON or YAML file holds.

    Args:
        cfg_module_path: Path or URI that ends in ``.py``, ``.json``, ``.yaml`` or ``.yml``, or the dotted name of a
            module.
        runner: Name of the runner, the first argument of the functions ``get_configs`` and ``get_config``.
        args: Further arguments of the function.

    Raises:
        ConfigError: What is named is no pipeline config, or the arguments do not fit.
    """
    if is_config_text(cfg_module_path):
        if args:
            raise ConfigError(f"{cfg_module_path} is a saved config, which takes no arguments. Leave out -a.")
        with without_gc():
            return [_pipeline_config(text) for text in _items(read_config_text(cfg_module_path))]
    return get_configs_from_module(cfg_module_path, runner or "", args or {})


def read_pipeline_config(uri: str, use_settings: bool = False) -> PipelineConfig:
    """Return the pipeline config that a JSON or YAML file holds, brought up to date.

    Args:
        uri: The file.
        use_settings: Use the settings that are saved in it, from now on.

    Raises:
        ConfigError: The file does not hold a valid pipeline config; names the file, line and field.
    """
    with without_gc():
        if uri in _kept:
            settings, config = _kept.pop(uri)
            if use_settings:
                _use(settings)
            return config
        text = read_config_text(uri)
        if use_settings:
            _use(_settings_in(text))  # first: they may name modules that have configs
        return _pipeline_config(text)


def keep_pipeline_config(uri: str, path: str) -> None:
    """Read the config that is saved at a URI, for the next `read_pipeline_config` of it.

    Args:
        uri: The URI, whose content does not change any more.
        path: A copy of the file.
    """
    text = read_config_text(path)
    settings = copy.deepcopy(_settings_in(text))
    _kept[uri] = (settings, _pipeline_config(text))


def _settings_in(text: ConfigText) -> Any:
    return text.data.get("rv_config") if isinstance(text.data, dict) else None


def _use(settings: Any) -> None:
    from rastervision.pipeline.rv_config import rv_config_

    if settings and isinstance(settings, dict):
        rv_config_.apply_overrides(settings)


def _items(text: ConfigText) -> list[ConfigText]:
    """Return the items of a list of configs, each as a text of its own."""
    if not isinstance(text.data, list):
        return [text]
    nodes = text.node.value if text.node is not None else [None] * len(text.data)
    items = enumerate(zip(text.data, nodes, strict=True))
    return [ConfigText(data, f"{text.uri}[{i}]", node) for i, (data, node) in items]


def _pipeline_config(text: ConfigText) -> PipelineConfig:
    if not isinstance(text.data, dict) or "type_hint" not in text.data:
        raise text.error("this is not a saved pipeline config: it has no type_hint. Name the file of a pipeline.")
    return _checked(load_config(text, Config), text.uri)


def _checked(cfg: Any, source: str) -> PipelineConfig:
    if not isinstance(cfg, PipelineConfig):
        raise ConfigError(f"{source} gives a {type(cfg).__name__}, but a PipelineConfig is needed.")
    return cfg


def get_configs_from_module(cfg_module_path: str, runner: str, args: dict[str, Any]) -> list[PipelineConfig]:
    """Return the pipeline configs that the function ``get_configs`` or ``get_config`` of a module makes.

    Raises:
        ConfigError: There is no such module or function, the arguments do not fit, or the result is no config.
    """
    return configs_of_module(load_module(cfg_module_path), cfg_module_path, runner, args)


def configs_of_module(
    module: ModuleType, cfg_module_path: str, runner: str, args: dict[str, Any]
) -> list[PipelineConfig]:
    """Return what the function ``get_configs`` or ``get_config`` of an imported module makes."""
    function = getattr(module, "get_configs", None) or getattr(module, "get_config", None)
    if function is None:
        raise ConfigError(f"{cfg_module_path} has no function get_configs or get_config. Write one.")
    _check_args(function, args, cfg_module_path)
    with with_rare_gc():
        result = function(runner, **args)
    configs = result if isinstance(result, list) else [result]
    return [_checked(cfg, f"{function.__name__} of {cfg_module_path}") for cfg in configs]


def load_module(cfg_module_path: str) -> ModuleType:
    """Import a Python file, or a module by its dotted name.

    Raises:
        ConfigError: There is no such module.
        NotReadableError: There is no such file.
    """
    if not cfg_module_path.endswith(".py"):
        try:
            return importlib.import_module(cfg_module_path)
        except ModuleNotFoundError as e:
            if e.name is None or not f"{cfg_module_path}.".startswith(f"{e.name}."):
                raise
            raise ConfigError(
                f"There is no module {cfg_module_path!r}. Name a Python file (.py), a saved config (.json, .yaml), or "
                "a module that can be imported from here."
            ) from e
    path = os.path.abspath(download_if_needed(cfg_module_path))
    if not os.path.isfile(path):
        raise NotReadableError(f"Cannot read {cfg_module_path}: there is no such file.")
    stem = re.sub(r"\W", "_", os.path.splitext(os.path.basename(path))[0])
    name = _MODULE_PREFIX + stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # pydantic and pickle look a class up by the name of its module
    sys.modules[name] = module
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.append(folder)
    spec.loader.exec_module(module)
    return module


def _check_args(function: Callable[..., Any], args: dict[str, Any], source: str) -> None:
    """Raise `ConfigError` if a function cannot be called with the runner and these keyword arguments."""
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        raise ConfigError(f"{function.__name__} of {source} takes no arguments. Its first one has to be the runner.")
    by_name = [p for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = [p.name for p in by_name]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in args:
            if name not in names:
                hint = did_you_mean(name, names) or "It takes none but the runner."
                raise ConfigError(f"{function.__name__} of {source} has no argument {name!r}. {hint}")
    missing = [p.name for p in by_name if p.default is p.empty and p.name not in args]
    if missing:
        flags = " ".join(f"-a {name} VALUE" for name in missing)
        raise ConfigError(f"{function.__name__} of {source} needs {', '.join(missing)}. Add {flags}.")


def line_of_config_file(error: BaseException) -> str | None:
    """Return where in the user's config file an error came up, as in "tree_cover.py, line 12", or None."""
    place = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__", "").startswith(_MODULE_PREFIX):
            place = f"{os.path.basename(frame.f_code.co_filename)}, line {line}"
    return place
