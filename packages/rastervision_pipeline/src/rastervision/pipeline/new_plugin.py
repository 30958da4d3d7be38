"""The command ``rastervision new-plugin``: make a package that extends Raster Vision, with tests that pass.

The files stand in ``new_plugin_files``, as templates.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PARTS", "make_plugin", "new_plugin"]

#: part -> files, group -> entry points (name, place), and what stands in the README
PARTS: dict[str, tuple[tuple[str, ...], dict[str, dict[str, str]], tuple[str, ...]]] = {
    "config": (
        ("folder.py", "inventory.py", "test_folder.py", "test_inventory.py"),
        {
            "configs": {
                "${module}_folder": "folder:FolderConfig",
                "${module}_inventory": "inventory:InventoryConfig",
            }
        },
        (
            "`folder.py` | a config and the entity that it describes: the files in one place",
            "`inventory.py` | a pipeline config and its pipeline: the command `take` writes a list of files",
        ),
    ),
    "upgrader": (
        ("upgraders.py", "test_upgraders.py", "version-0.json"),
        {"upgraders": {"$module": "upgraders:UPGRADERS"}},
        ("`upgraders.py` | the version of the configs, and how those that older releases saved become today's",),
    ),
    "runner": (
        ("runner.py", "test_runner.py"),
        {"runners": {"$name": "runner:${prefix}Runner"}},
        ("`runner.py` | a runner: `rastervision run $name ...`",),
    ),
    "file-system": (
        ("file_system.py", "test_file_system.py"),
        {
            "file_systems": {"$scheme": "file_system:${prefix}FileSystem"},
            "settings": {"$module": "file_system:${prefix}Settings"},
        },
        ("`file_system.py` | a file system: URIs that begin with `$scheme://`, and its settings",),
    ),
    "command": (
        ("command.py", "test_command.py"),
        {"commands": {"$name": "command:show_size"}},
        ("`command.py` | a command: `rastervision $name URI`",),
    ),
}

_TRY_CONFIG = """
## Try it

Write a file `config.py`

    from $module.folder import FolderConfig
    from $module.inventory import InventoryConfig


    def get_config(runner, root_uri):
        return InventoryConfig(root_uri=root_uri, folders=[FolderConfig(uri=".", ext=".py")])

and run it:

    rastervision run inprocess config.py -a root_uri out
