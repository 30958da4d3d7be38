"""Files in Amazon S3, and in stores that speak its language: ``s3://BUCKET/KEY``."""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from rastervision.aws_s3 import sync
from rastervision.aws_s3.client import get_store, new_session
from rastervision.aws_s3.errors import translated
from rastervision.aws_s3.gdal import gdal_options
from rastervision.aws_s3.many import files_info
from rastervision.aws_s3.objects import ask, find, list_objects, list_pages
from rastervision.aws_s3.transfer import download, read, transfers, upload, write, write_new
from rastervision.pipeline.errors import NotReadableError, NotWritableError
from rastervision.pipeline.file_system import FileInfo, FileSystem, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rastervision.aws_s3.client import Store

__all__ = ["AWS_S3", "S3FileSystem", "get_matching_s3_keys", "get_matching_s3_objects", "progressbar"]

AWS_S3 = "aws_s3"

_SCHEME = "s3://"


def get_matching_s3_objects(
    bucket: str, prefix: str = "", suffix: str = "", delimiter: str = "/", request_payer: str = "None"
) -> Iterator[tuple[str, Any]]:
    """Yield the key and a description of each object, and of each folder, whose key begins and ends in some way.

    Args:
        bucket: Name of the bucket.
        prefix: How the keys begin.
        suffix: How the keys end.
        delimiter: Folders are not gone into: of keys that have it after the prefix, the part up to it is given once.
            With "" all objects are given.
        request_payer: "requester" to pay for the requests, whatever the settings say.
    """
    store = get_store()
    args = {**store.read_args, **({"RequestPayer": request_payer} if request_payer == "requester" else {})}
    pages = store.client.get_paginator("list_objects_v2").paginate
    with _reading(f"{_SCHEME}{bucket}/{prefix}", store, "list"):
        for page in pages(Bucket=bucket, Prefix=prefix, Delimiter=delimiter, **args):
            for kind, name in (("CommonPrefixes", "Prefix"), ("Contents", "Key")):
                for found in page.get(kind, []):
                    if found[name].endswith(suffix):
                        yield found[name], found


def get_matching_s3_keys(
    bucket: str, prefix: str = "", suffix: str = "", delimiter: str = "/", request_payer: str = "None"
) -> Iterator[str]:
    """Yield the keys that `get_matching_s3_objects` gives."""
    for key, _ in get_matching_s3_objects(bucket, prefix, suffix, delimiter, request_payer):
        yield key


