"""Vector data, such as labels in GeoJSON, in pixel coordinates of a scene."""

from rastervision.pipeline.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
