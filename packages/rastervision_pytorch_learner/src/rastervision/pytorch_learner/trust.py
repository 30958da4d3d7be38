"""Decide whether code from elsewhere may run: that of external models and losses, and any other file in a bundle.

What runs as it is, and why:

- Code in a local folder or zip file that the user's own config names. Whoever writes the config could as well
  write the code.
- Code in a bundle that equals, byte for byte, code of the first kind: of the config of the pipeline that is being
  run, or used by this user on this machine before. So the bundle that a run has made runs in its later commands, and
  with ``rastervision predict``. Digests of what was used are kept in the folder of the user's settings, as Jupyter does
  for notebooks; nothing depends on where a bundle lies, what it is called or what files beside it say, because who can
  write to the storage of a run could write all that, too.

All other code needs `trust_external_code`: in a bundle from elsewhere, and from the network (a GitHub repository, a
zip file at a remote URI), even if a copy was kept. That setting counts from the environment, the user's settings file
and the command line, and not from the settings saved in a pipeline config: those come with a bundle.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rastervision.pipeline.errors import RasterVisionError, UntrustedCodeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rastervision.pytorch_backend.learner_config import ExternalModuleConfig, LearnerConfig

__all__ = [
    "check_network_trusted",
    "check_trusted",
    "code_digest",
    "is_own_source",
    "note_own_code",
    "note_own_config",
    "trusts_external_code",
]

log = logging.getLogger(__name__)

# Git's files are not copied into bundles, and compiled files are not run
_NOT_CODE = (".git", "__pycache__")

_HOW = (
    "set RASTERVISION_TRUST_EXTERNAL_CODE=1 in the environment, or trust_external_code = true under [rastervision] in "
    "your settings file, or use the option: rastervision --trust-external-code"
)

_OWN_CODE_FILENAME = "own-code.txt"

_own_digests: set[str] = set()


def check_trusted(path: str, source: str, trust: bool | None = None) -> None:
    """Raise an error unless code from somebody else's bundle, or from the network, may run.

    Args:
        path: The unpacked code, a folder or file of ours. Compiled files in a folder are removed: Python would run
            them in place of the sources that are compared.
        source: Where it comes from, for the error: URI of the bundle or repository.
        trust: Whether the user trusts it; what `trusts_external_code` says if not given.

    Raises:
        UntrustedCodeError: It is not the user's own, and not trusted.
    """
    if not os.path.exists(path):
        return  # nothing to run
    if trust is None:
        trust = trusts_external_code()
    for cache in list(Path(path).rglob("__pycache__")):
        shutil.rmtree(cache)
    if not trust and not _is_own(code_digest(path)):
        raise UntrustedCodeError(
            f"{source} brings code ({os.path.basename(path.rstrip('/'))}) that neither your own config names "
            f"nor you have run here from a folder of yours, so it is not run. If you have read it and trust it, {_HOW}."
        )


def check_network_trusted(source: str) -> None:
    """Raise an error unless code from the network may run.

    Args:
        source: The URL or URI, for the error.

    Raises:
        UntrustedCodeError: It is not trusted.
    """
    if not trusts_external_code():
        raise UntrustedCodeError(
            f"The code at {source} is on the network, so it is not run. Copy it to a folder and name that instead; or, "
            f"if you trust it, {_HOW}."
        )


def trusts_external_code() -> bool:
    """Return whether the setting ``rastervision.trust_external_code`` is on, whatever a pipeline config says."""
    from rastervision.pipeline.rv_config import rv_config_
    from rastervision.pipeline.settings import TRUE_VALUES, Settings

    given = rv_config_.config
    own = Settings(None, given.file_values, "rastervision", given.environ)
    return str(own.get("trust_external_code", "")).strip().lower() in TRUE_VALUES


def is_own_source(cfg: ExternalModuleConfig) -> bool:
    """Return whether the source of an external module is on this machine; the config must be the user's own."""
    from rastervision.pipeline.file_system.utils import is_local

    return cfg.uri is not None and is_local(cfg.uri)


def note_own_code(path: str) -> None:
    """Remember code as the user's own, so that bundles that have the same code may run it.

    Args:
        path: A folder, or a file.
    """
    digest = code_digest(path)
    if _is_own(digest):
        return
    _own_digests.add(digest)
    try:
        os.makedirs(os.path.dirname(_own_code_path()), exist_ok=True)
        with open(_own_code_path(), "a", encoding="ascii") as f:
            f.write(f"{digest}\n")
    except OSError as e:
        log.debug("own code is remembered in this process only: %s", e)


def _is_own(digest: str) -> bool:
    if digest in _own_digests:
        return True
    try:
        with open(_own_code_path(), encoding="ascii") as f:
            return digest in f.read().split()
    except (OSError, UnicodeDecodeError):
        return False


def _own_code_path() -> str:
    from rastervision.pipeline.rv_config import rv_config_

    assert rv_config_.config is not None  # reads the settings, and so knows their folder
    return os.path.join(rv_config_.rv_home, _OWN_CODE_FILENAME)


def note_own_config(cfg: LearnerConfig) -> None:
    """Remember the local code that a config names, where it is still there.

    Args:
        cfg: A config of the user's own, not one of a bundle.
    """
    for definition in (cfg.model and cfg.model.external_def, cfg.solver and cfg.solver.external_loss_def):
        if not definition or not is_own_source(definition):
            continue
        try:
            _note_source(definition.uri or "")
        except (OSError, RasterVisionError) as e:
            log.debug("the code at %s cannot be read: %s", definition.uri, e)
    for transform in cfg.data.get_custom_albumentations_transforms():
        if os.path.isfile(transform["lambda_transforms_path"]):
            note_own_code(transform["lambda_transforms_path"])


def _note_source(uri: str) -> None:
    from rastervision.pytorch_learner.torch_hub import fetch_code

    if os.path.isdir(uri):
        note_own_code(uri)
        return
    with tempfile.TemporaryDirectory() as tmp:
        fetch_code(uri, os.path.join(tmp, "code"))
        note_own_code(os.path.join(tmp, "code"))


def code_digest(path: str) -> str:
    """Return a digest of names and contents of all files below a folder; of a file, of its contents."""
    digest = hashlib.sha256()
    files = sorted(_files(path)) if os.path.isdir(path) else [path]
    for file in files:
        name = os.path.relpath(file, path).encode()
        with open(file, "rb") as f:
            content = hashlib.file_digest(f, "sha256").digest()
        digest.update(hashlib.sha256(name).digest() + content)
    return digest.hexdigest()


def _files(folder: str) -> Iterator[str]:
    for root, dirs, names in os.walk(folder, followlinks=True):
        dirs[:] = [d for d in dirs if d not in _NOT_CODE]
        yield from (os.path.join(root, name) for name in names)
