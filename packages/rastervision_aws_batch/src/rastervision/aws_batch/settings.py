"""The settings of the section ``batch``: which queues and job definitions, and what jobs get."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, Field, field_validator

from rastervision.pipeline.rv_config import load_conf_list
from rastervision.pipeline.settings_model import load_settings

__all__ = ["MAX_ATTEMPTS", "BatchSettings"]

MAX_ATTEMPTS = 10  # more is refused by AWS Batch


class BatchSettings(BaseModel):
    """The settings in the section ``[batch]``. A queue or definition that the pipeline names is stronger."""

    gpu_job_queue: str | None = Field(None, description="Name or ARN of the queue for commands that use a GPU.")
    gpu_job_def: str | None = Field(None, description="Job definition for commands that use a GPU.")
    cpu_job_queue: str | None = Field(None, description="Name or ARN of the queue for the other commands.")
    cpu_job_def: str | None = Field(None, description="Job definition for the other commands.")
    attempts: int = Field(
        1, ge=1, le=MAX_ATTEMPTS, description="How often a job is started before it counts as failed."
    )
    region: str | None = Field(None, description="Region of the queues; that of the AWS configuration if not given.")
    timeout_s: int | None = Field(None, ge=60, description="After how many seconds an attempt at a job is ended.")
    tmpdir: str | None = Field(None, description="Folder for temporary files in the container, on a large volume.")
    env: list[str] = Field([], description="Names of environment variables that jobs get from this process.")
    share_identifier: str | None = Field(None, description="Share of a queue with a fair-share policy.")
    scheduling_priority: int | None = Field(None, ge=0, le=9999, description="Priority within that share.")

    @classmethod
    def load(cls) -> Self:
        """Return the settings as they are now.

        Raises:
            ConfigError: One is not valid.
        """
        return load_settings(cls, "batch")

    @field_validator("env", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return load_conf_list(value) if isinstance(value, str) else value
