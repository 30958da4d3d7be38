from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from rastervision.core.box import Box
from rastervision.core.data import ClassConfig, ObjectDetectionLabelSourceConfig, Scene
from rastervision.core.data.utils.window_sampler import WindowSamplingError
from rastervision.core.rv_pipeline import ObjectDetectionWindowSamplingConfig, WindowSamplingMethod
from rastervision.pytorch_learner import (
    BoxList,
    CocoDataset,
    ImageDatasetError,
    ObjectDetectionGeoDataConfig,
    ObjectDetectionImageDataConfig,
    ObjectDetectionImageDataset,
    ObjectDetectionRandomWindowGeoDataset,
    ObjectDetectionSlidingWindowGeoDataset,
    collate_fn,
)
from rastervision.pytorch_learner.dataset.augmentors import AUGMENTORS, Transpose
from rastervision.pytorch_learner.dataset.transform import TransformType, resize_transform, transform_sample
from rastervision.testing import make_square_scene, square_classes

SQUARES = [Box(24, 32, 44, 62), Box(70, 8, 90, 20)]

Sample = tuple[NDArray[Any], tuple[NDArray[Any], NDArray[Any], str]]


def bright_sample(dtype: Any = np.uint8) -> Sample:
    """A chip of 40x60 pixels with two bright boxes."""
    boxes = np.array([[4, 6, 14, 30], [20, 40, 39, 56]])
    x = np.zeros((40, 60, 3), dtype)
    for ymin, xmin, ymax, xmax in boxes:
        x[ymin:ymax, xmin:xmax] = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    return x, (boxes, np.array([1, 0]), "yxyx")


def assert_bright(x: torch.Tensor, y: BoxList) -> None:
    """Check that the bright pixels are those of the boxes."""
    inside = torch.zeros(x.shape[-2:], dtype=torch.bool)
    for xmin, ymin, xmax, ymax in y.boxes.round().int().tolist():
        inside[ymin:ymax, xmin:xmax] = True
    assert torch.equal(x[..., 0, :, :] > 0.5, inside.expand(x[..., 0, :, :].shape))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("name", ["RandomRotate90", "HorizontalFlip", "VerticalFlip", "Transpose", "Resize", "Crop"])
def test_boxes_move_with_the_image(name: str, dtype: Any) -> None:
    more = {"Transpose": Transpose, "Resize": lambda: resize_transform((80, 30)), "Crop": lambda: v2.RandomCrop(24)}
    make: Any = {**AUGMENTORS, **more}[name]
    x, y = bright_sample(dtype)

    for seed in range(8):
        torch.manual_seed(seed)
        image, boxes = transform_sample(x, y, make(), TransformType.object_detection)
        assert_bright(image, boxes)
        # the left one of class 1 is taller than wide only if the image was turned
        assert set(boxes.get_field("class_ids").tolist()) <= {0, 1}
        assert (boxes.boxes.dtype, boxes.get_field("class_ids").dtype) == (torch.float32, torch.int64)
    assert y[0].tolist() == [[4, 6, 14, 30], [20, 40, 39, 56]]


def test_colour_changes_leave_boxes_alone() -> None:
    x, y = bright_sample()
    augment = v2.Compose([AUGMENTORS[n]() for n in ("Blur", "GaussNoise", "RGBShift", "ToGray")])

    _, boxes = transform_sample(x, y, augment, TransformType.object_detection)

    assert boxes.convert_boxes("yxyx").tolist() == y[0].tolist()


def test_time_steps_share_the_boxes() -> None:
    x, y = bright_sample()

    image, boxes = transform_sample(np.stack([x, x, x]), y, v2.RandomHorizontalFlip(1), TransformType.object_detection)

    assert image.shape == (3, 3, 40, 60)
    assert_bright(image, boxes)


def test_boxes_are_cut_at_the_edges_and_empty_ones_dropped() -> None:
    x = np.zeros((10, 20, 3), np.uint8)
    rows = [[-3, -2, 5, 8], [4, 15, 30, 40], [-5, 0, 0, 9], [12, 0, 15, 5], [3, 3, 3, 9]]
    y = (np.array(rows), np.arange(5), "yxyx")

    for transform in (None, v2.Identity()):
        _, boxes = transform_sample(x, y, transform, TransformType.object_detection)
        assert boxes.boxes.tolist() == [[0, 0, 8, 5], [15, 4, 20, 10]]
        assert boxes.get_field("class_ids").tolist() == [0, 1]
    _, (arr, ids, order) = transform_sample(x, y, None, TransformType.object_detection, to_pytorch=False)
    assert (arr.tolist(), ids.tolist(), order) == ([[0, 0, 8, 5], [15, 4, 20, 10]], [0, 1], "xyxy")


