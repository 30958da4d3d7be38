"""Datasets of image files and of scenes, their transforms, and plots of their samples."""

from rastervision.pipeline.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
