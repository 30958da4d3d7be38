"""File systems: read, write and sync files and folders at local paths and remote URIs."""

from rastervision.pipeline.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
