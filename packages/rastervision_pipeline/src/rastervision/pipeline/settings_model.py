"""Settings of a section as a pydantic model, as packages declare them under ``rastervision.settings``."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.rv_config import rv_config_

__all__ = ["load_settings"]

M = TypeVar("M", bound=BaseModel)


def load_settings(model: type[M], section: str) -> M:
    """Return the settings of a section as they are now.

    Raises:
        ConfigError: One is not valid.
    """
    found = {name: rv_config_.get_namespace_option(section, name) for name in model.model_fields}
    try:
        return model(**{name: value for name, value in found.items() if value not in (None, "")})
    except ValidationError as e:
        problem = e.errors(include_url=False)[0]
        name = str(problem["loc"][0])
        raise ConfigError(
            f"The setting {section}.{name} is {found[name]!r}: {problem['msg']}. Correct it in the section "
            f"[{section}] of the settings file, or in the environment ({section.upper()}_{name.upper()})."
        ) from e