def test_chips_without_boxes_or_labels() -> None:
    x, _ = bright_sample()
    none = (np.empty((0, 4)), np.empty(0, np.int64), "yxyx")

    _, boxes = transform_sample(x, none, resize_transform(16), TransformType.object_detection)
    _, unknown = transform_sample(x, None, resize_transform(16), TransformType.object_detection)

    assert (len(boxes), boxes.boxes.shape, boxes.get_field("class_ids").dtype) == (0, (0, 4), torch.int64)
    assert torch.isnan(unknown)


# -- files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def coco_dir(tmp_path: Path) -> Path:
    """A folder as the chip command makes them: two images, the second without boxes, of which one is an array."""
    folder = tmp_path / "chips" / "train"
    (folder / "img").mkdir(parents=True)
    x, _ = bright_sample()
    Image.fromarray(x).save(folder / "img" / "a.png")
    np.save(folder / "img" / "b.npy", np.zeros((40, 60, 4), np.uint16))
    labels = {
        "images": [
            {"id": 7, "file_name": "a.png", "height": 40, "width": 60},
            {"id": 3, "file_name": "b.npy", "height": 40, "width": 60},
        ],
        "annotations": [
            {"id": "7-0", "image_id": 7, "bbox": [6, 4, 24, 10], "category_id": 1},
            {"id": "7-1", "image_id": 7, "bbox": [40, 20, 16, 19], "category_id": 0},
        ],
        "categories": [{"id": 0, "name": "car"}, {"id": 1, "name": "house"}],
    }
    (folder / "labels.json").write_text(json.dumps(labels))
    return folder


def test_reads_coco_files(coco_dir: Path) -> None:
    reader = CocoDataset(str(coco_dir / "img"), str(coco_dir / "labels.json"))

    x, (boxes, class_ids, order) = reader[0]

    assert len(reader) == 2
    assert (x.shape, boxes.tolist(), class_ids.tolist(), order) == (
        (40, 60, 3), [[6, 4, 24, 10], [40, 20, 16, 19]], [1, 0], "xywh",
    )  # fmt: skip
    x, (boxes, class_ids, _) = reader[1]
    assert (x.shape, boxes.shape, class_ids.shape) == ((40, 60, 4), (0, 4), (0,))


def test_reads_coco_files_from_a_zip_in_workers(coco_dir: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "chips"), "zip", coco_dir.parent)
    root = f"{tmp_path / 'chips.zip'}!/train"
    ds = ObjectDetectionImageDataset(f"{root}/img", f"{root}/labels.json", transform=resize_transform((20, 30)))

    (x, y), _ = list(DataLoader(ds, collate_fn=collate_fn, num_workers=1))

    assert x.shape == (1, 3, 20, 30)
    assert y[0].boxes.tolist() == [[3, 2, 15, 7], [20, 10, 28, 19.5]]
    assert ds.describe_item(0).endswith("chips.zip!/train/img/a.png")
    assert len(pickle.loads(pickle.dumps(ds))) == 2


@pytest.mark.parametrize(
    "content",
    ["no json", "[]", '{"images": []}', '{"images": [], "annotations": [{"image_id": 1}]}',
     '{"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": [1, 2], "category_id": 0}]}'],
)  # fmt: skip
def test_a_file_in_another_format_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "labels.json").write_text(content)

    with pytest.raises(ImageDatasetError, match=r"labels.json is not a file of labels in the format of COCO"):
        CocoDataset(str(tmp_path), str(tmp_path / "labels.json"))


def test_data_of_a_config(coco_dir: Path) -> None:
    cfg = ObjectDetectionImageDataConfig(
        uri=str(coco_dir.parent), img_sz=32, class_config=ClassConfig(names=["a", "b"])
    )

    train, valid, _ = cfg.build()

    assert (len(train), len(valid)) == (2, 0)
    assert_bright(*train[0])


