"""A small pipeline that reports what it reads and writes, for tests of planning and of runners.

Its commands have the names of those of a geospatial pipeline, and just write text files.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field
from typing_extensions import override

from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import RasterVisionError
from rastervision.pipeline.file_system.utils import file_to_str, list_paths, str_to_file
from rastervision.pipeline.pipeline import Pipeline, PipelineConfig

if TYPE_CHECKING:
    from rastervision.pipeline.io_report import CommandIODefinition

__all__ = ["TextPipeline", "TextPipelineConfig"]


@register_config("text_pipeline", plugin="rastervision.testing")
class TextPipelineConfig(PipelineConfig):
    """Configure a `TextPipeline`.

    Example:
        >>> from rastervision.pipeline.io_report import CommandIODefinition
        >>> config = TextPipelineConfig(root_uri="out", images=["a.txt"])
        >>> config.update()
        >>> io = CommandIODefinition()
        >>> config.report_io("eval", io)
        >>> io.input_uris, io.output_uris
        (['out/predict/a.txt'], ['out/eval/eval.json'])
    """

    images: list[str] = Field([], description="Text files to work on.")
    chip_sz: int = Field(4, gt=0, description="Number of characters of a chip.")
    chip_uri: str | None = Field(None, description="Folder of chips; <root_uri>/chip if not given.")
    train_uri: str | None = Field(None, description="Folder of the model; <root_uri>/train if not given.")
    silent: list[str] = Field([], description="Commands that report nothing.")
    fail_in: str | None = Field(None, description="Command that fails.")
    kill_in: str | None = Field(None, description="Command that kills its process once it has written its outputs.")

    @override
    def update(self) -> None:
        self.chip_uri = self.chip_uri or f"{self.root_uri}/chip"
        self.train_uri = self.train_uri or f"{self.root_uri}/train"

    @override
    def build(self, tmp_dir: str) -> TextPipeline:
        return TextPipeline(self, tmp_dir)

    def prediction_uris(self) -> list[str]:
        """Return where the predictions of the images are stored."""
        return [f"{self.root_uri}/predict/{uri.rpartition('/')[2]}" for uri in self.images]

    @override
    def report_io(self, command: str, io_def: CommandIODefinition) -> None:
        if command in self.silent:
            return
        stats, model = f"{self.root_uri}/analyze/stats.json", f"{self.train_uri}/model.zip"
        if command in ("analyze", "chip", "predict"):
            io_def.add_inputs(self.images)
        if command == "analyze":
            io_def.add_output(stats)
        elif command == "chip":
            io_def.add_outputs(f"{self.chip_uri}/.done-{i}-of-{io_def.num_splits}" for i in range(io_def.num_splits))
        elif command == "train":
            io_def.add_input(stats)
            io_def.add_input(self.chip_uri, "dir")
            io_def.add_output(model)
        elif command == "predict":
            io_def.add_input(model)
            io_def.add_outputs(self.prediction_uris())
        elif command == "eval":
            io_def.add_inputs(self.prediction_uris())
            io_def.add_output(f"{self.root_uri}/eval/eval.json")
        elif command == "bundle":
            io_def.add_inputs([stats, model])
            io_def.add_output(f"{self.root_uri}/bundle/model-bundle.zip")

    @override
    def command_config(self, command: str) -> Any:
        if command == "chip":
            return {"images": self.images, "chip_sz": self.chip_sz}
        return {"images": self.images} if command == "analyze" else {"images": self.images, "root_uri": self.root_uri}


class TextPipeline(Pipeline):
    """Writes a file for everything that its config reports, and a line per command to ``<root_uri>/ran.txt``."""

    commands: ClassVar[Sequence[str]] = ("analyze", "chip", "train", "predict", "eval", "bundle")  # type: ignore[misc]
    split_commands: ClassVar[Sequence[str]] = ("chip", "predict")  # type: ignore[misc]
    gpu_commands: ClassVar[Sequence[str]] = ("train", "predict")  # type: ignore[misc]
    config: TextPipelineConfig

    def analyze(self) -> None:
        """Write how long the images are."""
        sizes = [len(file_to_str(uri)) for uri in self.config.images]
        self._write(str(sizes), f"{self.config.root_uri}/analyze/stats.json")
        self._end("analyze")

    def chip(self, split_ind: int = 0, num_splits: int = 1) -> None:
        """Write the first characters of each image."""
        for uri in self.config.images[split_ind::num_splits]:
            name = uri.rpartition("/")[2]
            self._write(file_to_str(uri)[: self.config.chip_sz], f"{self.config.chip_uri}/{name}.zip")
        self._write("", f"{self.config.chip_uri}/.done-{split_ind}-of-{num_splits}")
        self._end("chip", split_ind, num_splits)

    def train(self) -> None:
        """Write all chips to one file."""
        chips = [file_to_str(uri) for uri in list_paths(str(self.config.chip_uri), ext=".zip")]
        self._write("".join(chips), f"{self.config.train_uri}/model.zip")
        self._end("train")

    def predict(self, split_ind: int = 0, num_splits: int = 1) -> None:
        """Write the model and the image to a file for each image."""
        model = file_to_str(f"{self.config.train_uri}/model.zip")
        items = list(zip(self.config.images, self.config.prediction_uris(), strict=True))
        for image, prediction in items[split_ind::num_splits]:
            self._write(f"{model}: {file_to_str(image)}", prediction)
        self._end("predict", split_ind, num_splits)

    def eval(self) -> None:
        """Write how long the predictions are."""
        sizes = [len(file_to_str(uri)) for uri in self.config.prediction_uris()]
        self._write(str(sizes), f"{self.config.root_uri}/eval/eval.json")
        self._end("eval")

    def bundle(self) -> None:
        """Write the model again."""
        model = file_to_str(f"{self.config.train_uri}/model.zip")
        self._write(model, f"{self.config.root_uri}/bundle/model-bundle.zip")
        self._end("bundle")

    def _write(self, text: str, uri: str) -> None:
        str_to_file(text, uri)

    def _end(self, command: str, split_ind: int = 0, num_splits: int = 1) -> None:
        if self.config.kill_in == command:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.config.fail_in == command:
            raise RasterVisionError(f"{command} was told to fail")
        os.makedirs(str(self.config.root_uri), exist_ok=True)
        with open(f"{self.config.root_uri}/ran.txt", "a") as f:
            f.write(command if num_splits == 1 else f"{command}-{split_ind}")
            f.write("\n")