@contextmanager
def progressbar(total_size: int, desc: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that moves a progress bar on by a number of bytes; any thread may call it."""
    from rastervision.pipeline.progress import progress

    with progress(desc, total=total_size or None, unit="bytes") as advance:
        yield lambda n: advance(n)


@contextmanager
def _reading(uri: str, store: Store, action: str = "read") -> Iterator[None]:
    with translated(action, uri, endpoint=store.client.meta.endpoint_url):
        yield


@contextmanager
def _writing(uri: str, store: Store, action: str = "write") -> Iterator[None]:
    with translated(action, uri, writing=True, endpoint=store.client.meta.endpoint_url):
        yield


@contextmanager
def _reading_here(path: str) -> Iterator[None]:
    try:
        yield
    except (ConnectionError, TimeoutError):
        raise  # of the store
    except OSError as e:
        raise NotReadableError(f"Cannot read {e.filename or path}: {_text(e)}.") from e


def _file_parts(uri: str, error: type[NotReadableError | NotWritableError]) -> tuple[str, str]:
    bucket, key = S3FileSystem.parse_uri(uri)
    if not key or key.endswith("/"):
        raise error(f"{uri} is a folder, not a file. A file is s3://BUCKET/KEY, without a slash at its end.")
    return bucket, key


def _folder_parts(uri: str) -> tuple[str, str]:
    """Return the bucket, and the prefix of keys in the folder: empty, or with one slash at its end."""
    bucket, key = S3FileSystem.parse_uri(uri)
    return bucket, key if not key or key.endswith("/") else f"{key}/"


class S3FileSystem(FileSystem):
    """Objects of S3 as files; the parts of keys before slashes are their folders.

    What is written appears once it is whole. Errors that pass are tried again; the others are raised as
    `NotReadableError` or `NotWritableError`.
    """

    @staticmethod
    def get_session() -> Any:
        """Return a new session of boto3."""
        return new_session()

    @staticmethod
    def get_client() -> Any:
        """Return the client of boto3 for the settings of now; threads may share it."""
        return get_store().client

    @staticmethod
    def get_request_payer() -> str:
        """Return "requester" if we pay for requests, else "None"."""
        return "requester" if get_store().settings.requester_pays else "None"

    @staticmethod
    def parse_uri(uri: str) -> tuple[str, str]:
        """Return bucket and key.

        Raises:
            NotReadableError: It is no URI of S3, or names no bucket.
        """
        bucket, _, key = uri[len(_SCHEME) :].partition("/")
        if not S3FileSystem.matches_uri(uri, "r") or not bucket:
            raise NotReadableError(f"{uri!r} does not name a bucket. Write s3://BUCKET/KEY.")
        return bucket, key

    @staticmethod
    @override
    def matches_uri(uri: str, mode: str) -> bool:
        return uri[: len(_SCHEME)].lower() == _SCHEME

    @staticmethod
    @override
    def file_exists(uri: str, include_dir: bool = True) -> bool:
        info = S3FileSystem.file_info(uri)
        return info is not None and (include_dir or not info.is_dir)

    @staticmethod
    @override
    def read_str(uri: str) -> str:
        try:
            return S3FileSystem.read_bytes(uri).decode()
        except UnicodeDecodeError as e:
            raise NotReadableError(f"{uri} is not a UTF-8 text file.") from e

    @staticmethod
    @override
    def read_bytes(uri: str) -> bytes:
        bucket, key = _file_parts(uri, NotReadableError)
        store = get_store()
        with _reading(uri, store):
            return read(store, bucket, key)

    @staticmethod
    @override
    def write_str(uri: str, data: str) -> None:
        S3FileSystem.write_bytes(uri, data.encode())

    @staticmethod
    @override
    def write_bytes(uri: str, data: bytes) -> None:
        bucket, key = _file_parts(uri, NotWritableError)
        store = get_store()
        with _writing(uri, store):
            write(store, bucket, key, data)

    @staticmethod
    def write_new(uri: str, data: bytes) -> bool:
        """Write a file if there is none at the URI, and return whether it was written: of several, one succeeds."""
        bucket, key = _file_parts(uri, NotWritableError)
        store = get_store()
        with _writing(uri, store):
            return write_new(store, bucket, key, data)

    @staticmethod
    @override
    def sync_to_dir(src_dir: str, dst_dir_uri: str, delete: bool = False) -> None:
        """Copy the files below a local folder that differ from those there in size or checksum.

        Args:
            src_dir: The local folder.
            dst_dir_uri: Where to.
            delete: Remove files at the destination that the source does not have.
        """
        if not os.path.isdir(src_dir):
            raise NotReadableError(f"Cannot sync from {src_dir}: there is no such folder.")
        store = get_store()
        with _writing(dst_dir_uri, store, f"sync {src_dir} to"), _reading_here(src_dir):
            sync.sync_up(store, src_dir, *_folder_parts(dst_dir_uri), delete=delete)

    @staticmethod
    @override
    def sync_from_dir(src_dir_uri: str, dst_dir: str, delete: bool = False) -> None:
        """Copy the files below a folder that differ from those here in size or checksum; see `sync_to_dir`.

        Raises:
            NotReadableError: There is nothing in the folder, or it has files that cannot be files here.
        """
        store = get_store()
        try:
            with _reading(src_dir_uri, store, "sync from"):
                found = sync.sync_down(store, *_folder_parts(src_dir_uri), dst_dir, delete=delete)
        except OSError as e:
            raise NotWritableError(f"Cannot sync {src_dir_uri} to {dst_dir}: {_text(e)}.") from e
        if not found:
            raise NotReadableError(f"Cannot sync from {src_dir_uri}: there is nothing. Check the URI.")

    @staticmethod
    @override
    def copy_to(src_path: str, dst_uri: str) -> None:
        if os.path.isdir(src_path):
            S3FileSystem.sync_to_dir(src_path, dst_uri)
            return
        if not os.path.isfile(src_path):
            raise NotReadableError(f"Cannot copy {src_path}: there is no such file.")
        bucket, key = _file_parts(dst_uri, NotWritableError)
        store = get_store()
        with (
            _writing(dst_uri, store),
            _reading_here(src_path),
            progressbar(os.path.getsize(src_path), f"upload {_name(dst_uri)}") as advance,
            transfers(store) as manager,
        ):
            upload(store, manager, src_path, bucket, key, advance)

    @staticmethod
    @override
    def copy_from(src_uri: str, dst_path: str) -> None:
        bucket, key = _file_parts(src_uri, NotReadableError)
        store = get_store()
        try:
            with _reading(src_uri, store):
                obj = ask(store, bucket, key)
                with (
                    replacing(dst_path) as tmp,
                    progressbar(obj.size, f"download {_name(src_uri)}") as advance,
                    transfers(store) as manager,
                ):
                    download(store, manager, obj, tmp, advance)
        except OSError as e:
            raise NotWritableError(f"Cannot write {dst_path}: {_text(e)}.") from e

    @staticmethod
    @override
    def local_path(uri: str, download_dir: str) -> str:
        bucket, key = S3FileSystem.parse_uri(uri)
        # names that a local path cannot have; the same name for different keys would mix up their downloads
        stand_ins = {"": "%2F", ".": "%2E", "..": "%2E%2E"}
        parts = [stand_ins.get(part, part) for part in key.rstrip("/").split("/")] if key.rstrip("/") else []
        return os.path.join(download_dir, "s3", bucket, *parts)

    @staticmethod
    @override
    def last_modified(uri: str) -> datetime:
        bucket, key = _file_parts(uri, NotReadableError)
        store = get_store()
        with _reading(uri, store):
            return datetime.fromtimestamp(ask(store, bucket, key).mtime, tz=UTC)

    @staticmethod
    def list_paths(uri: str, ext: str | None = "", delimiter: str = "/") -> list[str]:
        """Return the sorted URIs of the entries of a folder whose names end in ``ext``.

        Args:
            uri: The folder.
            ext: How the names end; those of folders end in "/".
            delimiter: With "", the files in all folders below are listed.
        """
        bucket, prefix = _folder_parts(uri)
        store, found = get_store(), set[str]()
        with _reading(uri, store, "list"):
            for folders, objects in list_pages(store, bucket, prefix, delimiter):
                found.update(folders, (obj.key for obj in objects))
        # consoles mark empty folders by an object with their name
        found.discard(prefix)
        return sorted(f"{_SCHEME}{bucket}/{key}" for key in found if key.endswith(ext or ""))

    @classmethod
    @override
    def file_info(cls, uri: str) -> FileInfo | None:
        bucket, key = cls.parse_uri(uri)
        store = get_store()
        with _reading(uri, store):
            if not key:
                return FileInfo(is_dir=True) if _is_bucket(store, bucket) else None
            if not key.endswith("/") and (obj := find(store, bucket, key)) is not None:
                return FileInfo(obj.etag or None)
            pages = list_pages(store, bucket, _folder_parts(uri)[1], max_keys=1)
            return FileInfo(is_dir=True) if any(objects for _, objects in pages) else None

    @classmethod
    @override
    def folder_info(cls, uri: str) -> FileInfo | None:
        bucket, prefix = _folder_parts(uri)
        store, digest, is_empty = get_store(), hashlib.sha256(), True
        with _reading(uri, store, "list"):
            for obj in list_objects(store, bucket, prefix):
                name = obj.key.removeprefix(prefix)
                if name and not any(part.startswith(".") for part in name.split("/")):
                    digest.update(f"{name}\0{obj.etag or obj.mtime}\n".encode())
                    is_empty = False
        if not is_empty:
            return FileInfo(digest.hexdigest()[:16], is_dir=True)
        info = cls.file_info(uri)
        return None if info is None or info.is_dir else info

    @classmethod
    @override
    def files_info(cls, uris: Iterable[str]) -> dict[str, FileInfo | Exception | None]:
        return files_info(cls, uris)

    @staticmethod
    @override
    def gdal_options(uri: str) -> dict[str, str]:
        """Return GDAL's configuration options for the store of the settings, with credentials that are valid now."""
        store = get_store()
        with _reading(uri, store):
            return gdal_options(store)


def _is_bucket(store: Store, bucket: str) -> bool:
    try:
        store.client.list_objects_v2(Bucket=bucket, MaxKeys=1, **store.read_args)
        return True
    except store.client.exceptions.NoSuchBucket:
        return False


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]


def _text(e: OSError) -> str:
    return (e.strerror or str(e)).lower()
