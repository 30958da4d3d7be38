"""Bytes to and from S3, whole or not at all: in parts, side by side, tried again, and compared with checksums."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rastervision.aws_s3.checksum import num_parts, size_of
from rastervision.aws_s3.client import PART_SIZE
from rastervision.aws_s3.errors import code_of
from rastervision.aws_s3.objects import S3Object, ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rastervision.aws_s3.client import Store

__all__ = ["download", "read", "transfers", "upload", "write", "write_new"]

log = logging.getLogger(__name__)

_ATTEMPTS = 5
_FIRST_WAIT_S = 0.25
_BLOCK = 1 << 20
_CHANGED = frozenset({"412", "PreconditionFailed", "416", "InvalidRange"})


@contextmanager
def transfers(store: Store) -> Iterator[Any]:
    """Yield a transfer manager; what is under way is cancelled, and leaves nothing, if an error passes."""
    from boto3.s3.transfer import create_transfer_manager

    with create_transfer_manager(store.client, store.transfer_config()) as manager:
        yield manager


def _subscribers(progress: Callable[[int], Any] | None, obj: S3Object | None = None) -> list[Any]:
    from s3transfer.subscribers import BaseSubscriber

    class Known(BaseSubscriber):
        """Tells the transfer manager what it would ask S3 for."""

        def on_queued(self, future: Any, **kwargs: Any) -> None:
            if obj is not None:
                future.meta.provide_transfer_size(obj.size)
                future.meta.provide_object_etag(obj.etag)

        def on_progress(self, bytes_transferred: int, **kwargs: Any) -> None:
            if progress is not None:
                progress(bytes_transferred)

    return [Known()]


# -- reading -----------------------------------------------------------------------------------------------------------


def read(store: Store, bucket: str, key: str) -> bytes:
    """Return the content of an object. A body that breaks is read on from there, if the object is still the same."""
    from botocore.exceptions import (
        ClientError,
        FlexibleChecksumError,
        HTTPClientError,
        IncompleteReadError,
        ResponseStreamingError,
    )

    data, etag, before = bytearray(), "", None
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            here = {"Range": f"bytes={len(data)}-", "IfMatch": etag} if data else {}
            answer = store.client.get_object(Bucket=bucket, Key=key, **store.read_args, **here)
            etag, is_continued = answer.get("ETag", ""), "ContentRange" in answer
            if not is_continued:
                data.clear()
            for block in answer["Body"].iter_chunks(_BLOCK):
                data += block
            # boto3 compares what was written and comes in one piece
            obj = replace(S3Object.of_answer(bucket, key, answer), size=len(data))
            is_compared = not is_continued and num_parts(etag) is None and obj.crc32 is not None
            if is_compared or obj.holds(store, data) is not False:
                return bytes(data)
            digest = hashlib.sha256(data).digest()
            if digest == before and obj.crc32 is None:  # then the etag is not what it seems to be
                return bytes(data)
            before = digest
            data.clear()
        except (ClientError, FlexibleChecksumError) as e:
            # another object is there now, or it came damaged
            if attempt == _ATTEMPTS or (isinstance(e, ClientError) and not (data and code_of(e) in _CHANGED)):
                raise
            data.clear()
        except (HTTPClientError, IncompleteReadError, ResponseStreamingError, ConnectionError, TimeoutError) as e:
            if attempt == _ATTEMPTS:
                raise
            log.debug("reading s3://%s/%s broke after %d bytes: %s", bucket, key, len(data), e)
        time.sleep(_FIRST_WAIT_S * 2 ** (attempt - 1))
    raise ConnectionError("what was read was damaged each time")


def download(
    store: Store, manager: Any, obj: S3Object, path: str, progress: Callable[[int], Any] | None = None
) -> S3Object:
    """Write an object to a local path, compare what came with its checksum, and return what was read.

    It may be another object than the given one, if that was replaced.

    Args:
        store: Where it is.
        manager: What `transfers` gave; reads large objects in parts, side by side.
        obj: What to read.
        path: Where to; its folder must be there.
        progress: Called with the number of bytes that came.

    Raises:
        ConnectionError: It came damaged each time.
    """
    from botocore.exceptions import FlexibleChecksumError
    from s3transfer.exceptions import S3DownloadFailedError

    before = None
    for is_last in (False, False, True):
        try:
            future = manager.download(obj.bucket, obj.key, path, store.read_args, _subscribers(progress, obj))
            future.result()
            if _is_whole(store, obj, path):
                return obj
            digest = _digest(path)
            # if the same comes twice, then the etag is not what it seems to be
            if digest == before and obj.crc32 is None and os.path.getsize(path) == obj.size:
                return obj
            before = digest
        except (FlexibleChecksumError, S3DownloadFailedError):
            if is_last:
                raise
        log.debug("s3://%s/%s did not come as it is there", obj.bucket, obj.key)
        # it may have been replaced since it was listed
        obj = ask(store, obj.bucket, obj.key)
    raise ConnectionError("what was read was damaged each time")


def _is_whole(store: Store, obj: S3Object, path: str) -> bool:
    return os.path.getsize(path) == obj.size and obj.holds(store, path) is not False


def _digest(path: str) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


# -- writing: S3 shows an object once it is complete, and forgets the parts of one that is given up --------------------


def write(store: Store, bucket: str, key: str, data: bytes) -> None:
    """Write an object, replacing what was there."""
    if len(data) < PART_SIZE:
        store.client.put_object(Bucket=bucket, Key=key, Body=data, **store.write_args)
        return
    with transfers(store) as manager:
        upload(store, manager, data, bucket, key)


def upload(
    store: Store,
    manager: Any,
    source: str | bytes,
    bucket: str,
    key: str,
    progress: Callable[[int], Any] | None = None,
) -> None:
    """Write an object, replacing what was there.

    Args:
        store: Where to.
        manager: What `transfers` gave; sends large objects in parts, side by side.
        source: Path of a local file, or the content itself.
        bucket: Name of the bucket.
        key: Name of the object.
        progress: Called with the number of bytes that went.
    """
    from botocore.exceptions import ClientError

    content = source if isinstance(source, str) else io.BytesIO(source)
    try:
        manager.upload(content, bucket, key, store.write_args, _subscribers(progress)).result()
    except ClientError as e:
        # the answer to the request that completes an upload may be lost, and the second such request refused
        if code_of(e) != "NoSuchUpload" or not _is_there(store, source, bucket, key):
            raise


def _is_there(store: Store, source: str | bytes, bucket: str, key: str) -> bool:
    from botocore.exceptions import ClientError

    with suppress(ClientError):
        obj = ask(store, bucket, key)
        return obj.size == size_of(source) and obj.holds(store, source) is True
    return False


def write_new(store: Store, bucket: str, key: str, data: bytes) -> bool:
    """Write an object if there is none with its key; return whether it was written."""
    from botocore.exceptions import ClientError

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            store.client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*", **store.write_args)
            return True
        except ClientError as e:
            if code_of(e) in ("412", "PreconditionFailed"):
                # an attempt that boto3 made before may have been ours, with its answer lost
                is_second = e.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) > 0
                return is_second and read(store, bucket, key) == data
            if code_of(e) not in ("409", "ConditionalRequestConflict") or attempt == _ATTEMPTS:
                raise
        time.sleep(_FIRST_WAIT_S * 2 ** (attempt - 1))
    return False
