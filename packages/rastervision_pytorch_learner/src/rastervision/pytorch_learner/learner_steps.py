"""What a task defines of its learner, and prediction, which needs nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from rastervision.pytorch_learner.metrics import aggregate_metrics
from rastervision.pytorch_learner.onnx_export import ONNXRuntimeAdapter, TensorOutput
from rastervision.pytorch_learner.predict_loader import predict_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.figure import Figure
    from torch.utils.data import Dataset

    from rastervision.pytorch_backend.learner_config import LearnerConfig
    from rastervision.pytorch_learner.dataset.visualizer import Visualizer
    from rastervision.pytorch_learner.loop import Precision

__all__ = ["LearnerSteps"]


class LearnerSteps(ABC):
    """Base of `Learner`: the steps of a task, and running a model.

    A task is a subclass of `Learner` with `get_visualizer_class`, `train_step` and `validate_step`. It may override
    `train_end`, `validate_end`, `check_batch`, `get_collate_fn`, `post_forward`, `prob_to_pred`, `predict`,
    `output_to_numpy`, and ``best_metric``, the metric that says which epoch is best. A batch is what the data loader
    gives, usually (images, targets), on the device of the model.

    While a step runs, ``self.model`` may be a wrapper: of several processes, or the running mean of the weights. So
    steps call it, and do not look into it or keep it.
    """

    cfg: LearnerConfig
    model: nn.Module
    device: torch.device
    precision: Precision
    onnx_outputs: ClassVar[Sequence[str]] = ("out",)
    """Names of the outputs of an exported model."""
    onnx_adapter: ClassVar[type[ONNXRuntimeAdapter]] = ONNXRuntimeAdapter
    """What runs an exported model."""

    @abstractmethod
    def get_visualizer_class(self) -> type[Visualizer]:
        """Return the class that plots samples of this task."""

    @abstractmethod
    def train_step(self, batch: Any, batch_ind: int) -> dict[str, Any]:
        """Return ``{"train_loss": loss, ...}`` of a batch; the loss can be differentiated.

        Other values are tensors of one element or numbers. Tensors may stay on their device: reading a value there
        would make the GPU wait.
        """

    @abstractmethod
    def validate_step(self, batch: Any, batch_ind: int) -> dict[str, Any]:
        """Return what `validate_end` needs of a batch, such as ``{"val_loss": loss}``.

        It must be possible to pickle it: in several processes, all of them get what all have returned.
        """

    def train_end(self, outputs: list[dict[str, Any]]) -> dict[str, float]:
        """Return the metrics of an epoch from what `train_step` returned for its batches, losses as numbers."""
        return aggregate_metrics(outputs)

    def validate_end(self, outputs: list[dict[str, Any]]) -> dict[str, float]:
        """Return the metrics of a pass from what `validate_step` returned for its batches, losses as numbers."""
        return aggregate_metrics(outputs)

    def plot_metrics(self) -> dict[str, Figure]:
        """Return figures of how good the model was in the last pass of validation, by name; see `validate_end`."""
        return {}

    def post_forward(self, x: Any) -> Any:
        """Return the tensor of interest in the output of the model."""
        return x

    def prob_to_pred(self, x: torch.Tensor) -> torch.Tensor:
        """Return the prediction that scores stand for."""
        raise NotImplementedError

    def check_batch(self, batch: Any, describe: Callable[[], str]) -> None:
        """Raise an error if the targets of a batch cannot be right.

        Args:
            batch: The batch, on the CPU.
            describe: Returns words for its chips.
        """
        del batch, describe  # any batch will do

    def make_exportable(self, model: nn.Module) -> nn.Module:
        """Return a module around a model whose outputs are tensors, named ``onnx_outputs``, for export to ONNX."""
        return TensorOutput(model)

    def get_collate_fn(self) -> Callable[..., Any] | None:
        """Return the function that makes batches of samples; None for the default one."""
        return None

    @property
    def onnx_mode(self) -> bool:
        """Whether the model is run by ONNX Runtime."""
        return isinstance(self.model, ONNXRuntimeAdapter)

    def predict(self, x: torch.Tensor, raw_out: bool = False) -> Any:
        """Return the predictions for a chip or a batch, on the CPU.

        Args:
            x: (C, H, W) or (N, C, H, W) chips, float in 0..1.
            raw_out: Whether to return what the model returns rather than a prediction.
        """
        out = self._forward(x)
        if not raw_out:
            out = self.prob_to_pred(self.post_forward(out))
        return self.to_device(out, "cpu")

    def predict_onnx(self, x: torch.Tensor, raw_out: bool = False) -> Any:
        """Return the predictions of an ONNX model; the same as `predict`, which serves both."""
        return self.predict(x, raw_out=raw_out)

    @torch.inference_mode()
    def _forward(self, x: torch.Tensor) -> Any:
        if self.model.training:
            self.model.eval()
        with self.precision.autocast():  # as in validation
            out = self.model(self.to_batch(x).float().to(self.device))
        return _in_32_bits(out) if self.precision.enabled else out

    def predict_dataloader(
        self,
        dl: DataLoader[Any],
        batched_output: bool = True,
        return_format: Literal["xyz", "yz", "z"] = "z",
        raw_out: bool = True,
        predict_kw: dict[str, Any] | None = None,
    ) -> Iterator[Any]:
        """Yield predictions for the batches of a data loader.

        Args:
            dl: Gives batches (x, y).
            batched_output: Whether to yield batches, else one item per chip.
            return_format: What is yielded: predictions (z), also labels (yz), also chips (xyz).
            raw_out: As in `predict`.
            predict_kw: More arguments of `predict`.
        """
        kwargs = {**(predict_kw or {}), "raw_out": raw_out}
        return predict_batches(lambda x: self.predict(x, **kwargs), dl, return_format, batched_output)

    def predict_dataset(
        self,
        dataset: Dataset[Any],
        return_format: Literal["xyz", "yz", "z"] = "z",
        raw_out: bool = True,
        numpy_out: bool = False,
        predict_kw: dict[str, Any] | None = None,
        dataloader_kw: dict[str, Any] | None = None,
        progress_bar: bool = True,
        progress_bar_kw: dict[str, Any] | None = None,
    ) -> Iterator[Any]:
        """Yield predictions for the samples of a dataset, one by one.

        Args:
            dataset: Gives samples (x, y).
            return_format: What is yielded: predictions (z), also labels (yz), also chips (xyz).
            raw_out: As in `predict`.
            numpy_out: Whether to yield arrays instead of tensors.
            predict_kw: More arguments of `predict`.
            dataloader_kw: Arguments of the `DataLoader`.
            progress_bar: Whether to show progress.
            progress_bar_kw: Arguments of the progress bar: ``description``.
        """
        from rastervision.pipeline.progress import track

        batch_sz = self.cfg.solver.batch_sz if self.cfg.solver is not None else 1
        args = {"batch_size": batch_sz, "collate_fn": self.get_collate_fn(), **(dataloader_kw or {})}
        items = self.predict_dataloader(DataLoader(dataset, **args), False, return_format, raw_out, predict_kw)
        if progress_bar:
            words = {"description": "predict", **(progress_bar_kw or {})}["description"]
            items = track(items, words, len(dataset))  # type: ignore[arg-type]
        for item in items:
            if numpy_out:
                parts = tuple(self.output_to_numpy(p) for p in (item if return_format != "z" else (item,)))
                yield parts[0] if return_format == "z" else parts
            else:
                yield item

    def output_to_numpy(self, out: Any) -> Any:
        """Return a prediction of one chip as an array."""
        return out.numpy() if isinstance(out, torch.Tensor) else out

    def to_batch(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``x`` as a batch: a chip becomes a batch of one."""
        return x[None] if x.ndim == 3 else x

    def to_device(self, x: Any, device: str | torch.device) -> Any:
        """Return ``x``, a tensor or a dict, list or tuple of such, on a device."""
        if isinstance(x, dict):
            return {k: self.to_device(v, device) for k, v in x.items()}
        if isinstance(x, (list, tuple)):
            return type(x)(self.to_device(v, device) for v in x)
        return x.to(device, non_blocking=True) if hasattr(x, "to") else x

    def normalize_input(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return pixels as float32; unsigned integers are divided by the maximum of their dtype."""
        if np.issubdtype(x.dtype, np.unsignedinteger):
            return (x / np.iinfo(x.dtype).max).astype(np.float32)
        return x.astype(np.float32)


def _in_32_bits(out: Any) -> Any:
    """Return the output of a model, a tensor or a dict of such, as float32; anything else as it is."""
    if isinstance(out, dict):
        return {name: _in_32_bits(value) for name, value in out.items()}
    return out.float() if isinstance(out, torch.Tensor) and out.is_floating_point() else out
