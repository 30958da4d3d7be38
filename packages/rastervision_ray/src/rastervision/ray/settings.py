"""The settings of the section ``ray``: which cluster, and what its tasks ask for."""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, field_validator

from rastervision.pipeline.errors import ConfigError

__all__ = ["RaySettings"]

_UNITS = {"K": 10, "M": 20, "G": 30, "T": 40}


class RaySettings(BaseModel):
    """The settings, from the environment (``RAY_ADDRESS``), a profile (``[ray]``), or overrides.

    ``num_cpus``, ``num_gpus`` and ``memory`` can be given for one command: ``train_num_gpus = 4``. ``workers`` can be
    given for one command only: ``train_workers = 4``.
    """

    address: str | None = Field(
        None, description="Of the cluster: host:port, ray://host:port, or auto for one that runs on this machine."
    )
    num_cpus: float | None = Field(None, ge=0, description="CPUs of a command.")
    num_gpus: float | None = Field(None, ge=0, description="GPUs of a command that makes use of them.")
    memory: int | None = Field(None, gt=0, description="Memory of a command, in bytes or as in 8G.")
    workers: int = Field(
        1, gt=0, description="Processes, on any nodes, that carry a command out together, as those of torchrun do."
    )
    lost_retries: int = Field(
        3, ge=0, description="How often a command is started again whose node or worker was lost."
    )
    runtime_env: dict[str, Any] | None = Field(
        None, description="Runtime environment of Ray as JSON, such as a working_dir that is sent to the nodes."
    )
    env: list[str] = Field([], description="Names of environment variables that commands get from this process.")

    @classmethod
    def load(cls, command: str | None = None) -> Self:
        """Return the settings as they are now, with those of one command if that is given.

        Raises:
            ConfigError: One is not valid.
        """
        from rastervision.pipeline.rv_config import rv_config_

        section = rv_config_.get_namespace_config("ray")
        values = {name: section.get(name) for name in cls.model_fields if name != "workers"}
        if command is not None:
            own = {name: section.get(f"{command}_{name}") for name in ("num_cpus", "num_gpus", "memory", "workers")}
            values |= {name: value for name, value in own.items() if value is not None}
        try:
            return cls(**{name: value for name, value in values.items() if value not in (None, "")})
        except ValidationError as e:
            first = e.errors()[0]
            name = str(first["loc"][0])
            raise ConfigError(
                f"The setting {name} of the section ray is {values[name]!r}, which is not valid: {first['msg']}."
            ) from e

    @field_validator("memory", mode="before")
    @classmethod
    def _bytes(cls, value: Any) -> Any:
        if isinstance(value, str) and value[-1:].upper() in _UNITS:
            return int(float(value[:-1]) * (1 << _UNITS[value[-1].upper()]))
        return value

    @field_validator("runtime_env", mode="before")
    @classmethod
    def _from_json(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value

    @field_validator("env", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        from rastervision.pipeline.rv_config import load_conf_list

        return load_conf_list(value) if isinstance(value, str) else value
