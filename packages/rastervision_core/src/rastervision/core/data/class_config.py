"""The classes of a task: their names, colours, and which of them stands for "nothing"."""

from __future__ import annotations

import colorsys
from collections import Counter
from typing import Self, cast

from pydantic import Field, model_validator

from rastervision.pipeline.config import Config, ConfigError, register_config

__all__ = ["DEFAULT_NULL_CLASS_COLOR", "DEFAULT_NULL_CLASS_NAME", "ClassConfig", "default_color"]

DEFAULT_NULL_CLASS_NAME = "null"
DEFAULT_NULL_CLASS_COLOR = "black"

_BLACK = (DEFAULT_NULL_CLASS_COLOR, "#000", "#000000", (0, 0, 0))

# 16 colours that are told apart on screen and in print; more are made from the golden ratio of the hue circle
_PALETTE: tuple[tuple[int, int, int], ...] = (
    (230, 25, 75), (60, 180, 75), (0, 130, 200), (255, 225, 25), (145, 30, 180), (245, 130, 48), (70, 240, 240),
    (240, 50, 230), (210, 245, 60), (0, 128, 128), (170, 110, 40), (250, 190, 190), (128, 0, 0), (170, 255, 195),
    (0, 0, 128), (230, 190, 255),
)  # fmt: skip
_GOLDEN_RATIO = 0.618033988749895


def default_color(index: int) -> tuple[int, int, int]:
    """Return the RGB colour, 0 to 255, of the class with this id: always the same for the same id."""
    if index < len(_PALETTE):
        return _PALETTE[index]
    n = index - len(_PALETTE)
    r, g, b = colorsys.hsv_to_rgb(n * _GOLDEN_RATIO % 1, 0.9 - 0.3 * (n % 2), 0.55 + 0.4 * (n // 2 % 2))
    return round(r * 255), round(g * 255), round(b * 255)


@register_config("class_config")
class ClassConfig(Config):
    """Configure the classes; a class id is an index into ``names``."""

    names: list[str] = Field(description="Names of the classes; the position is the class id.")
    colors: list[str | tuple] | None = Field(  # type: ignore[type-arg]
        None,
        description="Colour per class: a CSS name or #hex, or an RGB triple of 0 to 255. A fixed palette if not given.",
    )
    null_class: str | None = Field(
        None,
        description='Name of the class of pixels that belong to no other class; defaults to "null" if there is such '
        "a name.",
    )

    @model_validator(mode="after")
    def validate_null_class(self) -> Self:
        """Take the class named "null" as the null class, and check one that is given."""
        repeated = sorted(name for name, count in Counter(self.names).items() if count > 1)
        if repeated:
            raise ConfigError(
                f"names has {', '.join(map(repr, repeated))} more than once. Give each class its own name."
            )
        has_null = DEFAULT_NULL_CLASS_NAME in self.names
        if self.null_class is None:
            if has_null:
                self.__dict__["null_class"] = DEFAULT_NULL_CLASS_NAME  # an assignment would validate again
        elif self.null_class not in self.names:
            raise ConfigError(
                f"null_class {self.null_class!r} is not one of the names {self.names}. Add it to names, or correct it."
            )
        elif has_null and self.null_class != DEFAULT_NULL_CLASS_NAME:
            raise ConfigError(
                f"names has the class {DEFAULT_NULL_CLASS_NAME!r}, but null_class is {self.null_class!r}. "
                "Leave null_class out, or rename one of the two classes."
            )
        return self

    @model_validator(mode="after")
    def validate_colors(self) -> Self:
        """Fill missing colours and check that there is one per class."""
        if self.colors is None:
            colors = [self._default_color(i) for i in range(len(self.names))]
            self.__dict__["colors"] = colors  # an assignment would validate again
        elif len(self.colors) != len(self.names):
            raise ConfigError(
                f"There are {len(self.names)} names but {len(self.colors)} colors: {self.names}, {self.colors}. "
                "Give one color per name, or leave colors out."
            )
        return self

    def _default_color(self, index: int) -> str | tuple[int, int, int]:
        return DEFAULT_NULL_CLASS_COLOR if self.names[index] == self.null_class else default_color(index)

    def __len__(self) -> int:
        return len(self.names)

    def get_class_id(self, name: str) -> int:
        """Return the id of the class with this name.

        Raises:
            ConfigError: There is no such class.
        """
        try:
            return self.names.index(name)
        except ValueError:
            raise ConfigError(f"There is no class {name!r}. The class config has {self.names}.") from None

    def get_name(self, id: int) -> str:
        """Return the name of the class with this id."""
        return self.names[id]

    @property
    def null_class_id(self) -> int:
        """Id of the null class.

        Raises:
            ConfigError: There is no null class.
        """
        if self.null_class is None:
            raise ConfigError(
                f"null_class is not set in the class config with the names {self.names}. "
                "Set it, or call ensure_null_class()."
            )
        return self.get_class_id(self.null_class)

    def get_color_to_class_id(self) -> dict[str | tuple[int, int, int], int]:
        """Return colour, as given in ``colors``, -> class id."""
        return {color: i for i, color in enumerate(self.colors or [])}

    def ensure_null_class(self) -> None:
        """Add a class "null" at the end, black if no other class is, unless there is a null class."""
        if self.null_class is not None:
            return
        colors = list(self.colors or [])
        taken = any(color in _BLACK for color in colors)
        null_color = default_color(len(self.names)) if taken else DEFAULT_NULL_CLASS_COLOR
        self.__dict__["names"] = [*self.names, DEFAULT_NULL_CLASS_NAME]
        self.__dict__["colors"] = [*colors, null_color]
        self.null_class = DEFAULT_NULL_CLASS_NAME

    @property
    def color_triples(self) -> list[tuple[float, float, float]]:
        """RGB of each class, 0 to 1."""
        from rastervision.core.data.utils.misc import normalize_color

        return [cast("tuple[float, float, float]", normalize_color(color)) for color in self.colors or []]
