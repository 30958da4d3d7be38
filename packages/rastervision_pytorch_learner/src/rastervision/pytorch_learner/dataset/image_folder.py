"""Images on disk: find and read them, from folders and straight from zip files.

A folder inside a zip file is written ``<zip file>!/<folder>``, as in ``chips.zip!/train/img``; nothing is
unpacked.
"""

from __future__ import annotations

import functools
import io
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.data.utils.dataset_pool import georeference_not_needed
from rastervision.pipeline.errors import NotReadableError, RasterVisionError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torchvision.datasets import DatasetFolder

__all__ = [
    "IMG_EXTENSIONS",
    "DatasetError",
    "GeoDatasetError",
    "ImageDatasetError",
    "discover_images",
    "folder_exists",
    "load_bytes",
    "load_image",
    "make_image_folder_dataset",
]

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".npy")

_PathLike = str | os.PathLike[str]
_ZIP_MARK = ".zip!"


class DatasetError(RasterVisionError):
    """A dataset cannot be made, or a sample of it cannot be read."""


class GeoDatasetError(DatasetError):
    """A dataset of windows of a scene cannot be made."""


class ImageDatasetError(DatasetError):
    """A dataset of image files cannot be made."""


def discover_images(dir: _PathLike, extensions: Iterable[str] = IMG_EXTENSIONS) -> list[Path]:
    """Return the paths of the images in a folder and below, sorted.

    Raises:
        ImageDatasetError: There is no such folder.
    """
    if not folder_exists(dir):
        raise ImageDatasetError(f"There is no folder of images at {os.fspath(dir)}. Correct the path.")
    endings = tuple(extensions)
    zip_path, inner = _split(dir)
    if zip_path is None:
        return sorted(p for p in Path(dir).rglob("*") if p.name.lower().endswith(endings))
    names = _zip_names(zip_path, _stamp(zip_path))
    prefix = f"{inner}/" if inner else ""
    return [Path(f"{zip_path}!/{n}") for n in names if n.startswith(prefix) and n.lower().endswith(endings)]


def folder_exists(dir: _PathLike) -> bool:
    """Return whether there is such a folder, on disk or in a zip file."""
    zip_path, inner = _split(dir)
    if zip_path is None:
        return os.path.isdir(dir)
    return any(n.startswith(f"{inner}/" if inner else "") for n in _zip_names(zip_path, _stamp(zip_path)))


def load_bytes(path: _PathLike) -> bytes:
    """Return the content of a file, on disk or in a zip file.

    Raises:
        NotReadableError: There is no such file, or it is damaged.
    """
    zip_path, inner = _split(path)
    try:
        if zip_path is not None:
            return _open_zip(zip_path, _stamp(zip_path), os.getpid()).read(inner)
        return Path(path).read_bytes()
    except (OSError, KeyError, zipfile.BadZipFile) as e:
        raise NotReadableError(f"{os.fspath(path)} cannot be read: {e}. Make the chips again.") from e


def load_image(path: _PathLike) -> NDArray[Any]:
    """Return the pixels of an image as they are stored: (H, W) or (H, W, C).

    Raises:
        NotReadableError: The file is damaged or not an image.
    """
    zip_path, inner = _split(path)
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    try:
        if zip_path is not None:
            return _decode(io.BytesIO(_open_zip(zip_path, _stamp(zip_path), os.getpid()).read(inner)), suffix)
        with open(path, "rb") as file:
            return _decode(file, suffix)
    except (OSError, ValueError, EOFError, KeyError, SyntaxError, zipfile.BadZipFile) as e:
        raise NotReadableError(f"{os.fspath(path)} cannot be read as an image: {e}. Make the chips again.") from e


def _decode(file: Any, suffix: str) -> NDArray[Any]:
    if suffix == ".npy":
        array: NDArray[Any] = np.load(file, allow_pickle=False)
        return array
    if suffix in (".tif", ".tiff"):
        return _decode_tif(file.read())
    from PIL import Image

    with Image.open(file) as image:
        # a copy that may be written to, made once: np.asarray would give a read-only one
        return np.array(image)


def _decode_tif(data: bytes) -> NDArray[Any]:
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.MemoryFile(data) as memory:
            with georeference_not_needed():
                src = memory.open()
            with src:
                bands: NDArray[Any] = src.read()
    except RasterioError as e:
        raise OSError(e) from e
    return np.moveaxis(bands, 0, -1)


def _split(path: _PathLike) -> tuple[str | None, str]:
    """Return the zip file and the path in it, or None and the path."""
    text = os.fspath(path)
    head, mark, inner = text.partition(_ZIP_MARK)
    return (f"{head}.zip", inner.strip("/")) if mark else (None, text)


def _stamp(zip_path: str) -> int:
    # part of the cache keys: a zip that was written anew is opened anew
    return os.stat(zip_path).st_mtime_ns


@functools.lru_cache(maxsize=32)
def _open_zip(zip_path: str, stamp: int, pid: int) -> zipfile.ZipFile:
    # one handle per process: after a fork, a shared one would be read from two places at once
    return zipfile.ZipFile(zip_path)


@functools.lru_cache(maxsize=32)
def _zip_names(zip_path: str, stamp: int) -> list[str]:
    try:
        with zipfile.ZipFile(zip_path) as archive:
            return sorted(n for n in archive.namelist() if not n.endswith("/"))
    except zipfile.BadZipFile as e:
        raise NotReadableError(f"{zip_path} is not a zip file, or is damaged: {e}. Run the chip command again.") from e


def make_image_folder_dataset(data_dir: str, classes: Iterable[str] | None = None) -> DatasetFolder:
    """Return the images in the subfolders of a folder with their class ids: a subfolder per class.

    Args:
        data_dir: The folder.
        classes: Names of the classes in the order of their ids; the sorted subfolders if not given. Classes
            without a folder, or with an empty one, have no images.

    Raises:
        ImageDatasetError: There is no image.
    """
    from torchvision.datasets import DatasetFolder

    names = sorted(e.name for e in os.scandir(data_dir) if e.is_dir()) if classes is None else list(classes)
    class_ids = {n: i for i, n in enumerate(names) if _has_images(os.path.join(data_dir, n))}
    if not class_ids:
        raise ImageDatasetError(f"There are no images in {data_dir}/<class> for the classes {names}.")

    class ClassFolders(DatasetFolder):
        def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
            return list(class_ids), class_ids

    return ClassFolders(data_dir, loader=load_image, extensions=IMG_EXTENSIONS)


def _has_images(folder: str) -> bool:
    return os.path.isdir(folder) and bool(discover_images(folder))
