"""A picture of a scene: image, labels and prediction side by side, with a legend."""

from __future__ import annotations

import os
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np

from rastervision.core.box import Box
from rastervision.core.data.label.chip_classification_labels import ChipClassificationLabels
from rastervision.core.data.label.chip_regression_labels import ChipRegressionLabels
from rastervision.core.data.label.object_detection_labels import ObjectDetectionLabels
from rastervision.core.utils.threads import small_block_cache

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from PIL.Image import Image

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.scene import Scene

__all__ = ["preview_uri", "write_preview"]

MAX_SIDE = 1024
_MIN_SIDE = 384
_READ_SIDE = 2048
_MARGIN = 12
# from the least to the greatest number: viridis, which is told apart in grey too
_RAMP = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64)
_SHADES = 64


def preview_uri(eval_uri: str, scene_id: str) -> str:
    """Return where the picture of a scene is written."""
    return f"{eval_uri.rstrip('/')}/{scene_id}.png"


def write_preview(scene: Scene, class_config: ClassConfig, uri: str, max_side: int = MAX_SIDE) -> None:
    """Write a PNG with the image of a scene and, if it has them, its labels and its stored prediction.

    Cells and boxes are drawn over the image, cells with numbers in a colour for the first of them. Scenes larger than
    ``max_side`` are shown reduced; they are read in windows, never as a whole.
    """
    from rastervision.pipeline.file_system import get_tmp_dir, upload_or_copy

    palette = np.round(np.array(class_config.color_triples) * 255).astype(np.uint8)
    with small_block_cache():
        image = to_rgb(read_reduced(scene.extent, _image_reader(scene), max_side))
        panels = [("image", image)]
        legend = list(zip(class_config.names, palette.tolist(), strict=True))
        numbers = _range_of_numbers(scene)
        if numbers is not None:
            palette = _ramp()
            legend = [
                (f"{class_config.names[0]} {n:.4g}", palette[i].tolist()) for i, n in zip((0, -1), numbers, strict=True)
            ]
        for name, source in (("labels", scene.label_source), ("prediction", scene.label_store)):
            panel = None if source is None else _label_panel(source, scene, image, palette, max_side, numbers)
            if panel is not None:
                panels.append((name, panel))
    picture = compose(scene.id, panels, legend)
    with get_tmp_dir() as tmp_dir:
        path = os.path.join(tmp_dir, "preview.png")
        picture.save(path)
        upload_or_copy(path, uri)


def _range_of_numbers(scene: Scene) -> tuple[float, float] | None:
    """Return the least and the greatest first number of the labels, else of the prediction; None for other tasks."""
    from rastervision.core.data.label_source.chip_regression_label_source import ChipRegressionLabelSource
    from rastervision.core.data.label_store.chip_regression_geojson_store import ChipRegressionGeoJSONStore

    for source in (scene.label_source, scene.label_store):
        if isinstance(source, (ChipRegressionLabelSource, ChipRegressionGeoJSONStore)):
            numbers = source.get_labels().get_values()[:, :1]
            numbers = numbers[np.isfinite(numbers)]
            return (float(numbers.min()), float(numbers.max())) if len(numbers) else (0.0, 0.0)
    return None


def _ramp() -> NDArray[np.uint8]:
    at = np.linspace(0, len(_RAMP) - 1, _SHADES)
    return np.stack([np.interp(at, np.arange(len(_RAMP)), c) for c in _RAMP.T], axis=1).round().astype(np.uint8)


def _label_panel(
    source: Any,
    scene: Scene,
    image: NDArray[np.uint8],
    palette: NDArray[np.uint8],
    max_side: int,
    numbers: tuple[float, float] | None,
) -> NDArray[np.uint8] | None:
    """Return the picture of what a label source or label store has; None if it cannot be shown."""
    if hasattr(source, "label_reader"):
        with source.label_reader() as reader:
            return palette[read_reduced(scene.extent, _every_nth(reader.get_label_arr), max_side)]
    if hasattr(source, "get_label_arr"):
        return palette[read_reduced(scene.extent, _every_nth(source.get_label_arr), max_side)]
    labels = source.get_labels()
    zoom = _zoom(*image.shape[:2])  # lines are thin whatever the size of the scene
    image = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    if isinstance(labels, ChipClassificationLabels):
        return draw_boxes(image, Box.to_npboxes(labels.get_cells()), labels.get_class_ids(), palette, scene.bbox, 0.4)
    if isinstance(labels, ChipRegressionLabels) and numbers is not None:
        boxes, first = Box.to_npboxes(labels.get_cells()), labels.get_values()[:, 0]
        known = np.isfinite(first)
        low, high = numbers
        shades = ((first[known] - low) / max(high - low, 1e-12) * (_SHADES - 1)).round().clip(0, _SHADES - 1)
        return draw_boxes(image, boxes[known], shades.astype(np.int64), palette, scene.bbox, 0.6)
    if isinstance(labels, ObjectDetectionLabels):
        return draw_boxes(image, labels.get_npboxes(), labels.get_class_ids(), palette, scene.bbox)
    return None


