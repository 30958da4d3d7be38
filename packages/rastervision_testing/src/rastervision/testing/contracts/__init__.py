"""Contract suites: subclass one to check that an extension keeps what the rest of Raster Vision relies on."""

from rastervision.pipeline.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
