"""The settings of this process: profile, temporary folders, verbosity, and options by section.

`rv_config_` is the default instance. Nothing is read until it is asked for.
"""

from __future__ import annotations

import getpass
import logging
import os
import tempfile
from contextlib import suppress
from typing import Any

from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.settings import TRUE_VALUES, Settings, find_ini_file, read_ini_file
from rastervision.pipeline.verbosity import Verbosity

__all__ = ["RVConfig", "load_conf_list", "rv_config_"]

log = logging.getLogger(__name__)


def load_conf_list(s: str | list[str]) -> list[str]:
    """Return the items of a setting that is a list: ``a, b`` or ``["a", "b"]``."""
    if not isinstance(s, str):
        return list(s)
    items = (item.strip().strip("\"'") for item in s.strip().removeprefix("[").removesuffix("]").split(","))
    return [item for item in items if item]


class RVConfig:
    """Settings, temporary folders and verbosity. Most code uses the default instance `rv_config_`."""

    DEFAULT_PROFILE: str = "default"
    DEFAULT_TMP_DIR_ROOT: str = "/opt/data/tmp"

    def __init__(self) -> None:
        self.verbosity: Verbosity = Verbosity.NORMAL
        self.profile_given: str | None = None
        self.tmp_dir_root_given: str | None = None
        self.rv_home: str = ""
        self._config_overrides: dict[str, str] | None = None
        self._profile: str = self.DEFAULT_PROFILE
        self._config: Settings | None = None
        self._tmp_dir_root: str | None = None

    def set_verbosity(self, verbosity: Verbosity | int = Verbosity.NORMAL) -> None:
        """Set how much is told, also by the loggers of the packages under ``rastervision``."""
        self.verbosity = Verbosity(min(int(verbosity), Verbosity.DEBUG))
        level = {0: logging.WARNING, 1: logging.INFO}.get(int(self.verbosity), logging.DEBUG)
        logging.getLogger("rastervision").setLevel(level)

    def get_verbosity(self) -> Verbosity:
        """Return how much is told."""
        return self.verbosity

    def get_verbosity_cli_opt(self) -> str:
        """Return the command-line option that gives this verbosity: ``-vv``, or nothing."""
        flags = max(int(self.verbosity) - int(Verbosity.NORMAL), 0)
        return f"-{'v' * flags}" if flags else ""

    @property
    def tmp_dir_root(self) -> str:
        """The folder in which temporary folders are made."""
        if self._tmp_dir_root is None:
            self.set_tmp_dir_root(None)
        assert self._tmp_dir_root is not None
        return self._tmp_dir_root

    @tmp_dir_root.setter
    def tmp_dir_root(self, value: str) -> None:
        self._tmp_dir_root = value

    def set_tmp_dir_root(self, tmp_dir_root: str | None = None) -> None:
        """Set the folder in which temporary folders are made.

        Args:
            tmp_dir_root: The folder. Without it: the first set of ``$TMPDIR``, ``$TEMP`` and ``$TMP``, then
                ``/opt/data/tmp`` if that exists, then a folder of the user in the system's temporary folder.
        """
        self.tmp_dir_root_given = tmp_dir_root
        asked = tmp_dir_root or next((v for v in map(os.environ.get, ("TMPDIR", "TEMP", "TMP")) if v), None)
        if asked is not None:
            problem = _unusable(asked)
            if problem is None:
                self._tmp_dir_root = os.path.abspath(asked)
                return
            log.warning("the temporary folder %s cannot be used (%s); using the system's", asked, problem)
        elif os.path.isdir(self.DEFAULT_TMP_DIR_ROOT) and _unusable(self.DEFAULT_TMP_DIR_ROOT) is None:
            self._tmp_dir_root = self.DEFAULT_TMP_DIR_ROOT
            return
        self._tmp_dir_root = _user_tmp_dir()

    def get_tmp_dir_root(self) -> str:
        """Return the folder in which temporary folders are made."""
        return self.tmp_dir_root

    def get_tmp_dir(self) -> tempfile.TemporaryDirectory[str]:
        """Return a new temporary folder; it goes when the object does, or is used as a context manager."""
        # files of memory-mapped arrays and of other processes may still be held when the folder goes
        return tempfile.TemporaryDirectory(dir=self.tmp_dir_root, ignore_cleanup_errors=True)

    def get_cache_dir(self) -> str:
        """Return the folder in which downloads are kept: the setting ``rastervision.cache_dir``, or a temporary one."""
        asked = self.get_namespace_option("rastervision", "cache_dir")
        cache = os.path.abspath(os.path.expanduser(asked)) if asked else os.path.join(self.tmp_dir_root, "cache")
        os.makedirs(cache, exist_ok=True)
        return cache

    def set_everett_config(
        self,
        profile: str | None = None,
        rv_home: str | None = None,
        config_overrides: dict[str, str] | None = None,
    ) -> None:
        """Read the settings again.

        Args:
            profile: Name of the settings file in ``rv_home``; ``$RV_PROFILE`` or "default" if not given.
            rv_home: Folder of the settings files; ``$RV_CONFIG_DIR`` or ``~/.rastervision`` if not given.
            config_overrides: ``{"<namespace>_<key>": value}``, stronger than the file only.

        Raises:
            ConfigError: The profile was named and there is no settings file.
        """
        self.profile_given = profile
        self._profile = profile or os.environ.get("RV_PROFILE") or self.DEFAULT_PROFILE
        self.rv_home = rv_home or os.environ.get("RV_CONFIG_DIR") or os.path.expanduser("~/.rastervision")
        path = find_ini_file(self._profile, self.rv_home)
        if path is None and self._profile != self.DEFAULT_PROFILE:
            raise ConfigError(
                f"There is no settings file for the profile {self._profile!r}. "
                f"Write {os.path.join(self.rv_home, self._profile)}, or use another profile."
            )
        self._config_overrides = config_overrides
        self._config = Settings(config_overrides, read_ini_file(path) if path else None)

    def apply_overrides(self, config_overrides: dict[str, str] | None) -> None:
        """Use the settings saved with a pipeline, keeping the profile that is in use."""
        self.set_everett_config(self.profile_given, self.rv_home or None, config_overrides)

    @property
    def config(self) -> Settings:
        """All settings."""
        if self._config is None:
            self.set_everett_config(self.profile_given)
        assert self._config is not None
        return self._config

    @property
    def profile(self) -> str:
        """Name of the profile in use."""
        return self._profile if self._config is not None else (os.environ.get("RV_PROFILE") or self._profile)

    def get_namespace_config(self, namespace: str) -> Settings:
        """Return the settings of a section: a callable that takes a key."""
        return self.config.with_namespace(namespace)

    def get_namespace_option(self, namespace: str, key: str, default: Any = None, as_bool: bool = False) -> Any:
        """Return one setting as a string (or bool: one of 1, true, y, yes); ``default`` if it is not set."""
        value = self.get_namespace_config(namespace).get(key, default)
        if as_bool and isinstance(value, str):
            return value.strip().lower() in TRUE_VALUES
        return value

    def get_config_dict(self, rv_config_schema: dict[str, list[str]]) -> dict[str, str]:
        """Return ``{"<namespace>_<key>": value}`` for the settings of a schema that have a value."""
        out = {}
        for namespace, keys in rv_config_schema.items():
            for key in keys:
                value = self.get_namespace_option(namespace, key)
                if value is not None:
                    out[f"{namespace}_{key}"] = value
        return out


def _unusable(folder: str) -> str | None:
    """Return why temporary files cannot be made in a folder, which is made if need be; None if they can."""
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as e:
        return (e.strerror or str(e)).lower()


def _user_tmp_dir() -> str:
    """Return a folder of this user in the system's temporary folder, so that users do not share a cache."""
    user = str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()
    folder = os.path.join(tempfile.gettempdir(), f"rastervision-{user}")
    with suppress(OSError):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        mine = not hasattr(os, "getuid") or os.lstat(folder).st_uid == os.getuid()
        if mine and not os.path.islink(folder) and _unusable(folder) is None:
            return folder
    return tempfile.mkdtemp(prefix="rastervision-")


rv_config_ = RVConfig()
