"""A small plugin that adds a part to the pipeline of another plugin: `deluxe_message_maker`."""

from rastervision.pipeline.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
