"""Go through batches: train, validate; stop at a loss that is not a number. No files are touched here.

Next: `rastervision.pytorch_learner.checkpoint`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.utils.data import Sampler
from torch.utils.data.distributed import DistributedSampler

from rastervision.pipeline.errors import ConfigError, RunError
from rastervision.pytorch_learner.dataset.dataset import describe_item
from rastervision.pytorch_learner.meter import Meter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
    from torch.utils.data import DataLoader

__all__ = [
    "NonFiniteLossError",
    "Precision",
    "RecordingSampler",
    "Update",
    "describe_batch",
    "train_batches",
    "validate_batches",
]

log = logging.getLogger(__name__)

Outputs = list[dict[str, Any]]

_MAX_CHIPS_NAMED = 4


class NonFiniteLossError(RunError):
    """The loss became NaN or infinite.

    Args:
        message: What happened.
        batch: The batch, on the device of the model.
        index: Its number in the pass.
    """

    def __init__(self, message: str, batch: Any = None, index: int = 0) -> None:
        super().__init__(message)
        self.batch, self.index = batch, index


class Precision:
    """Mixed precision: bfloat16, or float16 with a scaled loss.

    Args:
        device: The device of the model.
        kind: "bf16", "fp16", True for what suits the device (nothing, but on CUDA), or False for none.
    """

    def __init__(self, device: torch.device, kind: bool | Literal["bf16", "fp16"] = True) -> None:
        if kind is True and device.type == "cuda":
            kind = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        self.device_type = device.type
        self.enabled = isinstance(kind, str)
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(str(kind), torch.float32)
        self._scaler = torch.amp.GradScaler(device.type) if self.dtype is torch.float16 else None

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context for forward passes."""
        return torch.autocast(self.device_type, dtype=self.dtype) if self.enabled else nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradients of a loss."""
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: Optimizer, max_grad_norm: float | None = None) -> bool:
        """Change the weights; return whether that was done: not if scaled gradients were too great.

        Args:
            optimizer: The optimiser.
            max_grad_norm: Gradients with a greater norm are scaled down to it.
        """
        if max_grad_norm is not None:
            if self._scaler is not None:
                self._scaler.unscale_(optimizer)
            params = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(params, max_grad_norm)
        if self._scaler is None:
            optimizer.step()
            return True
        scale = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        return self._scaler.get_scale() >= scale

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the loss scale."""
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of the loss scale."""
        if self._scaler is not None and state:
            self._scaler.load_state_dict(state)


@dataclass
class Update:
    """How losses change the weights.

    Args:
        optimizer: Changes them.
        step_scheduler: Advanced whenever they change.
        precision: Mixed precision, if any.
        accumulate: Number of batches whose gradients are added, as a mean, for one change.
        max_grad_norm: Gradients with a greater norm are scaled down to it.
        after_step: Called whenever they have changed.
        no_sync: Makes the context of batches whose gradients other processes need not know yet.
    """

    optimizer: Optimizer
    step_scheduler: LRScheduler | None = None
    precision: Precision = field(default_factory=lambda: Precision(torch.device("cpu"), False))
    accumulate: int = 1
    max_grad_norm: float | None = None
    after_step: Callable[[], None] | None = None
    no_sync: Callable[[], AbstractContextManager[Any]] = nullcontext

    def group_of(self, index: int, total: int | None) -> tuple[bool, bool, int]:
        """Return whether a batch is the first and the last one of its change, and of how many."""
        place = index % self.accumulate
        size = self.accumulate if total is None else min(self.accumulate, total - (index - place))
        return place == 0, place == size - 1, size

    def step(self) -> None:
        """Change the weights."""
        if self.precision.step(self.optimizer, self.max_grad_norm) and self.step_scheduler is not None:
            self.step_scheduler.step()
        if self.after_step is not None:
            self.after_step()


def train_batches(
    step: Callable[[Any, int], dict[str, Any]],
    batches: Iterable[Any],
    update: Update,
    *,
    total: int | None = None,
    description: str = "train",
    describe: Callable[[int], str] = lambda i: "",
    meter: Meter | None = None,
) -> Outputs:
    """Train on each batch and return what the steps report, losses as numbers.

    Args:
        step: ``(batch, index) -> {"train_loss": loss, ...}`` with a loss that can be differentiated.
        batches: Batches on the device of the model.
        update: How losses change the weights.
        total: Number of batches, for the progress bar; needed with ``update.accumulate``.
        description: What the progress bar says; also names the epoch in errors.
        describe: Returns words for the chips of a batch, for errors.
        meter: Measures the pass.

    Raises:
        NonFiniteLossError: The loss of a batch is NaN or infinite. That batch has not changed the weights, but on a
            GPU it is noticed one batch later, so as not to wait for it.
        ConfigError: A batch of one chip that batch norm cannot take.
    """
    meter = meter or Meter()
    losses = _Losses("train_loss", description, describe)
    with meter.shown_as(description, total) as advance:
        for i, batch in enumerate(meter.watch(batches)):
            first, last, size = update.group_of(i, total)
            if first:
                update.optimizer.zero_grad()
            with nullcontext() if last else update.no_sync():
                with _batch_norm_advice(i, description), update.precision.autocast():
                    output = step(batch, i)
                losses.add(output, i, batch)
                loss = output["train_loss"]
                update.precision.backward(loss if size == 1 else loss / size)
            if last:
                update.step()
            advance(1, meter.note(losses.last))
    return losses.outputs()


@torch.inference_mode()
def validate_batches(
    step: Callable[[Any, int], dict[str, Any]],
    batches: Iterable[Any],
    *,
    total: int | None = None,
    precision: Precision | None = None,
    description: str = "validate",
    describe: Callable[[int], str] = lambda i: "",
    meter: Meter | None = None,
) -> Outputs:
    """Measure each batch and return what the steps report, such as ``{"val_loss": ..., "conf_mat": ...}``.

    Raises:
        NonFiniteLossError: The loss of a batch is NaN or infinite.
    """
    precision = precision or Precision(torch.device("cpu"), False)
    meter = meter or Meter()
    losses = _Losses("val_loss", description, describe)
    with meter.shown_as(description, total) as advance:
        for i, batch in enumerate(meter.watch(batches)):
            with precision.autocast():
                output = step(batch, i)
            losses.add(output, i, batch)
            advance(1, meter.note(losses.last))
    return losses.outputs()


@contextmanager
def _batch_norm_advice(index: int, description: str) -> Iterator[None]:
    try:
        yield
    except ValueError as e:
        if "more than 1 value per channel" not in str(e):
            raise
        raise ConfigError(
            f"Batch {index} ({description}) is a single chip, and the batch norm of this model needs at "
            "least two to train on. Raise solver.batch_sz or add training chips."
        ) from e


class _Losses:
    """What the steps of a pass report, with losses as numbers that are checked.

    A loss on a GPU is copied while the next batch is computed, and read then.

    Args:
        key: Of the loss in what a step reports.
        description: Names the pass in errors.
        describe: Returns words for the chips of a batch, for errors.
    """

    def __init__(self, key: str, description: str, describe: Callable[[int], str]) -> None:
        self._key, self._description, self._describe = key, description, describe
        self._outputs: Outputs = []
        self._pending: tuple[torch.Tensor, Any, int, Any] | None = None
        self.last: float | None = None

    def add(self, output: dict[str, Any], index: int, batch: Any) -> None:
        """Take what the step of a batch reports."""
        self._outputs.append({k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in output.items()})
        loss = self._outputs[-1].get(self._key)
        if isinstance(loss, torch.Tensor) and loss.is_cuda:
            copy = loss.to("cpu", non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record()
            before, self._pending = self._pending, (copy, done, index, batch)
            self._settle(before)
        elif loss is not None:
            self._set(float(loss), index, batch)

    def outputs(self) -> Outputs:
        """Return all that was reported."""
        self._settle(self._pending)
        self._pending = None
        return self._outputs

    def _settle(self, pending: tuple[torch.Tensor, Any, int, Any] | None) -> None:
        if pending is not None:
            copy, done, index, batch = pending
            done.synchronize()
            self._set(float(copy), index, batch)

    def _set(self, value: float, index: int, batch: Any) -> None:
        if not math.isfinite(value):
            raise _non_finite(value, index, batch, self._description, self._describe)
        self._outputs[index][self._key] = self.last = value


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
        "Training stopped; the checkpoint of the epoch before is untouched.",
        batch,
        index,
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

    def set_epoch(self, epoch: int, seed: int = 0) -> None:
        """Tell a sampler that several processes share which order to take; others draw their own."""
        if isinstance(self.sampler, DistributedSampler):
            self.sampler.seed = seed
            self.sampler.set_epoch(epoch)


def describe_batch(dataloader: DataLoader[Any], index: int, limit: int | None = _MAX_CHIPS_NAMED) -> str:
    """Return words for the chips of a batch of the current pass, up to ``limit``; "" if they are not known."""
    size, sampler = dataloader.batch_size, dataloader.sampler
    if size is None or not isinstance(sampler, RecordingSampler):
        return ""
    items = sampler.seen[index * size : (index + 1) * size]
    named = [describe_item(dataloader.dataset, i) for i in items[:limit]]
    more = len(items) - len(named)
    return "; ".join(named) + (f"; {more} more" if more > 0 else "")


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether a model has batch norm, which cannot train on a single value per channel."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules())
