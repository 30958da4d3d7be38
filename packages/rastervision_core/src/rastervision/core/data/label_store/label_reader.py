"""Read stored class ids and scores of a scene window by window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np

from rastervision.core.box import Box
from rastervision.core.data.label.label_blocks import label_dtype
from rastervision.core.data.utils.dataset_pool import georeference_not_needed, open_image
from rastervision.pipeline.errors import NotReadableError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data.label_store.vector_output import VectorOutputConfig

__all__ = ["LabelReader", "MissingPredictionError", "mask_reader"]


class MissingPredictionError(NotReadableError, FileNotFoundError):
    """A scene has no stored prediction."""


class LabelReader:
    """Read stored class ids window by window.

    Args:
        path: A ``labels.tif``.
        class_config: The classes.
        palette: (K, 3) uint8 colours if the file holds colours instead of ids.
    """

    def __init__(self, path: Path, class_config: ClassConfig, palette: NDArray[np.uint8] | None = None) -> None:
        import rasterio
        from rasterio.errors import RasterioIOError

        with georeference_not_needed():
            try:
                self._src = rasterio.open(path)
            except RasterioIOError as e:
                raise NotReadableError(f"{path} is not a readable raster: {e}. Run the predict command again.") from e
        self.extent = Box(0, 0, self._src.height, self._src.width)
        self._null = class_config.null_class_id
        self._palette = palette

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._src.close()

    def get_label_arr(self, window: Box) -> NDArray[np.unsignedinteger[Any]]:
        """Return (h, w) class ids of a window inside the extent.

        Raises:
            NotReadableError: The file is damaged there.
        """
        if self._palette is None:
            return self._read(window, 1)
        rgb = self._read(window)
        labels = np.full(rgb.shape[1:], self._null, label_dtype(len(self._palette)))
        for k, color in enumerate(self._palette):
            labels[(rgb == color[:, None, None]).all(axis=0)] = k
        return labels

    def _read(self, window: Box, bands: int | None = None) -> NDArray[np.unsignedinteger[Any]]:
        from rasterio.errors import RasterioIOError

        rows, cols = window.to_slices()
        try:
            arr: NDArray[Any] = self._src.read(bands, window=((rows.start, rows.stop), (cols.start, cols.stop)))
        except RasterioIOError as e:
            raise NotReadableError(
                f"{self._src.name} cannot be read at {window} ({e.__cause__ or e}). Run the predict command again."
            ) from e
        return arr


def mask_reader(vector_output: VectorOutputConfig, reader: LabelReader, scores: Path | None) -> Any:
    """Return a function window -> (h, w) uint8 mask of the output's class.

    By default a pixel is in the mask of the one class with the largest score. With ``threshold`` it is in the mask of
    each class that scores at least that, so that masks may overlap.
    """
    threshold = vector_output.threshold
    if threshold is None or scores is None:
        return lambda window: (reader.get_label_arr(window) == vector_output.class_id).astype(np.uint8)

    def read(window: Box) -> NDArray[np.uint8]:
        rows, cols = window.to_slices()
        with open_image(str(scores)) as src:
            arr = src.read(vector_output.class_id + 1, window=((rows.start, rows.stop), (cols.start, cols.stop)))
            unit = 255 if src.dtypes[0] == "uint8" else 1
        return (arr >= threshold * unit).astype(np.uint8)

    return read
