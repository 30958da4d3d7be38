"""Commands as steps of an Amazon SageMaker pipeline: the runner ``sagemaker``."""

from rastervision.pipeline.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
