"""Auxiliary commands: small jobs, such as converting files, that are run as pipelines of one command.

Write the work as an `AuxCommand`, and register a config for it as any other::

    class Tile(AuxCommand):
        command_type = "tile"
        options = AuxCommandOptions(
            split_on="uris",
            inputs=lambda config: config["uris"],
            outputs=lambda config: [f"{uri}.tiles.zip" for uri in config["uris"]],
            required_fields=["uris"],
        )

        def run(self, tmp_dir: str) -> None:
            for uri in self.config["uris"]:
                ...

    @register_config("tile_command")
    class TileConfig(AuxCommandConfig):
        aux_command = Tile

``TileConfig(root_uri="out", config={"uris": [...]})`` can then be returned by ``get_configs`` or a method of an
`ExperimentSet`, and is run when ``tile`` is named on the command line.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field
from typing_extensions import override

from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.pipeline import Pipeline, PipelineConfig

if TYPE_CHECKING:
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["AuxCommand", "AuxCommandConfig", "AuxCommandOptions"]


def _no_uris(config: dict[str, Any]) -> list[str]:
    return []


@dataclass(frozen=True)
class AuxCommandOptions:
    """What the planning of a run has to know of an `AuxCommand`.

    Args:
        split_on: Name of the list in the config whose items can be worked on in parts; None if there is none.
        inputs: Returns the URIs that the command reads, given its config.
        outputs: Returns the URIs that it writes. If there are none, the command is run each time.
        include_by_default: Run the command also when no command is named.
        required_fields: Names that have to be in the config.
    """

    split_on: str | None = None
    inputs: Callable[[dict[str, Any]], Iterable[str]] = _no_uris
    outputs: Callable[[dict[str, Any]], Iterable[str]] = _no_uris
    include_by_default: bool = False
    required_fields: Sequence[str] = ()


class AuxCommand(ABC):
    """The work of an auxiliary command.

    Args:
        config: Its config, a dict of JSON-compatible values; of a list to split on, just the items of one part.
    """

    #: Name of the command; lower case on the command line.
    command_type: ClassVar[str]
    options: ClassVar[AuxCommandOptions] = AuxCommandOptions()

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    @abstractmethod
    def run(self, tmp_dir: str) -> None:
        """Do the work; ``tmp_dir`` is a local folder for temporary files."""


class AuxCommandConfig(PipelineConfig):
    """Configure an `AuxCommand`: a base class to register, with the command as ``aux_command``."""

    aux_command: ClassVar[type[AuxCommand]]

    config: dict[str, Any] = Field(default_factory=dict, description="What the command is to do.")

    @override
    def validate_config(self) -> None:
        missing = [name for name in self.aux_command.options.required_fields if name not in self.config]
        if missing:
            raise ConfigError(
                f"The config of the command {self.aux_command.command_type.lower()} lacks {', '.join(missing)}. "
                f"Set {' and '.join(f'config[{name!r}]' for name in missing)}."
            )

    @override
    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        if command == self.aux_command.command_type.lower():
            io_def.add_inputs(self.aux_command.options.inputs(self.config))
            io_def.add_outputs(self.aux_command.options.outputs(self.config))

    @override
    def build(self, tmp_dir: str) -> Pipeline:
        """Build the pipeline of one command.

        Raises:
            ConfigError: The config lacks a field that the command requires.
        """
        self.validate_config()
        return _pipeline_class(self.aux_command)(self, tmp_dir)


class _AuxPipeline(Pipeline):
    """A pipeline whose one command is an `AuxCommand`."""

    aux_command: ClassVar[type[AuxCommand]]
    config: AuxCommandConfig

    def __init__(self, config: AuxCommandConfig, tmp_dir: str) -> None:
        super().__init__(config, tmp_dir)
        if not self.aux_command.options.include_by_default:
            self.commands = ()  # the class still has it, so that it can be asked for by name

    def run_part(self, split_ind: int = 0, num_splits: int = 1) -> None:
        """Run the command, or one part of it; a part without items is done at once."""
        config, split_on = self.config.config, self.aux_command.options.split_on
        if num_splits > 1 and split_on is not None:
            items = config.get(split_on, [])
            size = -(-len(items) // num_splits)
            config = {**config, split_on: items[split_ind * size : (split_ind + 1) * size]}
            if not config[split_on]:
                return
        self.aux_command(config).run(self.tmp_dir)


@cache
def _pipeline_class(aux_command: type[AuxCommand]) -> type[_AuxPipeline]:
    name = aux_command.command_type.lower()
    members = {
        "aux_command": aux_command,
        "commands": (name,),
        "split_commands": (name,) if aux_command.options.split_on is not None else (),
        "gpu_commands": (),
        name: _AuxPipeline.run_part,
    }
    return type(f"{aux_command.__name__}Pipeline", (_AuxPipeline,), members)
