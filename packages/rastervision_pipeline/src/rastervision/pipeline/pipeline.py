"""Pipelines: named commands over one config, run one after the other or in parallel splits by a runner."""

from __future__ import annotations

import builtins
import logging
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Pipeline", "PipelineConfig"]

log = logging.getLogger(__name__)


@register_config("pipeline")
class PipelineConfig(Config):
    """Configure a `Pipeline`."""

    # with from_dict and from_file called on a class of pipelines
    keeps_plugin_versions: ClassVar[bool] = True
    # fields that say where a command writes, and that update() fills if they are not set
    command_uri_fields: ClassVar[Sequence[str]] = ()

    # builtins.dict: the method dict() below would shadow the type when pydantic evaluates the annotations
    root_uri: str | None = Field(None, description="Root of the URIs of all that the pipeline writes.")
    rv_config: builtins.dict[str, Any] | None = Field(
        None, description="Settings saved with the pipeline for the processes that run its commands."
    )
    plugin_versions: builtins.dict[str, int] | None = Field(
        None, description="Versions of the plugins that saved this config; used to upgrade it."
    )

    def get_config_uri(self) -> str:
        """Return the URI under which this config is saved.

        Raises:
            ConfigError: ``root_uri`` is not set.
        """
        if not self.root_uri:
            raise ConfigError("root_uri is not set, so there is no place for pipeline-config.json. Set root_uri.")
        return f"{self.root_uri.rstrip('/')}/pipeline-config.json"

    def command_config(self, command: str) -> Any:
        """Return the part of this config that a command depends on, as JSON-compatible values.

        A command is run again when this changes. Here it is all of the config.
        """
        return {k: v for k, v in self.json().items() if k not in ("rv_config", "plugin_versions")}

    def build(self, tmp_dir: str) -> Pipeline:
        """Build the pipeline; ``tmp_dir`` is a local folder for temporary files."""
        return Pipeline(self, tmp_dir)

    def dict(self, with_rv_metadata: bool = True, **kwargs: Any) -> builtins.dict[str, Any]:
        """Return the fields as plain Python values, with the plugin versions unless told otherwise."""
        return super().dict(with_rv_metadata=with_rv_metadata, **kwargs)


class Pipeline:
    """A pipeline whose commands are its methods. Subclass it, list the commands, and write the methods."""

    commands: Sequence[str] = ("test_cpu", "test_gpu")
    split_commands: Sequence[str] = ("test_cpu",)
    gpu_commands: Sequence[str] = ("test_gpu",)

    def __init__(self, config: PipelineConfig, tmp_dir: str) -> None:
        self.config = config
        self.tmp_dir = tmp_dir

    def summary(self) -> str | None:
        """Return a text that ends a run, such as results and where the outputs are; None for nothing."""
        return None

    def splits_are_merged(self, command: str, num_splits: int) -> bool:
        """Return whether the parts of a command, done in as many parts, have to be merged before it is done."""
        return False

    def merge_splits(self, command: str, num_splits: int) -> None:
        """Make the outputs of a command of what its parts have written; called once all of them are done."""
        raise NotImplementedError(f"{type(self).__name__} does not say how the parts of {command} are merged.")

    def test_cpu(self, split_ind: int = 0, num_splits: int = 1) -> None:
        """Check that a runner can run a split command."""
        log.info("test_cpu split %d of %d", split_ind, num_splits)

    def test_gpu(self) -> None:
        """Check that a runner can run a command on its GPU machines."""
        log.info("test_gpu")
