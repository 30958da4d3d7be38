"""Open raster files: handles for several threads and processes, and errors that name the file."""

from __future__ import annotations

import os
import threading
import warnings
from collections import deque
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import NotReadableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rasterio.io import DatasetReader
    from rasterio.session import Session

__all__ = ["DatasetPool", "georeference_not_needed", "get_aws_session", "get_store_session", "open_image"]

_warnings_lock = threading.RLock()


def _renew_lock() -> None:
    """In a forked process, the thread that held the lock does not exist."""
    global _warnings_lock
    _warnings_lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)

# handles that came over a fork: closing one could wait for a lock that no thread of this process holds
_inherited: list[Any] = []


@contextmanager
def georeference_not_needed() -> Iterator[None]:
    """Mute rasterio's warning that a raster is not georeferenced, in one thread at a time.

    The filters of warnings belong to the process: two threads that change them side by side undo each other's
    changes. rasterio itself changes them when it burns shapes.
    """
    from rasterio.errors import NotGeoreferencedWarning

    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def open_image(uri: str, session: Session | None = None) -> DatasetReader:
    """Open a raster file for reading; without the warning that plain images are not georeferenced.

    Args:
        uri: Local path, or URL that GDAL can stream.
        session: Credentials of the store, if it needs any; by default those that its file system knows.

    Raises:
        NotReadableError: There is no such file, or it is not an image.
    """
    import rasterio
    from rasterio.errors import RasterioIOError

    path = uri.removeprefix("file://")
    is_remote = _is_remote(path)
    if session is None and is_remote:
        session = get_store_session([path])
    try:
        with georeference_not_needed():
            if session is None and "://" not in path:
                return rasterio.open(path)
            with rasterio.Env(session=session, **_streaming_options(path)):
                return rasterio.open(path)
    except RasterioIOError as e:
        if is_remote:
            raise NotReadableError(
                f"uris: {uri} cannot be read by GDAL ({e}). Check the URI and your access to it."
            ) from e
        if not os.path.exists(path):
            raise NotReadableError(f"uris: the image {uri} does not exist. Check the path.") from e
        raise NotReadableError(
            f"uris: {uri} cannot be read as an image ({e}). Check that it is a raster file and not damaged."
        ) from e


def _is_remote(path: str) -> bool:
    return "://" in path or path.startswith("/vsi")


def _streaming_options(url: str) -> dict[str, str]:
    """Return settings of GDAL with which a remote GeoTIFF is opened by one request instead of a dozen.

    The others would look for files beside it, which are not downloaded either when images are not streamed.
    """
    from rasterio.env import getenv, hasenv

    option = "GDAL_DISABLE_READDIR_ON_OPEN"
    is_set = option in os.environ or (hasenv() and option in getenv())
    is_geotiff = url.lower().partition("?")[0].endswith((".tif", ".tiff"))
    return {option: "EMPTY_DIR"} if is_geotiff and not is_set else {}


class DatasetPool:
    """Open handles of one file, lent to one thread at a time; opened anew after a fork or in another process.

    Args:
        path: Local path, or URL that GDAL can stream.
        session: Credentials of the store, if it needs any.
    """

    def __init__(self, path: str, session: Session | None = None) -> None:
        self.path = path
        self.session = session
        self._pid = os.getpid()
        self._free: deque[Any] = deque()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "store_uris": getattr(self.session, "uris", ())}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], get_store_session(state["store_uris"]))  # type: ignore[misc]

    @contextmanager
    def borrow(self) -> Iterator[DatasetReader]:
        """Lend a handle for the length of a ``with`` block."""
        if self._pid != os.getpid():
            _inherited.append(self._free)
            self._free, self._pid = deque(), os.getpid()
        try:
            dataset = self._free.pop()
        except IndexError:
            dataset = open_image(self.path, self.session)
        if self.session is None:
            yield dataset
        else:
            import rasterio

            with rasterio.Env(session=self.session):
                yield dataset
        self._free.append(dataset)  # not after an error: the handle may be in a bad state

    def close(self) -> None:
        """Close the handles that are not lent."""
        while self._free:
            self._free.pop().close()


def get_store_session(uris: Iterable[str]) -> Session | None:
    """Return the session with which GDAL reads images where they are; None if they need none.

    Args:
        uris: What is read; images with the same scheme are taken to be in the same store.
    """
    by_scheme = {uri.partition("://" if "://" in uri else "/")[0]: uri for uri in uris if _is_remote(uri)}
    if not by_scheme:
        return None
    session: Session = _store_session_class()(tuple(by_scheme.values()))
    return session if session.get_credential_options() else None


@cache
def _store_session_class() -> type[Any]:
    from rasterio.session import Session

    from rastervision.pipeline.errors import RegistryError
    from rastervision.pipeline.file_system import FileSystem

    class StoreSession(Session):
        """Gives GDAL the options that the file systems of URIs know: asked for each time, as credentials expire."""

        def __init__(self, uris: tuple[str, ...]) -> None:
            self.uris = uris

        def get_credential_options(self) -> dict[str, str]:
            options: dict[str, str] = {}
            for uri in self.uris:
                with suppress(RegistryError):  # without its package, GDAL has its own ways to find credentials
                    options |= FileSystem.get_file_system(uri).gdal_options(uri)
            return options

    return StoreSession


def get_aws_session() -> Session | None:
    """Return the session with which GDAL reads from S3; None if rastervision_aws_s3 is not installed."""
    return get_store_session(["s3://bucket"])
