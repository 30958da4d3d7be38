"""``rastervision upgrade``: rewrite saved configs, and those in model bundles, as today's release writes them."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["describe_changes", "upgrade", "upgrade_bundle", "upgrade_text"]

# where bundles of all releases have configs; the learner's was part of a pipeline up to release 0.21
_PIPELINE, _LEARNER = "pipeline-config.json", "learner-config.json"
_MAX_VALUE = 60


def upgrade(
    file: Annotated[str, typer.Argument(help="JSON file with a config or a list of them, or a model bundle.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Where to write the result; FILE is replaced if not given.")
    ] = None,
) -> None:
    """Rewrite a saved config, or a bundle, as today's release writes it."""
    from rastervision.pipeline.errors import ConfigError, NotReadableError
    from rastervision.pipeline.file_system.utils import download_if_needed, get_tmp_dir, upload_or_copy

    if output is None and file.lower().endswith((".yaml", ".yml")):
        raise ConfigError(f"{file} is YAML, whose comments would be lost. Name a JSON file to write with -o.")
    with get_tmp_dir() as tmp_dir:
        path = download_if_needed(file, tmp_dir)
        if not os.path.isfile(path):
            raise NotReadableError(f"Cannot read {file}: there is no such file.")
        result = os.path.join(tmp_dir, "upgraded")
        if zipfile.is_zipfile(path):
            changes = upgrade_bundle(path, result)
        else:
            text, changes = upgrade_text(Path(path).read_bytes(), file)
            Path(result).write_text(text)
        if changes:
            upload_or_copy(result, file if output is None else output)
        elif output is not None:
            upload_or_copy(path, output)
    for line in changes:
        typer.echo(line)
    if not changes:
        copied = f" It is copied to {output}." if output is not None else ""
        typer.echo(f"{file} is up to date: there is nothing to change.{copied}")
    else:
        typer.echo(f"{file} is replaced by its upgrade." if output is None else f"The upgrade of {file} is {output}.")


def upgrade_text(content: bytes, name: str) -> tuple[str, list[str]]:
    """Return the upgraded text of a file with a config or a list of configs, and lines that say what changed.

    Args:
        content: The file: JSON, or YAML if its name says so.
        name: What to call the file in errors.

    Raises:
        ConfigError: It is no config, or not one that can be used.
    """
    from rastervision.pipeline.config_text import parse_config_text
    from rastervision.pipeline.errors import ConfigError

    old = parse_config_text(content, name).data
    configs = old if isinstance(old, list) else [old]
    for config in configs:
        if not isinstance(config, dict) or "type_hint" not in config:
            raise ConfigError(f"{name} is not a saved config: it has no type_hint. There is nothing to upgrade.")
    upgraded = [_upgraded(config, name) for config in configs]
    new = upgraded if isinstance(old, list) else upgraded[0]
    # files that people read stay readable
    return json.dumps(new, indent=2 if b"\n" in content.strip() else None), describe_changes(old, new)


