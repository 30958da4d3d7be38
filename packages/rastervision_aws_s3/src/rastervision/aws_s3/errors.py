"""What went wrong with S3, in one sentence or two: what, where and what to do."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import NotReadableError, NotWritableError, RasterVisionError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["code_of", "is_missing", "translated"]

_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_DENIED = frozenset({"403", "AccessDenied", "AllAccessDisabled", "Forbidden", "UnauthorizedAccess"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_INVALID = frozenset({"InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "InvalidClientTokenId"})
_ELSEWHERE = frozenset(
    {"301", "307", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
_BUSY = frozenset({"500", "502", "503", "504", "InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout"})
# exceptions of botocore by name, so that none has to be imported
_NO_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"})
_LOG_IN = frozenset(
    {"SSOTokenLoadError", "UnauthorizedSSOTokenError", "TokenRetrievalError", "RefreshWithMFAUnsupportedError",
     "SSOError", "LoginRefreshRequired", "LoginTokenLoadError"}
)  # fmt: skip
_UNREACHABLE = frozenset(
    {"EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "SSLError", "ConnectionError"}
)
_BROKEN = frozenset(
    {"ConnectionClosedError", "ReadTimeoutError", "IncompleteReadError", "ResponseStreamingError", "HTTPClientError",
     "RetriesExceededError", "ProtocolError"}
)  # fmt: skip


def code_of(error: BaseException) -> str:
    """Return the code with which S3 refused, such as "NoSuchKey" or "404"; "" if it did not answer."""
    return str(_answer(error).get("Error", {}).get("Code", ""))


def is_missing(error: BaseException) -> bool:
    """Whether S3 said that there is no such object."""
    return code_of(error) in _MISSING


def _answer(error: BaseException) -> dict[str, Any]:
    answer = getattr(error, "response", None)
    return answer if isinstance(answer, dict) else {}


@contextmanager
def translated(action: str, uri: str, writing: bool = False, endpoint: str | None = None) -> Iterator[None]:
    """Turn what boto3 raises inside into `NotReadableError`, or `NotWritableError` if ``writing``.

    Args:
        action: What was tried, after "Cannot".
        uri: With what.
        writing: Whether it was to write there.
        endpoint: URL of the store, to be named where it cannot be reached.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
    from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError

    try:
        yield
    except RasterVisionError:
        raise
    except (
        Boto3Error, BotoCoreError, ClientError, HTTPClientError, RetriesExceededError, S3DownloadFailedError,
        ConnectionError, TimeoutError,
    ) as e:  # fmt: skip
        kind = NotWritableError if writing else NotReadableError
        raise kind(f"Cannot {action} {uri}: {_reason(e, uri, writing, endpoint)}") from e


def _reason(error: BaseException, uri: str, writing: bool, endpoint: str | None) -> str:
    answer = _answer(error)
    if answer:
        return _reason_of_answer(answer, uri, writing)
    names = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(getattr(error, "last_exception", None), BaseException):
        names.add("RetriesExceededError")
        error = error.last_exception  # type: ignore[attr-defined]
    if names & _LOG_IN:
        return "the login has expired. Log in again, with `aws sso login` or `aws login`."
    if names & _NO_CREDENTIALS:
        return (
            f"no usable credentials were found ({_text(error)}). Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY; a public bucket needs none with aws_s3.unsigned = yes."
        )
    if "ProfileNotFound" in names:
        return f"{_text(error)}. Correct AWS_PROFILE, or add the profile to ~/.aws/config."
    if "S3DownloadFailedError" in names:
        return "it was changed while it was read. Read it again."
    if names & _BROKEN:
        return f"the connection broke again and again ({_text(error)}). Try again, or check the network."
    if names & _UNREACHABLE or isinstance(error, (ConnectionError, TimeoutError)):
        where = endpoint or "the store"
        return f"{where} cannot be reached ({_text(error)}). Check the network, aws_s3.endpoint_url and aws_s3.region."
    if "ParamValidationError" in names and "Invalid bucket name" in str(error):
        return "the name of the bucket is not valid. Correct the URI: it is s3://BUCKET/KEY."
    return f"{_text(error)}."


def _reason_of_answer(answer: dict[str, Any], uri: str, writing: bool) -> str:
    code = str(answer.get("Error", {}).get("Code", ""))
    message = str(answer.get("Error", {}).get("Message", "")).rstrip(".")
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    if code == "NoSuchBucket":
        return (
            f"there is no bucket {uri.split('/')[2]!r}. Correct the URI, or aws_s3.endpoint_url if it names the store."
        )
    if code in _MISSING:
        return "there is no such object. Check the URI; large and small letters differ."
    if code in _DENIED:
        return (
            f"access is denied ({code}). Check that these credentials may {'write' if writing else 'read'} there; "
            "aws_s3.requester_pays = yes is needed where the requester pays, aws_s3.unsigned = yes where you have none."
        )
    if code in _EXPIRED:
        return f"the credentials have expired ({code}). Get new ones, for example with `aws sso login`."
    if code in _INVALID:
        return f"the store does not accept the credentials ({code}). Correct AWS_PROFILE or the access key."
    if code == "RequestTimeTooSkewed":
        return "the clock of this machine is wrong (RequestTimeTooSkewed). Set it."
    region = headers.get("x-amz-bucket-region") or answer.get("Error", {}).get("Region")
    if code in _ELSEWHERE and (region or code not in ("301", "307")):
        there = f"in the region {region}" if region else "in another region"
        return f"the bucket is {there}. Set aws_s3.region, or AWS_DEFAULT_REGION, to it."
    if code == "InvalidObjectState":
        return "it is archived (InvalidObjectState). Restore it first, with `aws s3api restore-object`."
    if code in ("412", "PreconditionFailed"):
        return "it was changed meanwhile (PreconditionFailed). Try again."
    if code in _BUSY:
        return f"the store is too busy or has failed ({code}), several times. Try again later."
    return f"the store answered {code}: {message}."


def _text(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
