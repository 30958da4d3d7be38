"""Errors that Raster Vision raises on purpose: each message says what, where and what to do."""

from __future__ import annotations

__all__ = [
    "BundleError",
    "ConfigError",
    "MissingPackageError",
    "MissingPluginError",
    "NotReadableError",
    "NotWritableError",
    "PluginError",
    "RasterVisionError",
    "RegistryError",
    "RunError",
    "UntrustedCodeError",
]


class RasterVisionError(Exception):
    """Base of the errors that a user can act on; the command line shows their text alone."""


class ConfigError(RasterVisionError, ValueError):
    """A config is not valid or does not fit the data it names."""


class RegistryError(RasterVisionError):
    """A name is not registered, or is registered twice."""


class PluginError(RegistryError):
    """A plugin is installed but cannot be loaded."""


class MissingPluginError(ConfigError, RegistryError):
    """A saved config needs a plugin that is not installed."""


class MissingPackageError(RasterVisionError, ImportError):
    """A class of an optional package was asked for and the package is not installed."""


class NotReadableError(RasterVisionError):
    """A URI cannot be read."""


class NotWritableError(RasterVisionError):
    """A URI cannot be written."""


class BundleError(RasterVisionError):
    """A model bundle is damaged or is not a model bundle."""


class UntrustedCodeError(RasterVisionError):
    """Code from somebody else's bundle, or from the network, was to be run and is not trusted."""


class RunError(RasterVisionError):
    """A command of a run failed.

    Args:
        message: Which one, and how.
        exit_code: With what the command line shall end.
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code
