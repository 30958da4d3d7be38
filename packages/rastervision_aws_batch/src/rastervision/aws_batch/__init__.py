"""Commands as jobs of AWS Batch: the runner ``batch``."""

from rastervision.pipeline.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