# -- scenes --------------------------------------------------------------------------------------------------------


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A scene of 96x128 pixels with two bright boxes of class 1."""
    config = make_square_scene(tmp_path, squares=SQUARES)
    vectors = config.label_source.raster_source.vector_source  # type: ignore[union-attr]
    config.label_source = ObjectDetectionLabelSourceConfig(vector_source=vectors)
    built: Scene = config.build(square_classes(), str(tmp_path))
    return built


def test_windows_of_a_grid_have_their_boxes(scene: Scene) -> None:
    ds = ObjectDetectionSlidingWindowGeoDataset(
        scene, size=48, stride=48, ioa_thresh=0.5, transform=resize_transform(96)
    )

    samples = list(ds)

    # 16 of 30 columns of the first square lie in the first window, 14 in the second: too few
    assert [len(y) for _, y in samples] == [1, 0, 0, 1, 0, 0]
    assert samples[0][1].boxes.tolist() == [[64, 48, 96, 88]]
    assert samples[0][0].shape == (3, 96, 96)


def test_random_windows_show_objects_as_often_as_asked_for(scene: Scene) -> None:
    args: dict[str, Any] = {"out_size": 64, "size_lims": (32, 60), "max_windows": 60}
    torch.manual_seed(0)

    around = list(ObjectDetectionRandomWindowGeoDataset(scene, neg_ratio=0.5, clip=True, **args))
    anywhere = list(ObjectDetectionRandomWindowGeoDataset(scene, padding=0, **args))
    boxes_in_all = ObjectDetectionRandomWindowGeoDataset(scene, neg_ratio=0, **args)

    assert 30 <= sum(len(y) > 0 for _, y in around) <= 50
    assert sum(len(y) > 0 for _, y in anywhere) < 45
    assert all(len(y) > 0 for _, y in boxes_in_all)
    for x, y in around:
        assert x.shape == (3, 64, 64)
        for xmin, ymin, xmax, ymax in y.boxes.round().int().tolist():
            inner = x[0, ymin + 2 : ymax - 2, xmin + 2 : xmax - 2]
            assert bool((inner > 0.5).all())


def test_windows_around_objects_need_objects_that_fit(scene: Scene) -> None:
    with pytest.raises(WindowSamplingError, match=r"Scene 'scene': .*do not fit in the largest windows of 15x15"):
        ObjectDetectionRandomWindowGeoDataset(scene, out_size=16, size_lims=(8, 16), max_windows=1, neg_ratio=1)


def test_datasets_from_uris(scene: Scene, tmp_path: Path) -> None:
    uris = {"image_uri": str(next(tmp_path.glob("*.tif"))), "label_vector_uri": str(next(tmp_path.glob("*.json")))}
    common: dict[str, Any] = {**uris, "class_config": square_classes(), "label_vector_default_class_id": 1}

    sliding = ObjectDetectionSlidingWindowGeoDataset.from_uris(**common, size=96, stride=96)
    random = ObjectDetectionRandomWindowGeoDataset.from_uris(
        **common, out_size=32, size_lims=(40, 50), max_windows=3, neg_ratio=0
    )

    assert_bright(*sliding[0])
    assert sliding[0][1].get_field("class_ids").tolist() == [1, 1]
    assert all(len(y) > 0 for _, y in random)


@pytest.mark.parametrize("method", list(WindowSamplingMethod))
def test_geo_data_of_a_config_samples_as_it_says(scene: Scene, method: WindowSamplingMethod) -> None:
    lims = {"size_lims": (40, 60)} if method is WindowSamplingMethod.random else {}
    sampling = ObjectDetectionWindowSamplingConfig(
        method=method, size=64, ioa_thresh=0.3, clip=True, neg_ratio=0.25, max_windows=7, **lims
    )
    cfg = ObjectDetectionGeoDataConfig(sampling=sampling, class_config=square_classes())

    ds: Any = cfg.scene_to_dataset(scene, transform=resize_transform(32))

    assert (scene.label_source.ioa_thresh, scene.label_source.clip) == (0.3, True)  # type: ignore[union-attr]
    assert {tuple(x.shape) for x, _ in ds} == {(3, 32, 32)}
    if method is WindowSamplingMethod.random:
        assert (len(ds), ds.neg_probability, ds.neg_ioa_thresh) == (7, 0.2, 0.2)
