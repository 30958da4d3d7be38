"""Loggers of runs, such as experiment trackers, which are found by name.

To add one, write a class with the methods of `RunLogger` and declare it under the entry-point group
``rastervision.loggers``; ``LearnerConfig.loggers`` names those that a training uses. ``log.csv`` and TensorBoard logs
are written without one.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol, Self

from rastervision.pipeline.registry import registry_
from rastervision.pytorch_learner.checkpoint import preserve_rng

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["RunLogger", "RunLoggers"]

log = logging.getLogger(__name__)


class RunLogger(Protocol):
    """What a logger has to do; it is made without arguments.

    A training that goes on after it was stopped calls `start` again, with the same folder: what identifies the run
    elsewhere can be kept there.
    """

    def start(self, config: dict[str, Any], output_dir: str) -> None:
        """Begin a run, or go on with one.

        Args:
            config: The learner config, as saved.
            output_dir: Local folder of the training.
        """

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Take the metrics of an epoch, ``step``."""

    def artifact(self, path: str) -> None:
        """Take a local file."""

    def finish(self) -> None:
        """End the run; called after errors too."""


class RunLoggers:
    """The loggers of a run, as a context. One that fails after its start is left out with a warning.

    Random numbers are not changed by what loggers do.

    Args:
        names: Names of the loggers.
        config: The learner config, as saved.
        output_dir: Local folder of the training.

    Raises:
        RegistryError: There is no logger of a name.
    """

    def __init__(self, names: Sequence[str], config: dict[str, Any], output_dir: str) -> None:
        self._classes = {name: registry_.get_run_logger(name) for name in names}
        self._config, self._output_dir = config, output_dir
        self._loggers: dict[str, RunLogger] = {}

    @preserve_rng()
    def __enter__(self) -> Self:
        try:
            for name, make in self._classes.items():
                logger = make()
                logger.start(self._config, self._output_dir)
                self._loggers[name] = logger
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._each(lambda logger: logger.finish())

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Log the metrics that are numbers."""
        numbers = {k: float(v) for k, v in metrics.items() if isinstance(v, (int, float)) and k != "epoch"}
        self._each(lambda logger: logger.log(numbers, step))

    def artifact(self, path: str) -> None:
        """Hand over a local file."""
        self._each(lambda logger: logger.artifact(path))

    @preserve_rng()
    def _each(self, action: Callable[[RunLogger], None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                action(logger)
            except Exception as e:  # a tracker that is down must not cost the training
                log.warning("the logger %s failed and is left out from here on: %s: %s", name, type(e).__name__, e)
                del self._loggers[name]
