"""Draw a plan with matplotlib: a row of boxes per pipeline, a box per command, an arrow per need."""

from __future__ import annotations

import io
import textwrap
import warnings
from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import MissingPackageError
from rastervision.pipeline.plan_text import STATE_COLORS, drawn_edges, short_reasons

if TYPE_CHECKING:
    from rastervision.pipeline.plan_graph import CommandNode
    from rastervision.pipeline.planner import Plan

__all__ = ["plan_to_png"]

# inches
_BOX_W, _BOX_H = 2.3, 1.05
_STEP_X, _STEP_Y = 2.85, 1.35
_ROW_PAD = 0.35
_TITLE_H = 0.35
_REASON_CHARS, _REASON_LINES = 34, 3
_DPI = 110
# larger pictures take gigabytes to draw
_MAX_SIDE = 250


def plan_to_png(plan: Plan) -> bytes:
    """Return a picture of a plan as PNG.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as e:
        raise MissingPackageError(
            "Drawing a plan as PNG needs matplotlib. Run: pip install matplotlib; or use --format mermaid."
        ) from e

    cells, row_heights = _layout(plan)
    columns = 1 + max((column for column, _ in cells.values()), default=0)
    width = columns * _STEP_X + _ROW_PAD
    height = sum(row_heights) * _STEP_Y + len(row_heights) * (_TITLE_H + _ROW_PAD) + 0.6
    scale = min(1.0, _MAX_SIDE / max(width, height))
    figure = Figure(figsize=(width, height), dpi=_DPI * scale)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    tops = _draw_rows(axes, plan, row_heights, width)
    places = {
        node: (_ROW_PAD + column * _STEP_X, tops[node.rank[0]] + _TITLE_H + line * _STEP_Y)
        for node, (column, line) in cells.items()
    }
    for first, second in drawn_edges(plan):
        _draw_arrow(axes, places[first], places[second])
    for node, place in places.items():
        if node.same_as is not None:
            _draw_link(axes, places[node.same_as], place)
        _draw_box(axes, node, place)
    _draw_legend(axes, plan, height)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that the font does not have is drawn as a box
        figure.savefig(out, format="png")
    return out.getvalue()


def _layout(plan: Plan) -> tuple[dict[CommandNode, tuple[int, int]], list[int]]:
    """Return the column of each command and its line within its pipeline, and the lines of each pipeline."""
    columns: dict[CommandNode, int] = {}
    for node in plan.nodes:
        before = node.same_as.needs if node.same_as is not None else node.needs
        columns[node] = max((columns[n] + 1 for n in before), default=0)
    cells: dict[CommandNode, tuple[int, int]] = {}
    lines: list[dict[int, int]] = [{} for _ in plan.pipelines]
    for node, column in columns.items():
        used = lines[node.rank[0]]
        cells[node] = column, used.get(column, 0)
        used[column] = used.get(column, 0) + 1
    return cells, [max(used.values(), default=1) for used in lines]


def _draw_rows(axes: Any, plan: Plan, row_heights: list[int], width: float) -> list[float]:
    from matplotlib.patches import Rectangle

    tops = []
    top = 0.1
    for pipeline, lines in zip(plan.pipelines, row_heights, strict=True):
        height = lines * _STEP_Y + _TITLE_H
        axes.add_patch(Rectangle((0.1, top), width - 0.2, height, facecolor="#fafafa", edgecolor="#cccccc"))
        limit = max(int((width - 0.4) * 11), 20)
        name = pipeline.id if len(pipeline.id) <= limit else f"...{pipeline.id[-limit:]}"
        axes.text(0.2, top + 0.08, name, va="top", fontsize=10, color="#444444", parse_math=False)
        tops.append(top)
        top += height + _ROW_PAD
    return tops


def _draw_box(axes: Any, node: CommandNode, place: tuple[float, float]) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = place
    style = "round,pad=0,rounding_size=0.08"
    color = STATE_COLORS[node.state]
    axes.add_patch(FancyBboxPatch((x, y), _BOX_W, _BOX_H, style, facecolor=color, edgecolor="#555555", zorder=3))
    parts = f" (in {node.num_splits} parts)" if node.num_splits > 1 and node.state == "run" else ""
    text = {"ha": "left", "va": "top", "zorder": 4, "color": "#111111", "parse_math": False}
    axes.text(x + 0.08, y + 0.07, f"{node.command}{parts}", fontsize=11, fontweight="bold", **text)
    reason = "; ".join(short_reasons(node))
    lines = textwrap.wrap(reason, _REASON_CHARS, max_lines=_REASON_LINES, placeholder=" ...")
    axes.text(x + 0.08, y + 0.33, "\n".join([node.state, *lines]), fontsize=8, linespacing=1.25, **text)


def _draw_arrow(axes: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    from matplotlib.patches import FancyArrowPatch

    a = (start[0] + _BOX_W, start[1] + _BOX_H / 2)
    b = (end[0], end[1] + _BOX_H / 2)
    # past boxes in between, an arrow leaves its line
    passes_boxes = end[0] - start[0] > 1.5 * _STEP_X and abs(end[1] - start[1]) < 0.1
    style = "arc3,rad=-0.25" if passes_boxes else "arc3,rad=0"
    axes.add_patch(
        FancyArrowPatch(
            a, b, arrowstyle="-|>", connectionstyle=style, mutation_scale=12, color="#555555", linewidth=1.2, zorder=2
        )
    )


def _draw_link(axes: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    xs, ys = (start[0] + _BOX_W / 2, end[0] + _BOX_W / 2), (start[1] + _BOX_H / 2, end[1] + _BOX_H / 2)
    axes.plot(xs, ys, linestyle=":", color="#5577aa", linewidth=1.2, zorder=1)


def _draw_legend(axes: Any, plan: Plan, height: float) -> None:
    from matplotlib.patches import Rectangle

    x = 0.2
    for state, color in STATE_COLORS.items():
        count = len(plan.in_state(state))
        if count:
            axes.add_patch(Rectangle((x, height - 0.4), 0.22, 0.22, facecolor=color, edgecolor="#555555"))
            axes.text(x + 0.3, height - 0.29, f"{state}: {count}", va="center", fontsize=9)
            x += 1.6
