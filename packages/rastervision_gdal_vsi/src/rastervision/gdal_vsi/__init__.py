"""GDAL's virtual file systems as a file system of Raster Vision."""

from rastervision.pipeline.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
