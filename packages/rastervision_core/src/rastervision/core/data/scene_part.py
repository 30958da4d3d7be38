"""A part of a scene, for predicting a large one on several machines.

Next: `rastervision.core.rv_pipeline.scene_parts`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ScenePart"]


@dataclass(frozen=True)
class ScenePart:
    """One of several parts of a scene, which are cut the same way wherever that is done.

    Args:
        index: Which part, from 0.
        count: In how many parts the scene is cut.
    """

    index: int
    count: int

    def of(self, total: int, multiple: int = 1) -> range:
        """Return which of ``total`` rows, or of whatever else is numbered, are in this part.

        Args:
            total: How many there are.
            multiple: Parts begin at multiples of this; some may be empty then.

        Example:
            >>> [ScenePart(i, 3).of(1000, 256) for i in range(3)]
            [range(0, 256), range(256, 512), range(512, 1000)]
        """
        units = -(-total // multiple)
        start, stop = (units * i // self.count * multiple for i in (self.index, self.index + 1))
        return range(min(start, total), min(stop, total))
