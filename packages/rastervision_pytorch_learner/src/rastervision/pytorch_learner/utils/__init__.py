"""Helpers that 0.31 had in one package, under their old names."""

from rastervision.pipeline.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
