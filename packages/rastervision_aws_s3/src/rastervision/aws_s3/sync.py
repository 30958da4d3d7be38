"""Bring a local folder and a folder of S3 together: only what differs is copied, many files side by side."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from rastervision.aws_s3.objects import S3Object, list_objects
from rastervision.aws_s3.transfer import download, transfers, upload
from rastervision.pipeline.errors import NotReadableError
from rastervision.pipeline.file_system.atomic import TMP_PREFIX, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from rastervision.aws_s3.client import Store

__all__ = ["sync_down", "sync_up"]

_KEYS_PER_DELETE = 1000  # the most that S3 takes

T = TypeVar("T")


def sync_up(store: Store, src_dir: str, bucket: str, prefix: str, delete: bool) -> None:
    """Copy the files below a local folder to the keys that begin with a prefix, which is empty or ends in "/"."""
    files = _files_below(src_dir)
    there = {obj.key.removeprefix(prefix): obj for obj in list_objects(store, bucket, prefix)}

    def send(name: str) -> None:
        try:
            if name not in there or not _is_same(store, files[name], there[name], lambda here, there: here <= there):
                upload(store, manager, files[name], bucket, prefix + name)
        except FileNotFoundError:
            # a folder that is synced while a program works in it may lose files between listing and copying
            if os.path.exists(files[name]):
                raise

    with transfers(store) as manager:
        _for_each(send, files, store.settings.max_concurrency)
    if delete:
        _delete(store, bucket, [obj.key for name, obj in there.items() if name and name not in files])


def _for_each(action: Callable[[T], None], items: Iterable[T], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(action, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _files_below(folder: str) -> dict[str, str]:
    """Return path below a folder, with "/", -> local path; files that are not finished are left out."""
    out = {}
    for root, _, names in os.walk(folder, followlinks=True):
        for name in names:
            if not name.startswith(TMP_PREFIX):
                path = os.path.join(root, name)
                out[os.path.relpath(path, folder).replace(os.sep, "/")] = path
    return dict(sorted(out.items()))


def _is_same(store: Store, path: str, obj: S3Object, has_date: Callable[[float, float], bool]) -> bool:
    """Whether a local file is what an object is; ``has_date`` is asked with both dates if the checksum cannot tell."""
    local = os.stat(path)
    if local.st_size != obj.size:
        return False
    same = obj.holds(store, path)
    return has_date(local.st_mtime, obj.mtime) if same is None else same


def _delete(store: Store, bucket: str, keys: list[str]) -> None:
    from botocore.exceptions import ClientError

    for i in range(0, len(keys), _KEYS_PER_DELETE):
        objects = [{"Key": key} for key in keys[i : i + _KEYS_PER_DELETE]]
        answer = store.client.delete_objects(
            Bucket=bucket, Delete={"Objects": objects, "Quiet": True}, **store.read_args
        )
        if failed := answer.get("Errors"):
            raise ClientError({**answer, "Error": failed[0]}, "DeleteObjects")


def sync_down(store: Store, bucket: str, prefix: str, dst_dir: str, delete: bool) -> bool:
    """Copy the objects whose keys begin with a prefix below a local folder; they get the dates of the objects.

    Returns:
        Whether there was anything; if not, nothing is done.

    Raises:
        NotReadableError: A key cannot be the path of a file.
    """
    root = os.path.realpath(dst_dir)
    listed = list(list_objects(store, bucket, prefix))
    if not listed:
        return False
    # keys that end in "/" are made by consoles to show empty folders
    there = {_path_below(root, obj, prefix): obj for obj in listed if not obj.key.endswith("/")}
    os.makedirs(root, exist_ok=True)

    def fetch(path: str) -> None:
        obj = there[path]
        if os.path.isfile(path) and _is_same(store, path, obj, lambda here, there: int(here) == int(there)):
            return
        with replacing(path) as tmp:
            obj = download(store, manager, obj, tmp)
            os.utime(tmp, (obj.mtime, obj.mtime))

    with transfers(store) as manager:
        _for_each(fetch, there, store.settings.max_concurrency)
    if delete:
        _delete_local(root, there)
    return True


def _path_below(root: str, obj: S3Object, prefix: str) -> str:
    parts = obj.key.removeprefix(prefix).split("/")
    if any(part in ("", ".", "..") or os.path.split(part)[0] or os.path.splitdrive(part)[0] for part in parts):
        raise NotReadableError(
            f"Cannot copy s3://{obj.bucket}/{obj.key} with its folder: the key cannot be the path of a file below "
            f"{prefix or 'the bucket'}. Rename it, or copy the other files one by one."
        )
    return os.path.join(root, *parts)


def _delete_local(root: str, wanted: Collection[str]) -> None:
    for folder, _, names in os.walk(root, topdown=False):
        for path in (os.path.join(folder, name) for name in names):
            if path not in wanted:
                os.remove(path)
        if folder != root and not os.listdir(folder):
            os.rmdir(folder)