def _upgraded(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a saved config as of today, after trying that it can be used; itself if it is up to date."""
    from rastervision.pipeline.config_loading import load_config
    from rastervision.pipeline.config_text import ConfigText
    from rastervision.pipeline.errors import ConfigError
    from rastervision.pipeline.registry import registry_
    from rastervision.pipeline.upgrade import upgrade_config

    try:
        new = upgrade_config(config)
    except ConfigError as e:
        raise type(e)(f"{name}: {e}") from e
    today = registry_.plugin_versions
    load_config(ConfigText({**new, "plugin_versions": today}, name))
    recorded = config.get("plugin_versions") or {}
    if new == config and all(version == today.get(plugin, version) for plugin, version in recorded.items()):
        return config
    return {**new, "plugin_versions": today}


def upgrade_bundle(path: str, target: str) -> list[str]:
    """Write a bundle with upgraded configs, in the bundles inside it too; all other files stay as they are.

    Args:
        path: The bundle.
        target: Where to write the new one.

    Returns:
        Lines that say what changed; if there are none, the new bundle equals the old one.

    Raises:
        BundleError: The file is damaged, or is no bundle.
    """
    from rastervision.pipeline.errors import BundleError

    try:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
            names = old.namelist()
            if not {_PIPELINE, _LEARNER} & set(names):
                raise BundleError(f"{path} has neither {_PIPELINE} nor {_LEARNER}: it is not a model bundle.")
            return [line for info in old.infolist() for line in _copy_member(old, new, info)]
    except (zipfile.BadZipFile, EOFError, zlib.error) as e:
        raise BundleError(f"{path} is damaged: {e}. Make or download it again.") from e


def _copy_member(old: zipfile.ZipFile, new: zipfile.ZipFile, info: zipfile.ZipInfo) -> list[str]:
    changes: list[str] = []
    if info.filename in (_PIPELINE, _LEARNER):
        content = old.read(info)
        text, changes = upgrade_text(content, f"{old.filename}: {info.filename}")
        is_learner = info.filename == _PIPELINE and json.loads(content).get("type_hint") == "learner_pipeline"
        new.writestr(_like(info, _LEARNER if is_learner else info.filename), text if changes else content)
    elif info.filename.endswith(".zip"):
        with tempfile.TemporaryDirectory() as tmp_dir:
            inner, result = os.path.join(tmp_dir, "old.zip"), os.path.join(tmp_dir, "new.zip")
            with old.open(info) as source, open(inner, "wb") as file:
                shutil.copyfileobj(source, file)
            with zipfile.ZipFile(inner) as archive:
                is_bundle = bool({_PIPELINE, _LEARNER} & set(archive.namelist()))
            changes = upgrade_bundle(inner, result) if is_bundle else []
            with open(result if changes else inner, "rb") as file:
                _write(new, info, file)
    elif info.is_dir():
        new.writestr(_like(info, info.filename), b"")
    else:
        with old.open(info) as source:
            _write(new, info, source)
    return [f"{info.filename}: {line}" for line in changes]


def _like(info: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    """Return the entry of a new archive that has time, rights and compression of an old one."""
    new = zipfile.ZipInfo(name, info.date_time)
    new.compress_type, new.external_attr = info.compress_type, info.external_attr
    return new


def _write(archive: zipfile.ZipFile, info: zipfile.ZipInfo, source: Any) -> None:
    # sizes are written before the content, so that it has to be known whether they need 8 bytes
    with archive.open(_like(info, info.filename), "w", force_zip64=info.file_size > 2**30) as target:
        shutil.copyfileobj(source, target, 2**20)


def describe_changes(old: Any, new: Any) -> list[str]:
    """Return one line per field that was added, removed or changed; fields of list items are told of once.

    Example:
        >>> describe_changes({"a": [{"x": 1, "y": 2}, {"x": 1, "y": 3}]}, {"a": [{"y": 2}, {"y": 3}], "b": 4})
        ['removed a[].x: 1 (2 times)', 'added b: 4']
    """
    found: dict[tuple[str, str], list[Any]] = {}
    for kind, path, text in _changes(old, new, ""):
        found.setdefault((kind, re.sub(r"\[\d+\]", "[]", path)), [text, 0])[1] += 1
    return [
        f"{kind} {path}: {text}{f' ({count} times)' if count > 1 else ''}"
        for (kind, path), (text, count) in found.items()
    ]


def _changes(old: Any, new: Any, path: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(old, dict) and isinstance(new, dict) and not _is_another(old, new):
        for key in old:
            place = f"{path}.{key}" if path else key
            if key not in new:
                yield "removed", place, _short(old[key])
            else:
                yield from _changes(old[key], new[key], place)
        for key in new:
            if key not in old:
                yield "added", f"{path}.{key}" if path else key, _short(new[key])
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _changes(a, b, f"{path}[{i}]")
    elif old != new:
        yield "changed", path or "config", f"{_short(old)} -> {_short(new)}"


def _is_another(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Return whether a config was replaced by one that has nothing in common with it."""
    return old.get("type_hint") != new.get("type_hint") and old.keys() & new.keys() <= {"type_hint", "plugin_versions"}


def _short(value: Any) -> str:
    if isinstance(value, dict) and "type_hint" in value:
        return f"a {value['type_hint']}"
    text = json.dumps(value)
    return text if len(text) <= _MAX_VALUE else f"{text[: _MAX_VALUE - 3]}..."
