"""How much the command line tells."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Verbosity"]


class Verbosity(IntEnum):
    """How much the command line tells: warnings only, each step, or details for developers."""

    QUIET = 0
    NORMAL = 1
    VERBOSE = 2
    VERY_VERBOSE = 3
    DEBUG = 4

    @staticmethod
    def get() -> Verbosity:
        """Return the verbosity of this process."""
        from rastervision.pipeline.rv_config import rv_config_

        return rv_config_.get_verbosity()