def draw_boxes(
    image: NDArray[np.uint8],
    boxes: NDArray[np.floating[Any]],
    class_ids: Sequence[int] | NDArray[np.integer[Any]],
    palette: NDArray[np.uint8],
    bbox: Box,
    fill: float = 0.0,
) -> NDArray[np.uint8]:
    """Return a copy of an image with boxes in the colours of their classes.

    Args:
        image: (H, W, 3) picture of ``bbox``.
        boxes: (N, 4), in the same pixels as ``bbox``.
        class_ids: (N,).
        palette: (K, 3) colours.
        bbox: What the image shows.
        fill: How much of the colour the inside of a box gets; 0 for outlines only.
    """
    from PIL import Image, ImageDraw

    scale = image.shape[0] / bbox.height
    picture = Image.fromarray(np.ascontiguousarray(image))
    layer = picture.copy()
    draw, draw_inside = ImageDraw.Draw(picture), ImageDraw.Draw(layer)
    shown = (boxes - (bbox.ymin, bbox.xmin, bbox.ymin, bbox.xmin)) * scale
    corners = [(x0, y0, max(x1 - 1, x0), max(y1 - 1, y0)) for y0, x0, y1, x1 in shown.tolist()]
    colors = [tuple(color) for color in palette[np.asarray(class_ids, np.int64)].tolist()]
    if fill:
        for corner, color in zip(corners, colors, strict=True):
            draw_inside.rectangle(corner, fill=color)
        picture.paste(Image.blend(picture, layer, fill))
    for corner, color in zip(corners, colors, strict=True):
        draw.rectangle(corner, outline=color, width=1 if fill else 2)
    return np.asarray(picture)


def read_reduced(extent: Box, read: Callable[[Box, int], NDArray[Any]], max_side: int = MAX_SIDE) -> NDArray[Any]:
    """Return a reduced copy, at most ``max_side`` pixels high and wide, of something that is read by window.

    Args:
        extent: What to read, from (0, 0).
        read: (window, n) -> the window reduced by n, of ceil(h / n) x ceil(w / n) pixels.
        max_side: Greatest height and width of the result.
    """
    height, width = (int(n) for n in extent.size)
    n = max(1, ceil(max(height, width) / max_side))
    step = max(1, _READ_SIDE // n) * n
    rows = [
        np.concatenate(
            [read(Box(y, x, min(y + step, height), min(x + step, width)), n) for x in range(0, width, step)],
            axis=1,
        )
        for y in range(0, height, step)
    ]
    return np.concatenate(rows)


def _image_reader(scene: Scene) -> Callable[[Box, int], NDArray[Any]]:
    def read(window: Box, n: int) -> NDArray[Any]:
        out_shape = None if n == 1 else (ceil(window.height / n), ceil(window.width / n))
        return scene.raster_source.get_chip(window, out_shape=out_shape)

    return read


def _every_nth(read: Callable[[Box], NDArray[Any]]) -> Callable[[Box, int], NDArray[Any]]:
    # ids must not be averaged, so rows and columns are skipped
    return lambda window, n: read(window)[::n, ::n]


def to_rgb(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 of an image (..., H, W, C): its first three channels, stretched if not uint8.

    Of a time series the first image is taken. A single channel becomes grey; of two channels, the third is
    zero.
    """
    while image.ndim > 3:
        image = image[0]
    if image.shape[-1] == 1:
        image = np.repeat(image, 3, axis=-1)
    elif image.shape[-1] == 2:
        image = np.concatenate([image, np.zeros_like(image[..., :1])], axis=-1)
    image = image[..., :3]
    if image.dtype == np.uint8:
        return image
    image = np.nan_to_num(image.astype(np.float32))
    has_data = (image != 0).any(axis=-1)
    if not has_data.any():
        return np.zeros(image.shape, np.uint8)
    low, high = np.percentile(image[has_data], [2, 98], axis=0)
    out: NDArray[np.uint8] = (np.clip((image - low) / np.maximum(high - low, 1e-9), 0, 1) * 255).astype(np.uint8)
    return out


def compose(
    title: str, panels: Sequence[tuple[str, NDArray[np.uint8]]], legend: Sequence[tuple[str, list[int]]]
) -> Image:
    """Return a picture of panels of the same size with titles, and a legend of names and colours below."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = panels[0][1].shape[:2]
    zoom = _zoom(height, width)
    height, width = height * zoom, width * zoom
    text = max(14, max(height, width) // 40)
    line = text + 10
    font = ImageFont.load_default(size=text)
    rows = _legend_rows([name for name, _ in legend], len(panels) * (width + _MARGIN), font, text)
    size = (len(panels) * (width + _MARGIN) + _MARGIN, height + 2 * _MARGIN + (2 + len(rows)) * line)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    draw.text((_MARGIN, _MARGIN // 2), title, "black", font)
    top = _MARGIN // 2 + 2 * line
    for i, (name, panel) in enumerate(panels):
        left = _MARGIN + i * (width + _MARGIN)
        draw.text((left, top - line), name, "black", font)
        # a nearest-neighbour zoom keeps the pixels of small scenes visible
        image = Image.fromarray(np.ascontiguousarray(panel)).resize((width, height), Image.Resampling.NEAREST)
        picture.paste(image, (left, top))
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline="gray")
    colors = dict(legend)
    for i, row in enumerate(rows):
        y = top + height + _MARGIN // 2 + i * line
        for name, x in row:
            draw.rectangle((x, y + 2, x + text, y + 2 + text), fill=tuple(colors[name]), outline="gray")
            draw.text((x + text + 6, y), name, "black", font)
    return picture


def _zoom(height: int, width: int) -> int:
    """Return how many times larger than it is a panel is shown."""
    return max(1, _MIN_SIDE // max(height, width))


def _legend_rows(names: Sequence[str], width: int, font: Any, text: int) -> list[list[tuple[str, int]]]:
    """Return rows of (name, left edge) that fit the width."""
    rows: list[list[tuple[str, int]]] = [[]]
    x = _MARGIN
    for name in names:
        needed = 2 * text + 12 + int(font.getlength(name))
        if x + needed > width and rows[-1]:
            rows.append([])
            x = _MARGIN
        rows[-1].append((name, x))
        x += needed
    return rows
