"""A pipeline with two commands: one writes a greeting for each name to a file, the other logs what the files say."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from rastervision.pipeline.config import ConfigError, register_config
from rastervision.pipeline.file_system import file_to_str, str_to_file
from rastervision.pipeline.pipeline import Pipeline, PipelineConfig
from rastervision.pipeline.utils import split_into_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rastervision.pipeline_example_plugin1.sample_pipeline2 import SamplePipeline2Config

__all__ = ["SamplePipeline", "SamplePipelineConfig", "default_message_uris"]

log = logging.getLogger(__name__)


@register_config("pipeline_example_plugin1.sample_pipeline")
class SamplePipelineConfig(PipelineConfig):
    """Configure a `SamplePipeline`."""

    names: list[str] = Field(["alice", "bob"], description="Who is greeted.")
    message_uris: list[str] | None = Field(
        None, description="Where greetings are written, one per name; <root_uri>/<name>.txt if not given."
    )

    def update(self) -> None:
        """Fill ``message_uris`` from ``root_uri``."""
        if self.message_uris is None:
            self.message_uris = default_message_uris(self.root_uri, self.names)

    def build(self, tmp_dir: str) -> SamplePipeline:
        """Build the pipeline; ``tmp_dir`` is a local folder for temporary files."""
        return SamplePipeline(self, tmp_dir)


def default_message_uris(root_uri: str | None, names: list[str]) -> list[str]:
    """Return ``<root_uri>/<name>.txt`` for each name.

    Raises:
        ConfigError: ``root_uri`` is None.
    """
    if root_uri is None:
        raise ConfigError("There is no place for greetings: root_uri is not set. Set root_uri or message_uris.")
    return [f"{root_uri.rstrip('/')}/{name}.txt" for name in names]


class SamplePipeline(Pipeline):
    """Greets; the greetings may be written by several processes, each a part of them."""

    commands: ClassVar[Sequence[str]] = ("save_messages", "print_messages")  # type: ignore[misc]
    split_commands: ClassVar[Sequence[str]] = ("save_messages",)  # type: ignore[misc]
    gpu_commands: ClassVar[Sequence[str]] = ()  # type: ignore[misc]

    config: SamplePipelineConfig | SamplePipeline2Config

    def save_messages(self, split_ind: int = 0, num_splits: int = 1) -> None:
        """Write the greetings, or one of ``num_splits`` parts of them."""
        pairs = list(zip(self.config.names, self.config.message_uris or [], strict=True))
        parts = split_into_groups(pairs, num_splits)
        for name, uri in parts[split_ind] if split_ind < len(parts) else []:
            str_to_file(self.make_message(name), uri)
            log.info("wrote %s", uri)

    def print_messages(self) -> None:
        """Log the greetings that were written."""
        for uri in self.config.message_uris or []:
            log.info("%s", file_to_str(uri))

    def make_message(self, name: str) -> str:
        """Return the greeting for a name."""
        return f"hello {name}!"
