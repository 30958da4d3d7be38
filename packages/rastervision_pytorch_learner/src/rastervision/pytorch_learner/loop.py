"""Go through batches: train, validate; stop at a loss that is not a number. No files are touched here.

Next: `rastervision.pytorch_learner.checkpoint`.
"""

from __future__ import annotations

import logging
import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import Sampler

from rastervision.pipeline.errors import ConfigError, RunError
from rastervision.pipeline.progress import track
from rastervision.pytorch_learner.dataset.dataset import describe_item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torch.utils.data import DataLoader

__all__ = [
    "NonFiniteLossError",
    "Precision",
    "RecordingSampler",
    "describe_batch",
    "train_batches",
    "validate_batches",
]

log = logging.getLogger(__name__)

Outputs = list[dict[str, Any]]

_MAX_CHIPS_NAMED = 4


class NonFiniteLossError(RunError):
    """The loss became NaN or infinite."""


class Precision:
    """Mixed precision on CUDA: bfloat16, or float16 with a scaled loss; nothing on other devices.

    Args:
        device: The device of the model.
        enabled: Whether to use it at all.
    """

    def __init__(self, device: torch.device, enabled: bool = True) -> None:
        self.enabled = enabled and device.type == "cuda"
        self.device_type = device.type
        self.dtype = torch.float32
        if self.enabled:
            self.dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        self._scaler = torch.amp.GradScaler(device.type) if self.dtype is torch.float16 else None

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context for forward passes."""
        return torch.autocast(self.device_type, dtype=self.dtype) if self.enabled else nullcontext()

    def backward_and_step(self, loss: torch.Tensor, optimizer: Optimizer) -> None:
        """Compute gradients and update the weights."""
        if self._scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        else:
            self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self._scaler.step(optimizer)
            self._scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the loss scale."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of the loss scale."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state)


def train_batches(
    step: Callable[[Any, int], dict[str, Any]],
    batches: Iterable[Any],
    optimizer: Optimizer,
    *,
    total: int | None = None,
    step_scheduler: LRScheduler | None = None,
    precision: Precision | None = None,
    description: str = "train",
    describe: Callable[[int], str] = lambda i: "",
) -> Outputs:
    """Train on each batch and return what the steps report, losses as numbers.

    Args:
        step: ``(batch, index) -> {"train_loss": loss, ...}`` with a loss that can be differentiated.
        batches: Batches on the device of the model.
        optimizer: Updates the weights after each batch.
        total: Number of batches, for the progress bar.
        step_scheduler: Advanced after each batch.
        precision: Mixed precision, if any.
        description: What the progress bar says; also names the epoch in errors.
        describe: Returns words for the chips of a batch, for errors.

    Raises:
        NonFiniteLossError: The loss of a batch is NaN or infinite; that batch has not changed the weights.
        ConfigError: A batch of one chip that batch norm cannot take.
    """
    precision = precision or Precision(torch.device("cpu"), enabled=False)
    outputs: Outputs = []
    for i, batch in enumerate(track(batches, description, total)):
        optimizer.zero_grad()
        try:
            with precision.autocast():
                output = step(batch, i)
        except ValueError as e:
            if "more than 1 value per channel" not in str(e):
                raise
            raise ConfigError(
                f"Batch {i} ({description}) is a single chip, and the batch norm of this model needs at "
                "least two to train on. Raise solver.batch_sz or add training chips."
            ) from e
        loss = output["train_loss"]
        value = float(loss.detach())
        if not math.isfinite(value):
            raise _non_finite(value, i, batch, description, describe)
        precision.backward_and_step(loss, optimizer)
        if step_scheduler is not None:
            step_scheduler.step()
        outputs.append({**output, "train_loss": value})
    return outputs


@torch.inference_mode()
def validate_batches(
    step: Callable[[Any, int], dict[str, Any]],
    batches: Iterable[Any],
    *,
    total: int | None = None,
    precision: Precision | None = None,
    description: str = "validate",
    describe: Callable[[int], str] = lambda i: "",
) -> Outputs:
    """Measure each batch and return what the steps report, such as ``{"val_loss": ..., "conf_mat": ...}``.

    Raises:
        NonFiniteLossError: The loss of a batch is NaN or infinite.
    """
    precision = precision or Precision(torch.device("cpu"), enabled=False)
    outputs: Outputs = []
    for i, batch in enumerate(track(batches, description, total)):
        with precision.autocast():
            output = step(batch, i)
        if "val_loss" in output:
            value = float(output["val_loss"])
            if not math.isfinite(value):
                raise _non_finite(value, i, batch, description, describe)
            output = {**output, "val_loss": value}
        outputs.append(output)
    return outputs


def _non_finite(
    value: float, index: int, batch: Any, description: str, describe: Callable[[int], str]
) -> NonFiniteLossError:
    chips = describe(index)
    x = batch[0] if isinstance(batch, (tuple, list)) else batch
    bad_pixels = isinstance(x, torch.Tensor) and x.is_floating_point() and not bool(torch.isfinite(x).all())
    remedy = (
        "Its images have NaN or infinite pixels: add a NanTransformer to the raster source."
        if bad_pixels
        else "Lower solver.lr, or check the loss and the chips."
    )
    return NonFiniteLossError(
        f"The loss is {value} in batch {index} of '{description}'{f' ({chips})' if chips else ''}. {remedy} "
        "Training stopped; the checkpoint of the epoch before is untouched."
    )


class RecordingSampler(Sampler[int]):
    """A sampler that remembers the order of the current pass, so that errors can name the chips of a batch.

    Args:
        sampler: Says the order.
    """

    def __init__(self, sampler: Sampler[int]) -> None:
        self.sampler = sampler
        self.seen: list[int] = []

    def __iter__(self) -> Iterator[int]:
        self.seen = []
        for index in self.sampler:
            self.seen.append(index)
            yield index

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]


def describe_batch(dataloader: DataLoader[Any], index: int) -> str:
    """Return words for the chips of a batch of the current pass; "" if they are not known."""
    size, sampler = dataloader.batch_size, dataloader.sampler
    if size is None or not isinstance(sampler, RecordingSampler):
        return ""
    items = sampler.seen[index * size : (index + 1) * size]
    named = [describe_item(dataloader.dataset, i) for i in items[:_MAX_CHIPS_NAMED]]
    more = len(items) - len(named)
    return "; ".join(named) + (f"; {more} more" if more > 0 else "")


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether a model has batch norm, which cannot train on a single value per channel."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
