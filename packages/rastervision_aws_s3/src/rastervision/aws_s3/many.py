"""Ask S3 for many files at once: a listing tells of a thousand with one request, etags included."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rastervision.aws_s3.client import get_store
from rastervision.aws_s3.objects import list_pages
from rastervision.pipeline.errors import RasterVisionError
from rastervision.pipeline.file_system.file_system import FileInfo
from rastervision.pipeline.file_system.many import MIN_FILES_TO_LIST, info_or_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rastervision.aws_s3.client import Store
    from rastervision.aws_s3.s3_file_system import S3FileSystem

__all__ = ["files_info"]

log = logging.getLogger(__name__)

_MAX_THREADS = 32
# how many requests for one file each a page of a listing may replace
_FILES_PER_PAGE = 4


def files_info(fs: type[S3FileSystem], uris: Iterable[str]) -> dict[str, FileInfo | Exception | None]:
    """Return what is at each URI, None for nothing, or the error that says why it cannot be told."""
    uris = list(dict.fromkeys(uris))
    by_folder: dict[str, list[str]] = {}
    for uri in uris:
        by_folder.setdefault(uri.rpartition("/")[0], []).append(uri)
    out: dict[str, FileInfo | Exception | None] = {}
    with ThreadPoolExecutor(_MAX_THREADS) as pool:
        many = [group for group in by_folder.values() if len(group) >= MIN_FILES_TO_LIST]
        for found in pool.map(lambda group: _from_listing(fs, group), many):
            out |= found
        left = [uri for uri in uris if uri not in out]
        out |= zip(left, pool.map(lambda uri: info_or_error(fs, uri), left), strict=True)
    return {uri: out[uri] for uri in uris}


def _from_listing(fs: type[S3FileSystem], uris: list[str]) -> dict[str, FileInfo | None]:
    """Return what the listing of a folder tells of files in it; less if the folder is large or cannot be listed."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        bucket = fs.parse_uri(uris[0])[0]
        by_key = {fs.parse_uri(uri)[1]: uri for uri in uris}
        by_key.pop("", None)
        keys = [key for key in by_key if not key.endswith("/")]
        found = _list_some(get_store(), bucket, keys) if keys else {}
    except (BotoCoreError, ClientError, RasterVisionError) as e:
        log.debug("cannot list the folder of %s, asking for each file: %s", uris[0], e)
        return {}
    return {by_key[key]: info for key, info in found.items()}


def _list_some(store: Store, bucket: str, keys: list[str]) -> dict[str, FileInfo | None]:
    wanted, found = set(keys), dict[str, FileInfo | None]()
    pages_left, last, is_complete = 1 + len(keys) // _FILES_PER_PAGE, "", True
    prefix = os.path.commonprefix(keys)  # noqa: RUF071, by characters, as S3 does
    for folders, objects in list_pages(store, bucket, prefix, "/"):
        if pages_left == 0:
            is_complete = False
            break
        pages_left -= 1
        for obj in objects:
            if obj.key in wanted:
                found[obj.key] = FileInfo(obj.etag or None)
        for folder in folders:
            if (name := folder.removesuffix("/")) in wanted:
                found.setdefault(name, FileInfo(is_dir=True))
        last = max([last, *folders, *(obj.key for obj in objects)])
    # a folder comes after files that begin with its name
    missing = {key: None for key in keys if key not in found and (is_complete or f"{key}/" < last)}
    return {**missing, **found}
