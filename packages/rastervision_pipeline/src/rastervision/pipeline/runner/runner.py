"""The interface of a runner.

To add one, subclass this and declare it under the entry-point group ``rastervision.runners`` with the name
that the command line shall know it by.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.pipeline.pipeline import Pipeline

__all__ = ["Runner"]


class Runner(ABC):
    """Carries out the commands of a pipeline."""

    #: Whether `run` returns only once all commands are done; then the outputs can be summed up.
    blocking: ClassVar[bool] = False

    @abstractmethod
    def run(
        self,
        cfg_json_uri: str,
        pipeline: Pipeline,
        commands: Sequence[str],
        num_splits: int = 1,
        pipeline_run_name: str = "raster-vision",
    ) -> None:
        """Run commands, or submit them.

        Args:
            cfg_json_uri: Where the config of the pipeline is saved.
            pipeline: The pipeline.
            commands: Names of commands, in the order in which they are run.
            num_splits: In how many parts a command is done that can be split.
            pipeline_run_name: Name of the run where it is listed.

        Raises:
            RunError: A command failed.
        """

    def get_split_ind(self) -> int | None:
        """Return which part of a command this process is to run, where the runner's machines are told so."""
        return None

    @abstractmethod
    def run_command(self, cmd: list[str]) -> None:
        """Run one program where this runner runs commands; ``cmd`` is the program and its arguments.

        Raises:
            RunError: The program cannot be run or fails.
        """
