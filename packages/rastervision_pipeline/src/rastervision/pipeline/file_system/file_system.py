"""The interface of a file system: what Raster Vision needs to do with URIs of one kind.

All methods are static: a file system has no state, and is chosen by URI (`FileSystem.get_file_system`).
To add one, subclass this and declare it under the entry-point group ``rastervision.file_systems`` with its
URI scheme as name.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rastervision.pipeline.errors import NotReadableError, NotWritableError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

__all__ = ["FileInfo", "FileSystem", "NotReadableError", "NotWritableError"]


@dataclass(frozen=True)
class FileInfo:
    """What is known of a file or folder without reading it.

    Args:
        tag: Text that changes when the content does: size and time of last change, or an etag; None if not known.
        is_dir: Whether it is a folder.
    """

    tag: str | None = None
    is_dir: bool = False


class FileSystem(ABC):
    """Base of all file systems."""

    @staticmethod
    def get_file_system(uri: str, mode: str = "r") -> type[FileSystem]:
        """Return the file system for a URI; ``mode`` is "r" to read or "w" to write.

        Raises:
            RegistryError: No installed file system matches.
        """
        from rastervision.pipeline.registry import registry_

        return registry_.get_file_system(uri, mode)

    @staticmethod
    @abstractmethod
    def matches_uri(uri: str, mode: str) -> bool:
        """Return whether this file system can open the URI in mode "r" or "w"."""

    @staticmethod
    @abstractmethod
    def file_exists(uri: str, include_dir: bool = True) -> bool:
        """Return whether there is a file at the URI (or a folder, if ``include_dir``)."""

    @staticmethod
    @abstractmethod
    def read_str(uri: str) -> str:
        """Return the content of a UTF-8 text file; raise `NotReadableError` if that fails."""

    @staticmethod
    @abstractmethod
    def read_bytes(uri: str) -> bytes:
        """Return the content of a file; raise `NotReadableError` if that fails."""

    @staticmethod
    @abstractmethod
    def write_str(uri: str, data: str) -> None:
        """Write a UTF-8 text file, replacing what was there; raise `NotWritableError` if that fails."""

    @staticmethod
    @abstractmethod
    def write_bytes(uri: str, data: bytes) -> None:
        """Write a file, replacing what was there; raise `NotWritableError` if that fails."""

    @staticmethod
    @abstractmethod
    def sync_to_dir(src_dir: str, dst_dir_uri: str, delete: bool = False) -> None:
        """Copy the files below a local folder to a folder at a URI.

        Args:
            src_dir: The local folder.
            dst_dir_uri: Where to; made if need be.
            delete: Remove files at the destination that the source does not have.
        """

    @staticmethod
    @abstractmethod
    def sync_from_dir(src_dir_uri: str, dst_dir: str, delete: bool = False) -> None:
        """Copy the files below a folder at a URI to a local folder; see `sync_to_dir`."""

    @staticmethod
    @abstractmethod
    def copy_to(src_path: str, dst_uri: str) -> None:
        """Copy a local file (or folder, with its files) to a URI."""

    @staticmethod
    @abstractmethod
    def copy_from(src_uri: str, dst_path: str) -> None:
        """Copy the file at a URI to a local path, under which it appears only once it is whole."""

    @staticmethod
    @abstractmethod
    def local_path(uri: str, download_dir: str) -> str:
        """Return where a file is, or would be put by a download into ``download_dir``."""

    @staticmethod
    @abstractmethod
    def last_modified(uri: str) -> datetime | None:
        """Return when a file was last changed, with time zone; None if that is not known."""

    @staticmethod
    @abstractmethod
    def list_paths(uri: str, ext: str | None = None) -> list[str]:
        """Return the sorted URIs of the entries of a folder whose names end in ``ext``."""

    @staticmethod
    def gdal_options(uri: str) -> dict[str, str]:
        """Return GDAL's configuration options with which it can read what is at a URI where it is.

        Asked for whenever an image is opened or read, because credentials expire.
        """
        return {}

    # -- what planning asks; file systems that know sizes, dates or etags override these ------------------------

    @classmethod
    def file_info(cls, uri: str) -> FileInfo | None:
        """Return what is at a URI; None if there is nothing.

        Raises:
            Exception: It cannot be told, for want of permission or of a network, say.
        """
        return FileInfo() if cls.file_exists(uri) else None

    @classmethod
    def folder_info(cls, uri: str) -> FileInfo | None:
        """Return what is known of all that is in a folder, hidden entries left out; None if there is nothing.

        Raises:
            Exception: It cannot be told.
        """
        if paths := sorted(cls.list_paths(uri)):
            return FileInfo(hashlib.sha256("\n".join(paths).encode()).hexdigest()[:16], is_dir=True)
        return FileInfo() if cls.file_exists(uri, include_dir=False) else None

    @classmethod
    def files_info(cls, uris: Iterable[str]) -> dict[str, FileInfo | Exception | None]:
        """Return `file_info` of many URIs, or why it cannot be told.

        Here a folder is listed if many of the URIs are in it, and the other URIs are asked for in parallel. An
        override that lists folders should give the same tags as `file_info`.
        """
        from rastervision.pipeline.file_system.many import files_info

        return files_info(cls, uris)
