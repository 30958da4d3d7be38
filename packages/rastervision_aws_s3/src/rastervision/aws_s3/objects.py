"""What S3 tells of objects, and whether local content is theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rastervision.aws_s3.checksum import Content, matches_crc32, matches_etag, num_parts
from rastervision.aws_s3.client import PART_SIZE
from rastervision.aws_s3.errors import code_of, is_missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rastervision.aws_s3.client import Store

__all__ = ["S3Object", "ask", "find", "list_objects", "list_pages"]


@dataclass(frozen=True)
class S3Object:
    """What S3 tells of an object.

    Args:
        bucket: Name of the bucket.
        key: Name in the bucket.
        size: In bytes.
        mtime: When it was written, in seconds since 1970.
        etag: As S3 writes it, in quotes; "" if there is none.
        crc32: As S3 writes it; None if it was not asked for, or is not known.
        is_encrypted: Whether it was encrypted in a way with which the etag is no checksum; None if not asked for.
    """

    bucket: str
    key: str
    size: int
    mtime: float
    etag: str
    crc32: str | None = None
    is_encrypted: bool | None = None

    @classmethod
    def of_answer(cls, bucket: str, key: str, answer: dict[str, Any]) -> S3Object:
        """Return what the answer to HEAD or GET tells."""
        encryption = answer.get("ServerSideEncryption", "AES256")
        return cls(
            bucket,
            key,
            answer["ContentLength"],
            answer["LastModified"].timestamp(),
            answer.get("ETag", ""),
            answer.get("ChecksumCRC32"),
            encryption != "AES256" or "SSECustomerAlgorithm" in answer,
        )

    def holds(self, store: Store, content: Content) -> bool | None:
        """Return whether content of the object's size is that of the object; None if that cannot be told.

        Args:
            store: Where the object is; asked for what is not known yet.
            content: Path of a local file, or data.
        """
        same = self._matches(content, PART_SIZE)
        if not same and num_parts(self.etag) is not None:
            same = self._matches(content, self._part_size(store))
        # an etag may be no checksum, a CRC32 always is one
        if same is False and self.crc32 is None and self._etag_is_no_checksum(store):
            return None
        return same

    def _matches(self, content: Content, part_size: int) -> bool | None:
        if self.crc32 is None:
            return matches_etag(content, self.etag, part_size)
        is_of_parts = num_parts(self.etag) is not None
        if matches_crc32(content, self.crc32, part_size if is_of_parts else None):
            return True
        return bool(matches_etag(content, self.etag, part_size))

    def _part_size(self, store: Store) -> int:
        """Return the size of the first part; other programs write parts of other sizes."""
        from botocore.exceptions import ClientError

        args = {"Bucket": self.bucket, "Key": self.key, "PartNumber": 1}
        try:
            return int(store.client.head_object(**args, **store.read_args)["ContentLength"])
        except ClientError:
            return PART_SIZE  # a store that does not tell

    def _etag_is_no_checksum(self, store: Store) -> bool:
        if self.is_encrypted is not None:
            return self.is_encrypted
        found = find(store, self.bucket, self.key)
        return found is None or bool(found.is_encrypted)


def ask(store: Store, bucket: str, key: str) -> S3Object:
    """Return what S3 tells of the object with a key, its checksum included."""
    from botocore.exceptions import ClientError

    try:
        answer = store.client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED", **store.read_args)
    except ClientError as e:
        raise _why(store, bucket, key, e) from e
    return S3Object.of_answer(bucket, key, answer)


def find(store: Store, bucket: str, key: str) -> S3Object | None:
    """Return what S3 tells of the object with a key, without its checksum; None if there is none, or no bucket."""
    from botocore.exceptions import ClientError

    try:
        answer = store.client.head_object(Bucket=bucket, Key=key, **store.read_args)
    except ClientError as e:
        if is_missing(e):
            return None
        raise _why(store, bucket, key, e) from e
    return S3Object.of_answer(bucket, key, answer)


def _why(store: Store, bucket: str, key: str, error: Exception) -> Exception:
    """Return a better error: answers to HEAD have no text, but a listing that is refused too says why."""
    from botocore.exceptions import ClientError

    try:
        store.client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1, **store.read_args)
    except ClientError as e:
        return error if code_of(e) in ("403", "AccessDenied") else e
    return error


def list_pages(
    store: Store, bucket: str, prefix: str = "", delimiter: str = "", max_keys: int | None = None
) -> Iterator[tuple[list[str], list[S3Object]]]:
    """Yield pages of a listing: the folders (which end in the delimiter), and the objects.

    Args:
        store: What to ask.
        bucket: Name of the bucket.
        prefix: How the keys begin.
        delimiter: With "/", keys that have one after the prefix are left out, and their folders are told instead.
        max_keys: How many to give at most.
    """
    pages = store.client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket,
        Prefix=prefix,
        Delimiter=delimiter,
        PaginationConfig={} if max_keys is None else {"MaxItems": max_keys, "PageSize": max_keys},
        **store.read_args,
    )
    for page in pages:
        folders = [item["Prefix"] for item in page.get("CommonPrefixes", [])]
        found = page.get("Contents", [])
        yield (
            folders,
            [S3Object(bucket, o["Key"], o["Size"], o["LastModified"].timestamp(), o.get("ETag", "")) for o in found],
        )


def list_objects(store: Store, bucket: str, prefix: str) -> Iterator[S3Object]:
    """Yield all objects whose keys begin with a prefix, in order of their keys."""
    for _, objects in list_pages(store, bucket, prefix):
        yield from objects
