"""Write the ``rastervision.configs`` entry points of each package from its ``@register_config`` decorators.

    python scripts/sync_entry_points.py [--check]

Reads the source, imports nothing. ``--check`` changes nothing and fails if a table is out of date.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEADER = '[project.entry-points."rastervision.configs"]'


def decorated_configs(source: Path, package_src: Path) -> dict[str, str]:
    """Return type hint -> ``module:class`` for the decorated classes of a file."""
    out = {}
    for node in ast.walk(ast.parse(source.read_text())):
        if not isinstance(node, ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "register_config":
                hint = ast.literal_eval(decorator.args[0])
                module = ".".join(source.relative_to(package_src).with_suffix("").parts)
                out[hint] = f"{module}:{node.name}"
    return out


def table_of(package: Path) -> str:
    """Return the entry-point table of a package as TOML, without its header."""
    src = package / "src"
    configs: dict[str, str] = {}
    for source in sorted(src.rglob("*.py")):
        configs |= decorated_configs(source, src)
    return "".join(f'"{hint}" = "{value}"\n' for hint, value in sorted(configs.items()))


def with_table(pyproject: str, table: str) -> str:
    """Return ``pyproject`` with its table of configs replaced (or added before the first setuptools table)."""
    block = f"{HEADER}\n{table}\n"
    pattern = re.compile(re.escape(HEADER) + r"\n(?:[^\[\n].*\n)*\n?")
    if HEADER in pyproject:
        return pattern.sub(lambda _: block, pyproject)
    return pyproject.replace("[tool.setuptools", f"{block}[tool.setuptools", 1) if table else pyproject


def main() -> int:
    """Bring all tables up to date, or report the stale ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for path in sorted(ROOT.glob("packages/*/pyproject.toml")):
        old = path.read_text()
        new = with_table(old, table_of(path.parent))
        if new != old:
            stale.append(path)
            if not check:
                path.write_text(new)
    for path in stale:
        print(f"{path.relative_to(ROOT)} {'is out of date' if check else 'updated'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
