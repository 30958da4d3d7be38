"""Default providers: which config a bare URI or a task stands for, where a builder is given no config.

Each family (the type hint of a base class, such as ``raster_source``) has a list of providers. The first that
handles the URI, or is the default for the task, makes the config. Those added in code are asked first, the
latest before the others; then those of other packages; last those of the package that the family is from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rastervision.pipeline.builder_fields import registered_lineage
from rastervision.pipeline.errors import ConfigError, RegistryError

if TYPE_CHECKING:
    from rastervision.pipeline.config import Config

__all__ = ["DefaultProvider", "default_config", "extension_of", "families_of", "task_names"]


class DefaultProvider:
    """Makes the config that a URI or a task stands for. Subclasses override what applies.

    Attributes:
        needs_task: Whether a URI alone does not tell what it is.
    """

    needs_task: bool = False

    def handles(self, uri: str, task: str | None = None) -> bool:
        """Return whether this makes a config of ``uri``; ``task`` is the type hint of a pipeline."""
        return False

    def is_default_for(self, task: str) -> bool:
        """Return whether this makes a config for the task without a URI."""
        return False

    def construct(self, uri: str | None = None, task: str | None = None, **kwargs: Any) -> Config:
        """Return the config; ``kwargs`` are more of its fields."""
        raise NotImplementedError


def extension_of(uri: str) -> str:
    """Return the extension of a URI in lower case with its dot, without query and fragment; empty if it has none."""
    path = urlsplit(uri).path if "://" in uri else uri.partition("?")[0]
    name = path.rstrip("/").rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return f".{extension.lower()}" if dot and stem else ""


def task_names(task: str | Config | type[Config] | None) -> list[str]:
    """Return the type hints of a task, given as a pipeline config, its class, type hint or old key.

    The first is the task's own, then come those of the classes it extends. Empty if there is no task.
    """
    if task is None:
        return []
    if isinstance(task, str):
        from rastervision.pipeline.registry import registry_

        try:
            return registered_lineage(registry_.get_config(task.lower()))
        except RegistryError:
            raise RegistryError(
                f"There is no task {task!r}. Give a pipeline config, its class, or its type_hint."
            ) from None
    names = registered_lineage(task if isinstance(task, type) else type(task))
    if not names:
        raise ConfigError(
            f"{task!r} is not a task: its class is not registered. Give a pipeline config or its type_hint."
        )
    return names


def families_of(cls: type[Config]) -> list[str]:
    """Return the families of a config class that have default providers."""
    from rastervision.pipeline.registry import registry_

    return [hint for hint in registered_lineage(cls) if registry_.get_default_providers(hint)]


def default_config(
    family: str, uri: str | None = None, task: str | Config | type[Config] | None = None, **kwargs: Any
) -> Config:
    """Return the config that a URI stands for in a family, or the default of a task if there is no URI.

    Args:
        family: Type hint of the base class.
        uri: Of the data; its extension tells the format.
        task: A pipeline config, its class, type hint or old key.
        kwargs: More fields of the config.

    Raises:
        ConfigError: What is right depends on the task, and there is none.
        RegistryError: No provider makes a config of this.
    """
    from rastervision.pipeline.registry import registry_

    providers = registry_.get_default_providers(family)
    tasks = task_names(task)
    if not tasks and (uri is None or any(p.needs_task for p in providers)):
        what = f"the {family} of {uri!r}" if uri is not None else f"a default {family}"
        raise ConfigError(f"Which config is {what} depends on the task. Call with_task(...), or give a config.")
    candidates: list[str | None] = [*tasks] or [None]
    for name in candidates:
        for provider in providers:
            if provider.handles(uri, name) if uri is not None else name and provider.is_default_for(name):
                return provider.construct(uri, name, **kwargs)
    what = f"for {uri!r}" if uri is not None else "by default"
    of_task = f" of the task {tasks[0]}" if tasks else ""
    raise RegistryError(f"No provider makes a {family} {what}{of_task}. Give a config instead.")
