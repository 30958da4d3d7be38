"""Run a model over the batches of a data loader; for a scene see `rastervision.pytorch_learner.predict`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["predict_batches"]


def predict_batches(
    predict: Callable[[Any], Any],
    batches: Iterable[Any],
    return_format: Literal["xyz", "yz", "z"] = "z",
    batched_output: bool = True,
) -> Iterator[Any]:
    """Yield what ``predict`` gives for each batch.

    Args:
        predict: Maps the images of a batch to predictions.
        batches: Batches (x, y).
        return_format: What is yielded: predictions (z), also labels (yz), also images (xyz).
        batched_output: Whether to yield batches, else one item per image.

    Raises:
        ValueError: No such ``return_format``.
    """
    if return_format not in ("xyz", "yz", "z"):
        raise ValueError(f"return_format={return_format!r} is not one of 'xyz', 'yz', 'z'.")
    return _generate(predict, batches, return_format, batched_output)


def _generate(
    predict: Callable[[Any], Any], batches: Iterable[Any], return_format: str, batched_output: bool
) -> Iterator[Any]:
    for x, y in batches:
        z = predict(x)
        parts = {"xyz": (x, y, z), "yz": (y, z), "z": (z,)}[return_format]
        for item in [parts] if batched_output else zip(*parts, strict=True):
            yield item[0] if return_format == "z" else tuple(item)
