"""Write training chips to one zip file, which replaces those that an earlier run wrote for the same scenes.

A zip file is written in a temporary folder and copied to its URI once it is whole. Beside it stands a small
JSON file that says which scenes it holds, so that a later run can tell which files it replaces.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import struct
import uuid
import zipfile
import zlib
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rastervision.core.backend.backend import SampleWriter
from rastervision.pipeline.errors import ConfigError, NotReadableError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from numpy.typing import NDArray

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data_sample import DataSample

__all__ = ["EncodedSample", "PyTorchLearnerSampleWriter", "get_image_ext", "write_chip"]

log = logging.getLogger(__name__)

EncodedSample = list[tuple[str, bytes]]
"""Files of a sample: path below the root of the zip file, and content."""

MANIFEST = "manifest.json"
# chips are read once or twice; more compression costs more time than it saves
_PNG_COMPRESSION = 1
_PNG_FILTER_SUB = 1


def get_image_ext(chip: NDArray[Any]) -> str:
    """Return "png" for (H, W) uint8 and uint16, and (H, W, 3) uint8 arrays, else "npy"."""
    is_grey = chip.ndim == 2 and chip.dtype in (np.uint8, np.uint16)
    is_rgb = chip.ndim == 3 and chip.shape[-1] == 3 and chip.dtype == np.uint8
    return "png" if is_grey or is_rgb else "npy"


def encode_chip(chip: NDArray[Any], ext: str) -> bytes:
    """Return the content of a file of an array: "npy", or "png" for what `get_image_ext` gives to that."""
    if ext == "png":
        return _encode_png(chip)
    if ext != "npy":
        raise ValueError(f"Chips are written as png or npy, not {ext!r}.")
    buffer = io.BytesIO()
    np.save(buffer, chip, allow_pickle=False)
    return buffer.getvalue()


def _encode_png(chip: NDArray[Any]) -> bytes:
    """Return a PNG of grey (H, W) or RGB (H, W, 3) values, uint8 or uint16 (https://www.w3.org/TR/png-3/).

    Each byte is stored as the difference to the one on its left. Takes about half the time of Pillow, which
    tries all filters for each row.
    """
    height, width = chip.shape[:2]
    channels = 1 if chip.ndim == 2 else chip.shape[2]
    dtype = np.dtype(">u2" if chip.dtype == np.uint16 else np.uint8)
    pixel = channels * dtype.itemsize
    values = np.ascontiguousarray(chip, dtype).reshape(height, width * channels).view(np.uint8)
    rows = np.empty((height, 1 + width * pixel), np.uint8)
    rows[:, 0] = _PNG_FILTER_SUB
    rows[:, 1 : 1 + pixel] = values[:, :pixel]
    np.subtract(values[:, pixel:], values[:, :-pixel], out=rows[:, 1 + pixel :])
    color_type = 0 if channels == 1 else 2
    header = struct.pack(">IIBBBBB", width, height, 8 * dtype.itemsize, color_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), _PNG_COMPRESSION)), (b"IEND", b""))
    framed = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def write_chip(chip: NDArray[Any], path: str) -> None:
    """Write an array to a local file, as the suffix of the path says; folders are made."""
    from rastervision.pipeline.file_system import replacing

    with replacing(path) as tmp, open(tmp, "wb") as f:
        f.write(encode_chip(chip, path.rpartition(".")[2].lower()))


def _file_name(scene_id: str) -> str:
    """Return a file name for a scene id; different ids have different names."""
    safe = re.sub(r"[^\w.-]", "_", scene_id, flags=re.ASCII)
    return safe if safe == scene_id else f"{safe}_{hashlib.sha256(scene_id.encode()).hexdigest()[:8]}"


class PyTorchLearnerSampleWriter(SampleWriter):
    """Writes samples to a zip file at ``output_uri``; a context manager, which uploads at its end.

    Nothing is uploaded if the block raises, or if there was no sample. The file is named after the scenes in
    it: writing the same scenes again replaces it.
    """

    def __init__(self, output_uri: str, class_config: ClassConfig, tmp_dir: str) -> None:
        """Constructor.

        Args:
            output_uri: Folder that gets the zip file.
            class_config: Classes of the labels.
            tmp_dir: Local folder for temporary files.
        """
        self.output_uri = output_uri
        self.class_config = class_config
        self.tmp_dir = tmp_dir
        self.sample_ind = 0
        self.scene_ids: set[str] = set()
        """Scenes whose chips this file has, or would have if any of their chips were kept."""
        self.known_scene_ids: set[str] | None = None
        """All scenes of the data set; files of other scenes are left over from another data set."""
        self.written_uris: list[str] = []
        """The zip file, once it is uploaded."""
        self._members: set[str] = set()

    def __enter__(self) -> Self:
        os.makedirs(self.tmp_dir, exist_ok=True)
        self.tmp_dir_obj = TemporaryDirectory(dir=self.tmp_dir)
        self.sample_dir = os.path.join(self.tmp_dir_obj.name, "samples")
        self._zip_path = os.path.join(self.tmp_dir_obj.name, "chips.zip")
        # PNG is compressed already
        self._zip = zipfile.ZipFile(self._zip_path, "w", zipfile.ZIP_STORED)
        return self

    def __exit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if type is None:
                self._finish()
        finally:
            self._zip.close()
            self.tmp_dir_obj.cleanup()

    def _finish(self) -> None:
        """Close the zip file, upload it, and remove those that it replaces."""
        from rastervision.pipeline.file_system.utils import json_to_file, upload_or_copy

        self._add_files_of(self.sample_dir)
        scenes = sorted(self.scene_ids)
        name = f"chips-{_digest(scenes)}" if scenes else f"chips-{uuid.uuid4()}"
        uri = f"{self.output_uri.rstrip('/')}/{name}"
        manifest = {"scenes": scenes, "files": len(self._members)}
        if self._members:
            self._zip.writestr(MANIFEST, json.dumps(manifest))
            self._zip.close()
            json_to_file(manifest, f"{uri}.json")
            upload_or_copy(self._zip_path, f"{uri}.zip")
            self.written_uris = [f"{uri}.zip"]
        self._remove_replaced(keep=f"{name}.zip" if self._members else None)

    def _remove_replaced(self, keep: str | None) -> None:
        from rastervision.pipeline.file_system.utils import file_exists, file_to_json, list_paths

        if not self.scene_ids or not file_exists(self.output_uri, include_dir=True):
            return
        for uri in list_paths(self.output_uri, ext=".zip"):
            name = uri.rstrip("/").rpartition("/")[2]
            manifest_uri = f"{uri.removesuffix('.zip')}.json"
            if name == keep or not name.startswith("chips-") or not file_exists(manifest_uri):
                continue
            try:
                scenes = set(file_to_json(manifest_uri)["scenes"])
            except NotReadableError as e:
                log.debug("%s is gone: another split removed it (%s)", manifest_uri, e)
                continue
            foreign = self.known_scene_ids is not None and scenes - self.known_scene_ids
            if scenes & self.scene_ids or foreign:
                log.info("removing %s, which an earlier run wrote for %d scenes", uri, len(scenes))
                _delete(uri)
                _delete(manifest_uri)

    def _add_files_of(self, folder: str) -> None:
        """Add the files that a subclass wrote to ``sample_dir`` itself."""
        for root, _, names in os.walk(folder):
            for name in sorted(names):
                path = os.path.join(root, name)
                member = os.path.relpath(path, folder).replace(os.sep, "/")
                self._zip.write(path, member)
                self._members.add(member)

    def get_image_ext(self, chip: NDArray[Any]) -> str:
        """Return the suffix, without dot, of the file for a chip."""
        return get_image_ext(chip)

    def get_stem(self, sample: DataSample) -> str:
        """Return the name of the files of a sample without suffix: scene and window, or a running number."""
        if sample.scene_id is None or sample.window is None:
            return str(self.sample_ind)
        ymin, xmin, ymax, xmax = (int(v) for v in sample.window)
        return f"{_file_name(sample.scene_id)}-{ymin}-{xmin}-{ymax - ymin}x{xmax - xmin}"

    def get_image_path(self, sample: DataSample) -> str:
        """Return where the chip of a sample goes, below ``sample_dir``."""
        name = f"{self.get_stem(sample)}.{self.get_image_ext(sample.chip)}"
        return os.path.join(self.sample_dir, sample.split or "", "img", name)

    def write_chip(self, chip: NDArray[Any], path: str) -> None:
        """Write an array to a file: below ``sample_dir`` for it to be in the zip file."""
        write_chip(chip, path)

    def encode_sample(self, sample: DataSample) -> EncodedSample:
        """Return the files of a sample; may be called from several threads."""
        raise NotImplementedError

    def add_sample(self, files: EncodedSample, scene_id: str | None = None) -> list[str]:
        """Add the files of a sample and return their paths; a window that was drawn before gets a name of its own."""
        count = 1
        named = files
        while any(path in self._members for path, _ in named):
            count += 1
            named = [(f"{path.rpartition('.')[0]}-{count}.{path.rpartition('.')[2]}", data) for path, data in files]
        for path, data in named:
            self._zip.writestr(path, data)
            self._members.add(path)
        self.sample_ind += 1
        if scene_id is not None:
            self.scene_ids.add(scene_id)
        return [path for path, _ in named]

    def write_sample(self, sample: DataSample) -> None:
        """Write one chip with its label."""
        self.add_sample(self.encode_sample(sample), sample.scene_id)

    def _member(self, path: str) -> str:
        return os.path.relpath(path, self.sample_dir).replace(os.sep, "/")

    def _check_split(self, sample: DataSample) -> None:
        if sample.split not in ("train", "valid", "test"):
            raise ConfigError(f'sample.split is {sample.split!r}. Set it to "train", "valid" or "test".')


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256(json.dumps(sorted(names)).encode()).hexdigest()[:16]


def _delete(uri: str) -> None:
    """Delete a file; where the file system cannot, leave an empty one of its kind."""
    from rastervision.pipeline.file_system.utils import get_local_path, is_local, json_to_file, upload_or_copy

    if is_local(uri):
        try:
            os.remove(get_local_path(uri, ""))
        except FileNotFoundError:
            log.debug("%s is gone already: another split removed it", uri)
    elif uri.endswith(".json"):
        json_to_file({"scenes": [], "files": 0}, uri)
    else:
        with TemporaryDirectory() as tmp_dir:
            path = os.path.join(tmp_dir, "empty.zip")
            zipfile.ZipFile(path, "w").close()
            upload_or_copy(path, uri)
