"""Types for values with limits, used in config fields."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, StringConstraints

__all__ = ["NonEmptyStr", "NonNegInt", "PosFloat", "PosInt", "Proportion", "Vector"]

PosInt = Annotated[int, Field(gt=0)]
NonNegInt = Annotated[int, Field(ge=0)]
PosFloat = Annotated[float, Field(gt=0)]
Proportion = Annotated[float, Field(ge=0, le=1)]
NonEmptyStr = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Vector = Sequence[float]
