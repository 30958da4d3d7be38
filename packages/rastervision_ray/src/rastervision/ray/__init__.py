"""The runner ``ray``: commands as tasks of a Ray cluster."""

from rastervision.pipeline.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
