"""Learner configs and the backends that train and predict with PyTorch; needs no PyTorch itself."""

from rastervision.pipeline.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
