"""The settings of S3: section ``[aws_s3]``, and the names in the environment that other tools use too."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from rastervision.pipeline.settings import TRUE_VALUES
from rastervision.pipeline.settings_model import load_settings

__all__ = ["AwsS3Settings"]

_SECTION = "aws_s3"


class AwsS3Settings(BaseModel):
    """The settings in the section ``[aws_s3]``; they travel with saved pipelines.

    Credentials are no part of them: those are found as by every tool of AWS, in the environment, in ``~/.aws`` or from
    the machine's role. What is left out here is also found in ``~/.aws/config``.
    """

    model_config = ConfigDict(frozen=True)

    requester_pays: bool = Field(False, description="Pay for requests to buckets whose requester pays.")
    unsigned: bool = Field(False, description="Send no credentials: enough for public buckets.")
    endpoint_url: str | None = Field(None, description="URL of a store other than Amazon's.")
    region: str | None = Field(None, description="Region of the buckets.")
    addressing_style: Literal["auto", "path", "virtual"] = Field(
        "auto", description="Where the bucket's name goes: into the path, or (virtual) before the host."
    )
    kms_key_id: str | None = Field(None, description="Key of AWS KMS with which new objects are encrypted.")
    max_concurrency: int = Field(10, ge=1, le=100, description="How many requests a transfer sends side by side.")

    @classmethod
    def load(cls) -> AwsS3Settings:
        """Return the settings of this process.

        Raises:
            ConfigError: A setting has a value that it cannot have.
        """
        settings, given = load_settings(cls, _SECTION), dict[str, bool]()
        # as in 0.31, these are stronger than the section
        if payer := os.environ.get("AWS_REQUEST_PAYER"):
            given["requester_pays"] = payer.lower() == "requester"
        if os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in TRUE_VALUES:
            given["unsigned"] = True
        return settings.model_copy(update=given)
