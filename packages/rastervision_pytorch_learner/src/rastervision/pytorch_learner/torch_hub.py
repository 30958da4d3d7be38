"""Models and losses that are defined elsewhere: a folder, zip or GitHub repository with a ``hubconf.py``.

The convention is that of torch.hub: ``hubconf.py`` has functions ("entrypoints") that return the module, and
may list the packages it needs in ``dependencies``. The code is copied beside the weights, so that a bundle is
complete. Which code may run is told in `rastervision.pytorch_learner.trust`.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
import os
import re
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import ConfigError, MissingPackageError, NotReadableError
from rastervision.pytorch_learner.trust import check_network_trusted, is_own_source, note_own_code

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from rastervision.pytorch_backend.learner_config import ExternalModuleConfig

__all__ = [
    "build_external",
    "fetch_code",
    "get_hubconf_dir_from_cfg",
    "torch_hub_load_github",
    "torch_hub_load_local",
    "torch_hub_load_uri",
]

log = logging.getLogger(__name__)

HUBCONF = "hubconf.py"
# the zip of the default branch is HEAD.zip
GITHUB_ZIP_URL = "https://github.com/{repo}/archive/{ref}.zip"

_module_numbers = itertools.count()


def build_external(
    cfg: ExternalModuleConfig, save_dir: str, hubconf_dir: str | None = None, ddp_rank: int | None = None
) -> Any:
    """Fetch the code of an external module and return what its entrypoint returns.

    Args:
        cfg: Where the code is and which entrypoint to call with which arguments.
        save_dir: Folder that gets a copy of the code, under `get_hubconf_dir_from_cfg`. A copy of a download
            that is there already is used as it is, unless ``cfg.force_reload``; local code is copied again.
        hubconf_dir: Folder with the code, as found in a bundle; then nothing is fetched or copied. The caller has
            seen to it that the code may run (`rastervision.pytorch_learner.trust.check_trusted`).
        ddp_rank: Rank of this process; only rank 0 saves.

    Raises:
        ConfigError: There is no such entrypoint, or it does not take these arguments.
        NotReadableError: The code cannot be fetched.
        UntrustedCodeError: The code is on the network, and not trusted.
    """
    args, kwargs = cfg.entrypoint_args, cfg.entrypoint_kwargs
    if hubconf_dir is not None:
        return torch_hub_load_local(hubconf_dir, cfg.entrypoint, *args, **kwargs)
    dst_dir = get_hubconf_dir_from_cfg(cfg, parent=save_dir)
    source, own = _source(cfg), is_own_source(cfg)
    if not own:
        check_network_trusted(source)
    saves = ddp_rank in (None, 0)
    with tempfile.TemporaryDirectory() as tmp:
        if own and os.path.realpath(cfg.uri or "") == os.path.realpath(dst_dir):
            code_dir, reuse = dst_dir, True
        else:
            reuse = not own and os.path.isfile(os.path.join(dst_dir, HUBCONF)) and not (cfg.force_reload and saves)
            code_dir = dst_dir if saves or reuse else os.path.join(tmp, "code")
        if not reuse:
            fetch_code(source, code_dir)
        if own:
            note_own_code(code_dir)
        return torch_hub_load_local(code_dir, cfg.entrypoint, *args, **kwargs)


def get_hubconf_dir_from_cfg(cfg: ExternalModuleConfig, parent: str | None = "") -> str:
    """Return the folder below ``parent`` that holds the code: ``name``, else a name made from the source.

    Raises:
        ConfigError: The name would lead to another folder.
    """
    if cfg.name is not None:
        name = cfg.name
    elif cfg.uri is not None:
        name = Path(cfg.uri.rstrip("/")).stem
    else:
        name = re.sub(r"[/:]", "_", cfg.github_repo or "")
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        # a config in a bundle may say anything, and this folder is written to
        raise ConfigError(f"The external module's name {name!r} is not the name of a folder. Set name to a plain one.")
    return os.path.join(parent or "", name)


def torch_hub_load_local(hubconf_dir: str, entrypoint: str, /, *args: Any, **kwargs: Any) -> Any:
    """Call an entrypoint of the ``hubconf.py`` in a folder.

    Raises:
        NotReadableError: There is no ``hubconf.py``.
        MissingPackageError: A package that it depends on is not installed.
        ConfigError: There is no such entrypoint, or it does not take these arguments.
    """
    if not os.path.isfile(os.path.join(hubconf_dir, HUBCONF)):
        raise NotReadableError(f"There is no {HUBCONF} in {hubconf_dir}. Correct the uri of the external module.")
    with _on_path(hubconf_dir), _no_bytecode():
        module = _import_hubconf(hubconf_dir)
        function = getattr(module, entrypoint, None)
        if not callable(function):
            known = sorted(k for k, v in vars(module).items() if callable(v) and not k.startswith("_"))
            raise ConfigError(
                f"{HUBCONF} in {hubconf_dir} has no entrypoint {entrypoint!r}. It has {', '.join(known) or 'none'}."
            )
        try:
            return function(*args, **kwargs)
        except TypeError as e:
            raise ConfigError(
                f"Entrypoint {entrypoint!r} of {hubconf_dir} failed with args {args} and kwargs {kwargs}: "
                f"{e}. Correct entrypoint_args and entrypoint_kwargs."
            ) from e


def torch_hub_load_uri(uri: str, entrypoint: str, /, *args: Any, dst_dir: str | None = None, **kwargs: Any) -> Any:
    """Call an entrypoint of the ``hubconf.py`` in a local folder, or in a zip file at a URI.

    Args:
        uri: The folder or zip file. In a zip file, the code may be in a single top-level folder.
        entrypoint: The function.
        *args: Its positional arguments.
        dst_dir: Folder that gets a copy of the code; not kept if not given.
        **kwargs: Its keyword arguments.

    Raises:
        UntrustedCodeError: The code is on the network, and not trusted.
    """
    from rastervision.pipeline.file_system.utils import is_local

    if not is_local(uri):
        check_network_trusted(uri)
    if dst_dir is not None:
        fetch_code(uri, dst_dir)
        return torch_hub_load_local(dst_dir, entrypoint, *args, **kwargs)
    if os.path.isdir(uri):
        return torch_hub_load_local(uri, entrypoint, *args, **kwargs)
    with tempfile.TemporaryDirectory() as tmp:
        code_dir = os.path.join(tmp, "code")
        fetch_code(uri, code_dir)
        return torch_hub_load_local(code_dir, entrypoint, *args, **kwargs)


def torch_hub_load_github(repo: str, entrypoint: str, /, *args: Any, dst_dir: str | None = None, **kwargs: Any) -> Any:
    """Call an entrypoint of the ``hubconf.py`` of a GitHub repository, ``owner/name[:ref]``; trusted as a URI is."""
    check_network_trusted(_github_zip(repo))
    return torch_hub_load_uri(_github_zip(repo), entrypoint, *args, dst_dir=dst_dir, **kwargs)


def _github_zip(repo: str) -> str:
    name, _, ref = repo.partition(":")
    return GITHUB_ZIP_URL.format(repo=name, ref=ref or "HEAD")


def _source(cfg: ExternalModuleConfig) -> str:
    return cfg.uri if cfg.uri is not None else _github_zip(cfg.github_repo or "")


def fetch_code(source: str, dst_dir: str) -> None:
    """Put the code at ``source`` into ``dst_dir``, which is replaced as a whole."""
    from rastervision.pipeline.file_system.utils import download_if_needed, unzip

    parent = os.path.dirname(os.path.abspath(dst_dir))
    os.makedirs(parent, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".tmp-") as tmp:
        if os.path.isdir(source):
            code_dir = os.path.join(tmp, "code")
            ignore = shutil.ignore_patterns("__pycache__", ".git")
            shutil.copytree(source, code_dir, ignore=ignore)
        else:
            path = download_if_needed(source, tmp)
            if not os.path.isfile(path):
                raise NotReadableError(f"{source} is neither a folder nor a zip file. Correct the uri of the module.")
            unzip(path, os.path.join(tmp, "zip"))
            code_dir = _single_folder(os.path.join(tmp, "zip"))
        if not os.path.isfile(os.path.join(code_dir, HUBCONF)):
            raise NotReadableError(f"There is no {HUBCONF} in {source}. Correct the uri of the external module.")
        log.info("copying the module at %s to %s", source, dst_dir)
        if os.path.isdir(dst_dir):
            os.rename(dst_dir, os.path.join(tmp, "old"))
        os.rename(code_dir, dst_dir)


def _single_folder(folder: str) -> str:
    """Return ``folder``, or the only folder in it if there is nothing else."""
    entries = [e for e in os.scandir(folder) if not e.name.startswith(".")]
    return entries[0].path if len(entries) == 1 and entries[0].is_dir() else folder


@contextmanager
def _on_path(folder: str) -> Iterator[None]:
    folder = os.path.abspath(folder)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


@contextmanager
def _no_bytecode() -> Iterator[None]:
    """Write no compiled files beside the code: the folder goes into bundles, and is compared with them."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _import_hubconf(hubconf_dir: str) -> ModuleType:
    path = os.path.join(os.path.abspath(hubconf_dir), HUBCONF)
    # a name of its own each time: two modules of a run must not share one hubconf. It stays in sys.modules,
    # for pickle
    name = f"rastervision_hubconf_{next(_module_numbers)}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as e:
        raise MissingPackageError(f"{path} needs {e.name}, which is not installed. Run: pip install {e.name}") from e
    missing = [d for d in getattr(module, "dependencies", []) if importlib.util.find_spec(d) is None]
    if missing:
        raise MissingPackageError(f"{path} needs {', '.join(missing)}. Run: pip install {' '.join(missing)}")
    return module
