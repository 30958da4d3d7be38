"""The command ``rastervision schema``: print the JSON Schema of saved configs."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["schema"]


def schema(
    type_hint: Annotated[
        str | None, typer.Argument(help="Name of a config, such as scene; any pipeline if not given.")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="File to write instead of printing.")] = None,
) -> None:
    """Print the JSON Schema of saved configs, by which editors complete and check them."""
    import json

    from rastervision.pipeline.file_system.utils import str_to_file
    from rastervision.pipeline.json_schema import get_json_schema

    text = json.dumps(get_json_schema(type_hint), indent=2)
    if output is None:
        typer.echo(text)
    else:
        str_to_file(text + "\n", output)
