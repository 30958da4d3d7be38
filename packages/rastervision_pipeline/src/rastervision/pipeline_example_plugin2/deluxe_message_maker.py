"""A message maker with more exclamation marks, for the pipeline of another plugin."""

from __future__ import annotations

from pydantic import Field

from rastervision.pipeline.config import register_config
from rastervision.pipeline_example_plugin1.sample_pipeline2 import MessageMaker, MessageMakerConfig

__all__ = ["DeluxeMessageMaker", "DeluxeMessageMakerConfig"]


@register_config("pipeline_example_plugin2.deluxe_message_maker")
class DeluxeMessageMakerConfig(MessageMakerConfig):
    """Configure a `DeluxeMessageMaker`."""

    level: int = Field(1, description="Number of exclamation marks.")

    def build(self) -> DeluxeMessageMaker:
        """Build the message maker."""
        return DeluxeMessageMaker(self.greeting, self.level)


class DeluxeMessageMaker(MessageMaker):
    """Makes greetings that are heard.

    Args:
        greeting: The word before the name.
        level: Number of exclamation marks.
    """

    def __init__(self, greeting: str = "hello", level: int = 1) -> None:
        super().__init__(greeting)
        self.level = level

    def make_message(self, name: str) -> str:
        """Return the greeting for a name."""
        return f"{self.greeting} {name}{'!' * self.level}"
