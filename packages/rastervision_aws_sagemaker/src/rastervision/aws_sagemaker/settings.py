"""The settings of the section ``sagemaker``: role, images and machines."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, Field, field_validator

from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.rv_config import load_conf_list
from rastervision.pipeline.settings_model import load_settings

__all__ = ["SageMakerSettings"]

DEFAULT_MAX_RUN_TIME = 24 * 60 * 60


class SageMakerSettings(BaseModel):
    """The settings in the section ``[sagemaker]``. Role, and image and instance type for CPU and GPU, are needed."""

    role: str | None = Field(None, description="Name or ARN of the IAM role that runs the steps.")
    cpu_image: str | None = Field(None, description="URI of the image for commands that use no GPU.")
    cpu_instance_type: str | None = Field(None, description="Type of their machine, such as ml.m5.2xlarge.")
    gpu_image: str | None = Field(None, description="URI of the image for commands that use a GPU.")
    gpu_instance_type: str | None = Field(None, description="Type of their machine, such as ml.g5.xlarge.")
    train_image: str | None = Field(None, description="URI of the image for train; gpu_image if not given.")
    train_instance_type: str | None = Field(None, description="Type of machine; gpu_instance_type if not given.")
    train_instance_count: int = Field(1, ge=1, description="On how many machines train runs.")
    use_spot_instances: bool = Field(False, description="Train on machines that may be taken away, for less money.")
    spot_instance_max_wait_time: int = Field(
        DEFAULT_MAX_RUN_TIME, gt=0, description="After how many seconds a training on such machines is given up."
    )
    max_run_time: int = Field(DEFAULT_MAX_RUN_TIME, gt=0, description="After how many seconds a step is ended.")
    region: str | None = Field(None, description="Region; that of the AWS configuration if not given.")
    volume_size: int = Field(30, ge=1, description="Disk of a machine in GiB.")
    subnets: list[str] = Field([], description="Ids of subnets that the machines are to be in.")
    security_group_ids: list[str] = Field([], description="Ids of the security groups of the machines.")
    env: list[str] = Field([], description="Names of environment variables that steps get from this process.")

    @classmethod
    def load(cls) -> Self:
        """Return the settings as they are now.

        Raises:
            ConfigError: One is not valid.
        """
        return load_settings(cls, "sagemaker")

    def needed(self, name: str, given: str | None = None) -> str:
        """Return ``given`` or else a setting.

        Raises:
            ConfigError: There is neither.
        """
        value = given or getattr(self, name)
        if not value:
            raise ConfigError(
                f"{name} is not set. Set it in the section [sagemaker] of the settings file, or SAGEMAKER_"
                f"{name.upper()} in the environment."
            )
        return str(value)

    @field_validator("subnets", "security_group_ids", "env", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return load_conf_list(value) if isinstance(value, str) else value
