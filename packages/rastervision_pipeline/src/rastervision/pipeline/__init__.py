"""Configs, plugins, file systems, runners and the command line: all that knows nothing of imagery."""

from rastervision.pipeline.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
