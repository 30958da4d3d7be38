"""Write a file under a temporary name and give it its final name once it is whole."""

from __future__ import annotations

import os
import stat
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TMP_PREFIX", "replacing"]

# hidden, so that listings leave unfinished files out; the suffix stays, because writers look at it
TMP_PREFIX = ".tmp-"


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield a temporary path beside ``path``; on success it replaces ``path``, on error it is deleted.

    Makes the folder if need be. A link is followed, and a device such as ``/dev/null`` is written directly.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with replacing(f"{folder}/new/a.txt") as tmp:
        ...     _ = open(tmp, "w").write("whole")
        >>> os.listdir(f"{folder}/new")
        ['a.txt']
    """
    final = os.path.realpath(path)
    if os.path.exists(final) and not stat.S_ISREG(os.stat(final).st_mode) and not os.path.isdir(final):
        yield final
        return
    folder, name = os.path.split(final)
    os.makedirs(folder, exist_ok=True)
    tmp = os.path.join(folder, f"{TMP_PREFIX}{uuid.uuid4().hex[:8]}-{name[-100:]}")
    try:
        yield tmp
        os.replace(tmp, final)
    except BaseException:
        with suppress(OSError):
            os.remove(tmp)
        raise
