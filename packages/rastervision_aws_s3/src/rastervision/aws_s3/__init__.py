"""Files in Amazon S3 and in stores that speak its language: ``s3://`` URIs."""

from rastervision.pipeline.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
