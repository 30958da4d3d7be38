"""The version of Raster Vision, the same for all its packages."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

__all__ = ["__version__"]

try:
    __version__ = version("rastervision_pipeline")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
