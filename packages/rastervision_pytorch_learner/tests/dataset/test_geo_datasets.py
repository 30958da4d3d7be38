from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset
from torchvision.transforms import v2

from rastervision.core.box import Box
from rastervision.core.data import MultiRasterSourceConfig, RasterioSource, RasterioSourceConfig, Scene
from rastervision.core.data.utils.window_sampler import WindowSamplingError
from rastervision.pytorch_learner import (
    GeoDataset,
    GeoDatasetError,
    SemanticSegmentationRandomWindowGeoDataset,
    SemanticSegmentationSlidingWindowGeoDataset,
)
from rastervision.pytorch_learner.dataset.dataset import describe_item
from rastervision.pytorch_learner.dataset.transform import build_augmentors, resize_transform
from rastervision.testing import make_square_scene, square_classes, write_geotiff

SQUARE = Box(24, 32, 72, 96)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A scene of 96x128 pixels with a bright square (class 1)."""
    built: Scene = make_square_scene(tmp_path, squares=[SQUARE]).build(square_classes(), str(tmp_path))
    return built


def random_windows(scene: Scene, **kwargs: Any) -> SemanticSegmentationRandomWindowGeoDataset:
    args = {"out_size": 16, "size_lims": (8, 24), "max_windows": 20, **kwargs}
    return SemanticSegmentationRandomWindowGeoDataset(scene, **args)


def test_sliding_windows_cover_the_scene_row_by_row(scene: Scene) -> None:
    ds = SemanticSegmentationSlidingWindowGeoDataset(scene, size=32, stride=32)

    samples = list(ds)

    assert len(ds) == len(samples) == 12
    assert ds.windows[1] == Box(0, 32, 32, 64)
    labels = np.block([[samples[r * 4 + c][1].numpy() for c in range(4)] for r in range(3)])
    np.testing.assert_array_equal(labels, scene.label_source.get_label_arr())  # type: ignore[union-attr]
    for x, y in samples:
        assert (x.shape, x.dtype, y.shape, y.dtype) == ((3, 32, 32), torch.float32, (32, 32), torch.int64)
        assert bool(((x[0] > 0.5) == (y == 1)).all())


def test_windows_can_come_along_and_chips_be_resized(scene: Scene) -> None:
    ds = SemanticSegmentationSlidingWindowGeoDataset(
        scene, 48, 48, out_size=(20, 24), transform=resize_transform(8), return_window=True
    )

    (x, y), window = ds[3]

    assert (x.shape, y.shape) == ((3, 20, 24), (20, 24))
    assert window == ds.windows[3]
    assert ds.describe_item(3) == f"scene scene, window {window}"


def test_only_windows_in_the_aoi(tmp_path: Path) -> None:
    config = make_square_scene(tmp_path, aois=[Box(0, 0, 64, 64)])
    scene = config.build(square_classes(), str(tmp_path))

    inside = SemanticSegmentationSlidingWindowGeoDataset(scene, 32, 32)
    touching = SemanticSegmentationSlidingWindowGeoDataset(scene, 40, 40, within_aoi=False)
    random = random_windows(scene)

    assert len(inside) == 4
    assert len(touching) > 1
    assert random.has_aoi_polygons
    for _ in range(30):
        window = random.sample_window()
        assert max(window.ymax, window.xmax) <= 64
        assert min(window.ymin, window.xmin) >= 0


def test_random_windows_have_random_sizes_and_one_output_size(scene: Scene) -> None:
    ds = random_windows(scene, padding=0)
    torch.manual_seed(0)

    windows = [ds.sample_window() for _ in range(100)]
    x, y = ds[0]

    sizes = {int(w.height) for w in windows}
    assert min(sizes) >= 8
    assert 20 <= max(sizes) < 24
    assert all(scene.extent.intersection(w) == w for w in windows)
    assert (x.shape, y.shape) == ((3, 16, 16), (16, 16))
    assert (ds.min_size, ds.max_size) == ((8, 8), (24, 24))
    assert 8 <= ds.sample_window_size()[0] < 24


def test_random_windows_repeat_with_the_seed_and_differ_between_passes(scene: Scene) -> None:
    ds = random_windows(scene)

    def one_pass() -> torch.Tensor:
        return torch.stack([x for x, _ in ds])

    torch.manual_seed(3)
    first, second = one_pass(), one_pass()
    torch.manual_seed(3)

    assert torch.equal(one_pass(), first)
    assert not torch.equal(first, second)


def test_iteration_ends_with_the_last_window(scene: Scene) -> None:
    """0.31 raised StopIteration from an index beyond the end."""
    for ds in (random_windows(scene), SemanticSegmentationSlidingWindowGeoDataset(scene, 48, 48)):
        assert len(list(ds)) == len(ds)
        with pytest.raises(IndexError):
            ds[len(ds)]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_the_same_windows(scene: Scene, method: str) -> None:
    """0.31 could not send datasets to spawned workers: an open GDAL handle was pickled."""
    ds = SemanticSegmentationSlidingWindowGeoDataset(scene, 48, 48)
    expected = torch.stack([x for x, _ in ds])

    loader = DataLoader(ds, batch_size=2, num_workers=1, multiprocessing_context=method)

    assert torch.equal(torch.cat([x for x, _ in loader]), expected)


def test_workers_draw_different_windows(scene: Scene) -> None:
    ds = random_windows(scene, max_windows=8)
    torch.manual_seed(0)

    chips = torch.cat([x for x, _ in DataLoader(ds, batch_size=1, num_workers=2)])

    assert len(torch.unique(chips.flatten(1), dim=0)) == 8


def test_pickled_datasets_give_the_same_samples(scene: Scene) -> None:
    ds = SemanticSegmentationSlidingWindowGeoDataset(scene, 48, 48, transform=resize_transform(8))
    x, y = ds[1]

    x2, y2 = pickle.loads(pickle.dumps(ds))[1]

    assert torch.equal(x, x2)
    assert torch.equal(y, y2)


def test_labels_are_read_with_the_dataset(tmp_path: Path) -> None:
    """Workers that are forked later have them, and what is wrong with them is said at once."""
    scene = make_square_scene(tmp_path, squares=[SQUARE]).build(square_classes(), str(tmp_path))

    ds = SemanticSegmentationSlidingWindowGeoDataset(scene, 96, 128)
    (tmp_path / "scene-labels.json").unlink()

    assert ds[0][1].sum() == SQUARE.area


def test_scenes_without_labels_give_nan(tmp_path: Path) -> None:
    scene = make_square_scene(tmp_path, labels=None).build(square_classes(), str(tmp_path))

    x, y = SemanticSegmentationSlidingWindowGeoDataset(scene, 48, 48)[0]

    assert x.shape == (3, 48, 48)
    assert bool(torch.isnan(y))


def test_impossible_windows_name_the_scene(tmp_path: Path) -> None:
    scene = make_square_scene(tmp_path, aois=[Box(0, 0, 20, 20)]).build(square_classes(), str(tmp_path))
    ds = random_windows(scene, size_lims=(30, 31), efficient_aoi_sampling=False)

    with pytest.raises(WindowSamplingError, match="Scene 'scene'"):
        ds[0]


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (SemanticSegmentationSlidingWindowGeoDataset, {"size": 48, "stride": 48}),
        (SemanticSegmentationRandomWindowGeoDataset, {"size_lims": (48, 49), "out_size": 48, "max_windows": 4}),
    ],
)
def test_from_uris(tmp_path: Path, cls: Any, kwargs: dict[str, Any]) -> None:
    make_square_scene(tmp_path)

    ds = cls.from_uris(
        image_uri=str(tmp_path / "scene.tif"),
        label_vector_uri=str(tmp_path / "scene-labels.json"),
        class_config=square_classes(),
        label_vector_default_class_id=1,
        **kwargs,
    )

    x, y = ds[0]
    assert (x.shape, y.shape) == ((3, 48, 48), (48, 48))


def test_from_uris_needs_a_task() -> None:
    with pytest.raises(GeoDatasetError, match="GeoDataset has no task"):
        GeoDataset.from_uris("a.tif")


def test_items_are_described_through_subsets_and_unions(scene: Scene) -> None:
    ds = SemanticSegmentationSlidingWindowGeoDataset(scene, 48, 48)
    union: Any = ConcatDataset([Subset(ds, [4]), random_windows(scene)])

    assert describe_item(union, 0) == f"scene scene, window {ds.windows[4]}"
    assert describe_item(union, 1) == "scene scene, a random window"
    assert describe_item([1, 2], 1) == "item 1"


def time_series(tmp_path: Path) -> Scene:
    """A scene of three images, of which the later ones are brighter; each has the same bright square."""
    config = make_square_scene(tmp_path, squares=[SQUARE], labels="raster")
    first = config.raster_source.uris[0]  # type: ignore[attr-defined]
    pixels = RasterioSource(first)[:]
    uris = [str(write_geotiff(tmp_path / f"{t}.tif", pixels // 2 + np.uint8(t * 20), epsg=32618)) for t in range(3)]
    config.raster_source = MultiRasterSourceConfig(
        raster_sources=[RasterioSourceConfig(uris=[uri]) for uri in uris], temporal=True
    )
    built: Scene = config.build(square_classes(), str(tmp_path))
    return built


def test_windows_of_time_series(tmp_path: Path) -> None:
    flip = v2.RandomHorizontalFlip(1)
    ds = SemanticSegmentationSlidingWindowGeoDataset(time_series(tmp_path), 32, 32, out_size=16, transform=flip)

    x, y = ds[5]

    assert (x.shape, x.dtype, y.shape) == ((3, 3, 16, 16), torch.float32, (16, 16))
    np.testing.assert_allclose((x[2] - x[0]).numpy() * 255, 40, atol=1)
    assert next(iter(DataLoader(ds, batch_size=2)))[0].shape == (2, 3, 3, 16, 16)


def test_random_windows_of_time_series_are_augmented_together(tmp_path: Path) -> None:
    augment = v2.Compose(build_augmentors(["RandomRotate90", "HorizontalFlip", "VerticalFlip"]))
    ds = random_windows(time_series(tmp_path), transform=augment, out_size=None, size_lims=(24, 25), padding=0)

    for x, y in ds:
        assert (x.shape, y.shape) == ((3, 3, 24, 24), (24, 24))
        for t, step in enumerate(x):
            assert torch.equal(step[0] * 255 > 62 + 20 * t, y == 1)


def test_places_of_random_windows_lie_in_the_padded_scene(scene: Scene) -> None:
    ds = random_windows(scene, padding=0)

    places = np.array([ds.sample_window_loc(16, 8) for _ in range(200)])

    assert places.min() >= 0
    assert 100 < places[:, 0].max() <= 128 - 8
    assert 60 < places[:, 1].max() <= 96 - 16
