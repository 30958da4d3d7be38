"""Unpack a zip file that may come from anybody, such as a model bundle: it can neither leave its folder nor explode.

All is checked from the directory of the zip file, before anything is written.
"""

from __future__ import annotations

import os
import re
import stat
import zipfile

from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.pipeline.file_system.utils import unzip

__all__ = ["unzip_untrusted"]

_MIB = 1 << 20
# weights hardly shrink; a config of ten thousand scenes is 50 MiB of which a zip file takes one
_FREE_MIB = 1024
_MAX_RATIO = 20
# what Windows reads as a drive, a folder, or an alternate stream, and what no name of ours has
_BAD_CHARACTERS = re.compile(r"[\\:\x00-\x1f]")


def unzip_untrusted(zip_path: str, target_dir: str) -> None:
    """Unpack a zip file into a folder, unless it is made to do harm.

    Args:
        zip_path: Local file.
        target_dir: Local folder; made if need be.

    Raises:
        NotReadableError: It is not a readable zip file; or a member leads out of the folder, is a link or a device;
            or unpacking would give more than 1 GiB and more than 20 times the size of the file. The setting
            ``bundle_max_mib`` of the section ``rastervision`` replaces this limit.
    """
    try:
        with zipfile.ZipFile(zip_path) as archive:
            members = archive.infolist()
    except FileNotFoundError as e:
        raise NotReadableError(f"Cannot read {zip_path}: no such file or directory.") from e
    except Exception as e:  # damage shows as anything: BadZipFile, OSError of a seek, NotImplementedError, ...
        raise NotReadableError(f"{zip_path} is not a readable zip file: {e}. Make or download it again.") from e
    if members and min(member.header_offset for member in members) > 0:
        # of a file that was cut off, the directory of a zip file inside it may be found
        raise NotReadableError(f"{zip_path} is not a readable zip file: its start or end is missing. Get it again.")
    for member in members:
        problem = _problem(member)
        if problem is not None:
            raise NotReadableError(
                f"{zip_path} has a member that {problem}: {member.filename!r}. Do not use this file."
            )
    _check_size(zip_path, members)
    unzip(zip_path, target_dir)


def _problem(member: zipfile.ZipInfo) -> str | None:
    """Return what is wrong with a member, or None."""
    name = member.orig_filename
    if name.startswith("/") or ".." in name.split("/"):
        return "leads out of its folder"
    if _BAD_CHARACTERS.search(name):
        return "would lead out of its folder on some systems"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link" if kind == stat.S_IFLNK else "is neither a file nor a folder"
    return None


def _check_size(zip_path: str, members: list[zipfile.ZipInfo]) -> None:
    packed, unpacked = os.path.getsize(zip_path), sum(member.file_size for member in members)
    if unpacked > _max_bytes(packed):
        raise NotReadableError(
            f"{zip_path} has {packed / _MIB:,.1f} MiB but would unpack to {unpacked / _MIB:,.0f} MiB, as no model "
            "bundle does. If you know who made it, set rastervision.bundle_max_mib (environment: "
            "RASTERVISION_BUNDLE_MAX_MIB) to that size."
        )


def _max_bytes(packed: int) -> float:
    from rastervision.pipeline.rv_config import rv_config_

    asked = rv_config_.get_namespace_option("rastervision", "bundle_max_mib")
    if asked is None:
        return max(_FREE_MIB * _MIB, _MAX_RATIO * packed)
    try:
        return float(asked) * _MIB
    except ValueError as e:
        raise ConfigError(f"The setting rastervision.bundle_max_mib is {asked!r}, which is not a number of MiB.") from e
