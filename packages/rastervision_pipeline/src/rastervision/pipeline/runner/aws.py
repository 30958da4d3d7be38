"""What the runners on Amazon Web Services share: clients, errors in plain words, links, and the ends of logs.

The AWS library is not needed to import this; packages with runners depend on it.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import MissingPackageError, RasterVisionError, RunError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "aws_client",
    "console_url",
    "error_code",
    "in_plain_words",
    "log_tail",
    "log_tail_of_prefix",
    "valid_name",
]

_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired", "UnrecognizedClientException")
_EXPIRED_CLASSES = ("SSOTokenLoadError", "UnauthorizedSSOTokenError", "TokenRetrievalError", "LoginRefreshRequired")
_FORBIDDEN = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")


def aws_client(service: str, region: str | None = None) -> Any:
    """Return a client of boto3 that tries again what may pass, such as being told to slow down.

    Raises:
        MissingPackageError: The AWS library is not installed.
        RunError: There is no region, or the AWS profile does not exist.
    """
    try:
        import boto3
        from botocore.config import Config
    except ModuleNotFoundError as e:
        raise MissingPackageError(f"{service} needs the package boto3. Run: pip install boto3", name="boto3") from e
    with in_plain_words(f"use {service}"):
        session = boto3.Session(region_name=region)
        return session.client(service, config=Config(retries={"mode": "standard", "max_attempts": 8}))


def error_code(error: BaseException) -> str:
    """Return the code of an error that AWS answered with, such as "AccessDenied"; empty for another error."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def in_plain_words(action: str, hint: str = "") -> Iterator[None]:
    """Turn errors of the AWS library into a `RunError` of one sentence and what to do.

    Args:
        action: What is done, as in "submit the job train to AWS Batch".
        hint: What to do about an error that says that the request is not valid.
    """
    try:
        yield
    except RasterVisionError:
        raise
    except Exception as e:
        if not type(e).__module__.startswith(("botocore", "boto3", "urllib3")) and not error_code(e):
            raise
        raise RunError(f"Cannot {action}: {_reason(e, hint)}") from e


def _reason(error: Exception, hint: str) -> str:
    name, code = type(error).__name__, error_code(error)
    text = str(getattr(error, "response", {}).get("Error", {}).get("Message", "") or error).strip().rstrip(".")
    if name in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"):
        return (
            f"there are no AWS credentials ({text}). Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or run `aws configure`."
        )
    if code in _EXPIRED or name in _EXPIRED_CLASSES:
        return f"the AWS credentials have expired or are not valid ({text}). Log in again."
    if code in _FORBIDDEN:
        return f"{text}. Ask for this permission, or use other credentials."
    if name == "NoRegionError":
        return "no AWS region is set. Set AWS_DEFAULT_REGION, or region in ~/.aws/config."
    if name == "ProfileNotFound":
        return f"{text}. Correct AWS_PROFILE."
    if name in ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError"):
        return f"{text}. Check the network and the region."
    return f"{text}.{' ' if hint else ''}{hint}"


def console_url(region: str, page: str) -> str:
    """Return the address of a page of the AWS console; ``page`` is the part after the host."""
    domain = "amazonaws.cn" if region.startswith("cn-") else "aws.amazon.com"
    return f"https://{region}.console.{domain}/{page}"


def valid_name(text: str, max_length: int, extra: str = "") -> str:
    """Return the text as a name that AWS takes: letters, digits, hyphens and ``extra``, a letter or digit first."""
    name = re.sub(rf"[^A-Za-z0-9{re.escape(extra)}-]+", "-", text).lstrip("-_")
    return name[:max_length].rstrip("-") or "run"


def log_tail(region: str | None, group: str, stream: str, lines: int) -> list[str]:
    """Return the last lines of a log stream of CloudWatch; one that says why, if they cannot be read."""
    if lines < 1:
        return []
    try:
        with in_plain_words(f"read the log {stream} in {group}"):
            logs = aws_client("logs", region)
            answer = logs.get_log_events(logGroupName=group, logStreamName=stream, limit=lines, startFromHead=False)
    except RunError as e:
        return [f"({e})"]
    return [str(event["message"]).rstrip("\n") for event in answer["events"]]


def log_tail_of_prefix(region: str | None, group: str, prefix: str, lines: int) -> list[str]:
    """Return the last lines of the latest log stream whose name begins with a prefix; none if there is no such."""
    try:
        with in_plain_words(f"find the log {prefix} in {group}"):
            logs = aws_client("logs", region)
            streams = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=prefix)["logStreams"]
    except RunError as e:
        return [f"({e})"]
    if not streams:
        return []
    latest = max(streams, key=lambda stream: int(stream.get("lastEventTimestamp", 0)))
    return log_tail(region, group, latest["logStreamName"], lines)
