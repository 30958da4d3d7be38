"""Figures that are drawn without a display and without matplotlib's global state.

Nothing pops up, nothing is left open, and any thread may draw. Import this module where a figure is drawn: it
loads matplotlib.
"""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any

from matplotlib.figure import Figure

from rastervision.pipeline.file_system.atomic import replacing

__all__ = ["NotebookFigure", "make_figure", "save_figure", "show_figure"]

_DPI = 100


class NotebookFigure(Figure):
    """A figure that notebooks show when it is the value of a cell."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, dpi=_DPI, format="png")
        return buffer.getvalue()


def make_figure(width: float, height: float) -> NotebookFigure:
    """Return an empty figure.

    Args:
        width: In inches; a hundred pixels each in a PNG.
        height: In inches.
    """
    return NotebookFigure(figsize=(width, height), layout="constrained")


def save_figure(fig: Figure, path: str) -> None:
    """Write a figure to a PNG, which appears only when it is whole; missing folders are made."""
    with replacing(path) as tmp:
        fig.savefig(tmp, dpi=_DPI, format="png")


def show_figure(fig: Figure) -> bool:
    """Show a figure if this runs in a notebook, and return whether it does."""
    ipython: Any = sys.modules.get("IPython")  # imported already if this is a notebook
    if ipython is None or ipython.get_ipython() is None:
        return False
    importlib.import_module("IPython.display").display(fig)
    return True
