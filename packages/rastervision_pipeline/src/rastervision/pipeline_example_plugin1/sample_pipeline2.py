"""The pipeline once more; its greetings are made by a part with a config of its own, which plugins can replace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from rastervision.pipeline.config import Config, register_config
from rastervision.pipeline.pipeline import PipelineConfig
from rastervision.pipeline_example_plugin1.sample_pipeline import SamplePipeline, default_message_uris

if TYPE_CHECKING:
    from typing import Any

__all__ = ["MessageMaker", "MessageMakerConfig", "SamplePipeline2", "SamplePipeline2Config"]


@register_config("pipeline_example_plugin1.message_maker")
class MessageMakerConfig(Config):
    """Configure a `MessageMaker`."""

    greeting: str = Field("hello", description="The word before the name.")

    def build(self) -> MessageMaker:
        """Build the message maker."""
        return MessageMaker(self.greeting)


class MessageMaker:
    """Makes greetings.

    Args:
        greeting: The word before the name.
    """

    def __init__(self, greeting: str = "hello") -> None:
        self.greeting = greeting

    def make_message(self, name: str) -> str:
        """Return the greeting for a name."""
        return f"{self.greeting} {name}!"


@register_config("pipeline_example_plugin1.sample_pipeline2")
class SamplePipeline2Config(PipelineConfig):
    """Configure a `SamplePipeline2`."""

    names: list[str] = Field(["alice", "bob"], description="Who is greeted.")
    message_uris: list[str] | None = Field(
        None, description="Where greetings are written, one per name; <root_uri>/<name>.txt if not given."
    )
    message_maker: MessageMakerConfig = Field(MessageMakerConfig(), description="How greetings are made.")

    def update(self) -> None:
        """Fill ``message_uris`` from ``root_uri``."""
        if self.message_uris is None:
            self.message_uris = default_message_uris(self.root_uri, self.names)

    def build(self, tmp_dir: str) -> SamplePipeline2:
        """Build the pipeline; ``tmp_dir`` is a local folder for temporary files."""
        return SamplePipeline2(self, tmp_dir)


class SamplePipeline2(SamplePipeline):
    """Greets as its message maker says."""

    config: SamplePipeline2Config

    def __init__(self, config: SamplePipeline2Config, tmp_dir: str) -> None:
        super().__init__(config, tmp_dir)
        self.message_maker: Any = config.message_maker.build()

    def make_message(self, name: str) -> str:
        """Return the greeting for a name."""
        return str(self.message_maker.make_message(name))
