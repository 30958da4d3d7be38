"""One training example on its way to disk: a chip, its label, and where both come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rastervision.core.box import Box

__all__ = ["DataSample"]


@dataclass
class DataSample:
    """A chip (H, W, C) with its label.

    Attributes:
        chip: Pixels of the window.
        label: Class id, box labels or label array (H, W), as the task has it.
        split: Part of the data set that the sample is for.
        scene_id: Scene that it was cut from.
        window: Window in pixels of the scene's bbox.
    """

    chip: NDArray[np.generic]
    label: Any | None = None
    split: Literal["train", "valid", "test"] | None = None
    scene_id: str | None = None
    window: Box | None = None
