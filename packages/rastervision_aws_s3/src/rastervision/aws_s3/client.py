"""Clients of S3: one for each set of settings and process, shared by its threads."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rastervision.aws_s3.settings import AwsS3Settings
from rastervision.pipeline.errors import ConfigError

if TYPE_CHECKING:
    from boto3.s3.transfer import TransferConfig

__all__ = ["PART_SIZE", "Store", "get_store", "new_session"]

# S3 takes at most 10,000 parts; the transfer manager makes them larger when there would be more
PART_SIZE = 8 << 20
# blocks that wait to be written to disk: larger ones than those of boto3, and fewer
_IO_SIZE = 1 << 20
_IO_QUEUE = 25
_ATTEMPTS = 5
_CONNECT_TIMEOUT_S = 20
_MAX_STORES = 16
# planning asks for many files in this many threads, see rastervision.pipeline.file_system.many
_MIN_CONNECTIONS = 32

_lock = threading.Lock()
_stores: dict[Any, Store] = {}


def _start_anew() -> None:
    """In a forked process, connections are those of the parent, and the thread that held the lock does not exist."""
    global _lock
    _lock = threading.Lock()
    _stores.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


@dataclass(frozen=True)
class Store:
    """A store with its settings: a client of boto3, and the arguments that its calls need.

    Args:
        settings: What it was made with.
        session: Of boto3; knows the credentials.
        client: Of boto3; any thread may use it.
    """

    settings: AwsS3Settings
    session: Any
    client: Any

    @property
    def read_args(self) -> dict[str, str]:
        """Arguments of calls that read or list."""
        return {"RequestPayer": "requester"} if self.settings.requester_pays else {}

    @property
    def write_args(self) -> dict[str, str]:
        """Arguments of calls that make objects."""
        key = self.settings.kms_key_id
        encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": key} if key else {}
        return {**self.read_args, **encryption}

    def transfer_config(self) -> TransferConfig:
        """Return settings of transfers in parts."""
        from boto3.s3.transfer import TransferConfig

        return TransferConfig(
            multipart_threshold=PART_SIZE,
            multipart_chunksize=PART_SIZE,
            max_concurrency=self.settings.max_concurrency,
            num_download_attempts=_ATTEMPTS,
            io_chunksize=_IO_SIZE,
            max_io_queue=_IO_QUEUE,
            preferred_transfer_client="classic",  # the same behaviour on all machines
        )


def new_session() -> Any:
    """Return a session of boto3 with the region of the settings."""
    import boto3

    return boto3.Session(region_name=AwsS3Settings.load().region)


def get_store() -> Store:
    """Return the store that the settings and the environment name now.

    Raises:
        ConfigError: They are not valid.
    """
    settings = AwsS3Settings.load()
    # a client keeps the credentials and the profile that it found first
    environment = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    key = (settings, environment)
    with _lock:
        store = _stores.get(key)
        if store is None:
            if len(_stores) >= _MAX_STORES:
                _stores.pop(next(iter(_stores)))
            store = _stores[key] = _new_store(settings)
        return store


def _new_store(settings: AwsS3Settings) -> Store:
    from botocore import UNSIGNED
    from botocore.config import Config

    from rastervision.aws_s3.errors import translated

    options: dict[str, Any] = {"signature_version": UNSIGNED} if settings.unsigned else {}
    if settings.addressing_style != "auto":
        options["s3"] = {"addressing_style": settings.addressing_style}
    if not {"AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS"} & os.environ.keys():
        options["retries"] = {"mode": "standard", "max_attempts": _ATTEMPTS}
    config = Config(
        connect_timeout=_CONNECT_TIMEOUT_S,
        max_pool_connections=max(2 * settings.max_concurrency, _MIN_CONNECTIONS),
        tcp_keepalive=True,
        **options,
    )
    with translated("use", "s3://"):
        session = new_session()
        try:
            client = session.client("s3", endpoint_url=settings.endpoint_url, config=config)
        except ValueError as e:
            raise ConfigError(
                f"The setting aws_s3.endpoint_url is {settings.endpoint_url!r}: {e}. Write it like https://HOST:PORT."
            ) from e
        return Store(settings, session, client)
