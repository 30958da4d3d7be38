"""A dataset of the windows of a scene that lie on a regular grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from rastervision.core.data.utils.window_sampler import sliding_windows
from rastervision.pytorch_learner.dataset.dataset import GeoDataset

if TYPE_CHECKING:
    from rastervision.core.data import Scene
    from rastervision.pytorch_learner.dataset.transform import Transform, TransformType

__all__ = ["SlidingWindowGeoDataset"]


class SlidingWindowGeoDataset(GeoDataset):
    """A dataset of windows on a regular grid, row by row.

    Args:
        scene: The scene.
        size: Size of the windows in pixels, one number or (height, width).
        stride: Step between windows.
        out_size: Size to which chips are resized after ``transform``.
        padding: Pixels by which windows may reach beyond the scene; as needed to cover it if None.
        pad_direction: The sides that are padded.
        within_aoi: Whether windows must lie in the AOI of the scene, or only touch it.
        transform: Applied to each chip and, if it is a mask, its label.
        transform_type: What the labels are.
        normalize: Whether unsigned integers are divided by the maximum of their dtype.
        to_pytorch: Whether to give tensors.
        return_window: Whether items are ((chip, label), window).
    """

    def __init__(
        self,
        scene: Scene,
        size: int | tuple[int, int],
        stride: int | tuple[int, int],
        out_size: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] | None = None,
        pad_direction: Literal["both", "start", "end"] = "end",
        within_aoi: bool = True,
        transform: Transform | None = None,
        transform_type: TransformType | None = None,
        normalize: bool = True,
        to_pytorch: bool = True,
        return_window: bool = False,
    ) -> None:
        super().__init__(scene, out_size, within_aoi, transform, transform_type, normalize, to_pytorch, return_window)
        self.size, self.stride, self.padding, self.pad_direction = size, stride, padding, pad_direction
        self.init_windows()

    def init_windows(self) -> None:
        """Lay out the windows anew."""
        self.windows = sliding_windows(
            self.scene.extent,
            self.size,
            self.stride,
            self.padding,
            self.pad_direction,
            aoi_polygons=self.scene.aoi_polygons_bbox_coords or (),
            within_aoi=self.within_aoi,
        )

    def __getitem__(self, idx: int) -> Any:
        return self.read_window(self.windows[idx])

    def __len__(self) -> int:
        return len(self.windows)

    def describe_item(self, index: int) -> str:
        """Return the scene and window of a sample."""
        return f"scene {self.scene.id}, window {self.windows[index]}"