"""


def new_plugin(
    name: Annotated[str, typer.Argument(help="Name of the package, such as spectral-indices.")],
    folder: Annotated[str, typer.Option("--dir", help="Where the folder of the package is made.")] = ".",
    parts: Annotated[
        str,
        typer.Option("--with", metavar="PARTS", help="What it holds, of: config,upgrader,runner,file-system,command."),
    ] = "config,upgrader,runner",
) -> None:
    """Make a package that extends Raster Vision: a plugin that works, to be changed."""
    chosen = [part.strip().replace("_", "-") for part in parts.split(",") if part.strip()]
    made = make_plugin(name, folder, chosen)
    files = sorted(str(path.relative_to(made)) for path in made.rglob("*") if path.is_file())
    typer.echo(f"Made {made} with\n  " + "\n  ".join(files))
    typer.echo(
        f"\nNext:\n  cd {made}\n"
        '  python -m pip install -e ".[test]"\n'
        "  python -m pytest\n"
        "  rastervision plugins -v\n"
        "Then change it: README.md tells what is where."
    )


def make_plugin(name: str, folder: str, parts: Sequence[str] = ("config", "upgrader", "runner")) -> Path:
    """Write the files of a new plugin and return their folder, which appears once it is complete.

    Args:
        name: Name of the package. Its module has underscores for what cannot be in a name of Python.
        folder: Where the folder of the package is made.
        parts: Some of the keys of `PARTS`.

    Raises:
        ConfigError: The name is not valid or is taken, a part is unknown, or the folder exists.
    """
    import shutil
    import tempfile

    from rastervision.pipeline.errors import ConfigError

    target = Path(folder) / name
    if target.exists():
        raise ConfigError(f"{target} exists already. Use another name or --dir, or remove it.")
    names = _check_names(name, parts)
    _check_entry_points(names, parts)
    files = _render(names, list(dict.fromkeys(parts)))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-plugin-") as tmp:
        made = Path(tmp) / name
        for path, text in files.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_text(text, encoding="utf-8")
        shutil.move(made, target)
    return target


def _check_names(name: str, parts: Sequence[str]) -> dict[str, str]:
    """Return what stands for the placeholders in the templates."""
    import importlib.util
    import keyword
    import re
    import sys

    from rastervision.pipeline.error_text import did_you_mean
    from rastervision.pipeline.errors import ConfigError
    from rastervision.pipeline.version import __version__

    for part in parts:
        if part not in PARTS:
            raise ConfigError(f"There is no part {part!r} of a plugin. {did_you_mean(part, PARTS)}")
    if not parts:
        raise ConfigError(f"A plugin needs a part. Give --with some of: {','.join(PARTS)}.")
    if "upgrader" in parts and "config" not in parts:
        raise ConfigError("An upgrader is for configs. Use --with config,upgrader, or leave upgrader out.")
    # https://packaging.python.org/specifications/name-normalization
    if not re.fullmatch(r"[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
        raise ConfigError(
            f"{name!r} is not a name for a package. Use letters, digits and - only, with a letter first, as in "
            "my-plugin."
        )
    words = re.split(r"[-_.]+", name)
    module = "_".join(words).lower()
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    # without an origin it is a namespace package, for which any folder of that name is taken
    places = set(spec.submodule_search_locations or ()) - {str(Path.cwd() / module)} if spec is not None else set()
    taken = spec is not None and (spec.origin is not None or places)
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or taken:
        raise ConfigError(
            f"The module of {name} would be {module!r}, a name that Python or an installed package has. Use another."
        )
    return {
        "name": name,
        "module": module,
        "env": module.upper(),
        "prefix": "".join(word[:1].upper() + word[1:] for word in words),
        "scheme": "-".join(words).lower(),
        "version": __version__,
    }


def _check_entry_points(names: dict[str, str], parts: Sequence[str]) -> None:
    from string import Template

    from rastervision.pipeline import plugins
    from rastervision.pipeline.errors import ConfigError

    if "command" in parts and names["name"] in ("run", "run_command", "plugins"):
        raise ConfigError(f"There is a command {names['name']!r} already. Use another name.")
    for part in parts:
        for group, places in PARTS[part][1].items():
            for key in (Template(key).substitute(names) for key in places):
                ref = plugins.entry_points_of(f"rastervision.{group}").get(key)
                if ref is not None:
                    what = group.replace("_", " ")
                    raise ConfigError(f"{key!r} is among the {what} of {ref.wheel} already. Use another name.")


def _render(names: dict[str, str], parts: Sequence[str]) -> dict[str, str]:
    """Return path -> content of all files."""
    from importlib.resources import files
    from string import Template

    values = dict(names)
    templates = files("rastervision.pipeline") / "new_plugin_files"

    def fill(text: str) -> str:
        return Template(text).substitute(values)

    def read(name: str) -> str:
        return fill((templates / f"{name}.txt").read_text(encoding="utf-8"))

    package = f"src/{names['module']}"
    out = {f"{package}/__init__.py": read("__init__.py"), f"{package}/py.typed": ""}
    contents, tables = "", ""
    for part in parts:
        names_of_files, entry_points, readme = PARTS[part]
        for name in names_of_files:
            folder = "tests" if name.startswith("test_") else "tests/saved" if name.endswith(".json") else package
            out[f"{folder}/{name}"] = read(name)
        contents += "".join(f"| {line} |\n" for line in readme)
        for group, places in entry_points.items():
            rows = "".join(f'"{key}" = "{names["module"]}.{place}"\n' for key, place in places.items())
            tables += f'\n[project.entry-points."rastervision.{group}"]\n{rows}'
    needs_contracts = not {"runner", "file-system"}.isdisjoint(parts)
    values |= {
        "contents": fill(contents).rstrip(),
        "entry_points": fill(tables),
        "test_dependencies": '"pytest>=8.2"' + (f', "rastervision_testing>={names["version"]}"' * needs_contracts),
        "try_it": fill(_TRY_CONFIG if "config" in parts else ""),
    }
    return {**out, "pyproject.toml": read("pyproject.toml"), "README.md": read("README.md").rstrip() + "\n"}
