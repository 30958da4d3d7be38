"""A small plugin that shows how pipelines are written: `sample_pipeline`, then `sample_pipeline2`."""

from rastervision.pipeline.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
