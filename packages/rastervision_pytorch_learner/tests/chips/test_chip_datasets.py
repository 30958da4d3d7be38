"""Datasets of classification and regression: folders, zip files and scenes."""

from __future__ import annotations

import logging
import math
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shapely.geometry import box

from rastervision.core.box import Box
from rastervision.core.data import (
    ChipClassificationLabelSourceConfig,
    ChipRegressionLabelSourceConfig,
    ClassConfig,
    DatasetConfig,
    GeoJSONVectorSourceConfig,
    RasterioSourceConfig,
    SceneConfig,
)
from rastervision.core.rv_pipeline import WindowSamplingConfig, WindowSamplingMethod
from rastervision.pytorch_learner import (
    ClassificationGeoDataConfig,
    ClassificationImageDataConfig,
    ClassificationImageDataset,
    ClassificationRandomWindowGeoDataset,
    ClassificationSlidingWindowGeoDataset,
    ImageDatasetError,
    RegressionDataReader,
    RegressionGeoDataConfig,
    RegressionImageDataConfig,
    RegressionImageDataset,
    RegressionRandomWindowGeoDataset,
    RegressionSlidingWindowGeoDataset,
)
from rastervision.testing import write_geojson, write_geotiff

CLASSES = ClassConfig(names=["empty", "house"])
HOUSES = [box(0, 0, 8, 8), box(20, 10, 26, 16)]


def zipped(folder: Path) -> str:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))
    return str(path)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of 32 x 48 pixels without CRS, whose pixels are row times 7."""
    rows = np.broadcast_to((np.arange(32) * 7)[:, None, None], (32, 48, 3))
    return write_geotiff(tmp_path / "image.tif", rows.astype(np.uint8))


@pytest.fixture
def houses(tmp_path: Path) -> Path:
    return write_geojson(tmp_path / "houses.json", HOUSES, [{"class_id": 1, "people": 4}, {"class_id": 1, "people": 2}])


# -- folders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_zip", [False, True])
def test_a_folder_per_class(
    in_zip: bool, tmp_path: Path, write_class_folders: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    write_class_folders(tmp_path / "chips", {"green": 2, "red": 3, "blue": 1})
    np.save(tmp_path / "chips" / "green" / "more.npy", np.full((16, 16), 65535, np.uint16))
    folder = f"{zipped(tmp_path / 'chips')}!" if in_zip else str(tmp_path / "chips")

    with caplog.at_level(logging.WARNING):
        ds = ClassificationImageDataset(folder, ["red", "missing", "green"])

    assert "blue are not used" in caplog.text
    assert len(ds) == 6
    labels = [ds[i][1] for i in range(6)]
    assert [y.item() for y in labels] == [0, 0, 0, 2, 2, 2]
    assert labels[0].dtype == torch.int64
    x, _ = ds[5]
    assert x.shape == (1, 16, 16)
    assert bool((x == 1).all())
    assert ds.describe_item(0).endswith("0.png")
    # names of folders are the classes if there are no others
    assert ClassificationImageDataset(folder).orig_dataset.class_names == ["blue", "green", "red"]


def test_no_images_of_any_class_is_an_error(tmp_path: Path, write_class_folders: Callable[..., None]) -> None:
    write_class_folders(tmp_path, {"red": 1})

    with pytest.raises(ImageDatasetError, match=r"<class> for the classes \['a', 'b'\]"):
        ClassificationImageDataset(str(tmp_path), ["a", "b"])


@pytest.mark.parametrize("in_zip", [False, True])
def test_a_table_of_targets(in_zip: bool, tmp_path: Path, write_bright_chips: Callable[..., None]) -> None:
    write_bright_chips(tmp_path / "chips", 3)
    table = tmp_path / "chips" / "labels.csv"
    table.write_text(table.read_text() + "\n0.png,,0.5\n")
    folder = f"{zipped(tmp_path / 'chips')}!" if in_zip else str(tmp_path / "chips")

    ds = RegressionImageDataset(folder, ["darkness", "brightness"])

    assert len(ds) == 4
    x, y = ds[1]
    assert x.shape == (3, 16, 16)
    assert y.dtype == torch.float64
    assert y.tolist() == pytest.approx([1 - x.mean().item(), x.mean().item()], abs=1e-6)
    assert math.isnan(ds[3][1][1])
    assert ds[3][1][0] == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,a\n1.png,2", r"labels.csv has no column 'b'; it has \['a'\]"),
        ("file,a,b\n1.png,2,x", "has a row without a number"),
        ("file,a,b\n1.png,2", "has a row without a number"),
        ("", "has no column 'a'"),
    ],
)
def test_a_table_that_lacks_targets_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(text)

    with pytest.raises(ImageDatasetError, match=message):
        RegressionDataReader(str(tmp_path), ["a", "b"])


# -- scenes --------------------------------------------------------------------------------------------------------


def test_windows_of_a_grid_have_a_class(image: Path, houses: Path) -> None:
    ds = ClassificationSlidingWindowGeoDataset.from_uris(
        image_uri=str(image),
        label_vector_uri=str(houses),
        class_config=CLASSES,
        label_source_kw={"background_class_id": 0, "ioa_thresh": 0.4},
        image_raster_source_kw={"bbox": Box(0, 16, 32, 48)},
        size=16,
        stride=16,
        return_window=True,
    )

    labels = {window: int(y) for (_, y), window in (ds[i] for i in range(len(ds)))}

    # the first house is left of the part of the image
    assert labels == {
        Box(0, 0, 16, 16): 1,
        Box(0, 16, 16, 32): 0,
        Box(16, 0, 32, 16): 0,
        Box(16, 16, 32, 32): 0,
    }
    (x, _), window = ds[2]
    assert x.shape == (3, 16, 16)
    assert x[0, 0, 0] == pytest.approx(window.ymin * 7 / 255)
    assert len(pickle.loads(pickle.dumps(ds))) == 4


def test_random_windows_have_a_class(image: Path, houses: Path) -> None:
    ds = ClassificationRandomWindowGeoDataset.from_uris(
        image_uri=str(image),
        label_vector_uri=str(houses),
        class_config=CLASSES,
        label_source_kw={"background_class_id": 0, "ioa_thresh": 0.5},
        out_size=8,
        size_lims=(8, 24),
        padding=0,
        max_windows=40,
        return_window=True,
    )

    for i in range(len(ds)):
        (x, y), window = ds[i]
        inside = [window.to_shapely().intersection(house).area / house.area >= 0.5 for house in HOUSES]
        assert y.item() == any(inside)
        assert x.shape == (3, 8, 8)


def make_scene(image: Path, label_source: Any) -> SceneConfig:
    return SceneConfig(id="s", raster_source=RasterioSourceConfig(uris=str(image)), label_source=label_source)


def test_windows_have_targets(image: Path, houses: Path) -> None:
    labels = ChipRegressionLabelSourceConfig(
        vector_source=GeoJSONVectorSourceConfig(uris=str(houses)),
        aggregations={"people": "sum", "built": "coverage"},
    )
    scene = make_scene(image, labels).build(ClassConfig(names=["people", "built"]))

    grid = RegressionSlidingWindowGeoDataset(scene, size=16, stride=16)
    drawn = RegressionRandomWindowGeoDataset(scene, size_lims=(16, 17), out_size=None, max_windows=5, padding=0)

    targets = torch.stack([grid[i][1] for i in range(len(grid))])
    assert targets.dtype == torch.float64
    assert targets.sum(0).tolist() == pytest.approx([6, (64 + 36) / 256])
    assert [y.shape for _, y in drawn] == [(2,)] * 5


# -- configs -------------------------------------------------------------------------------------------------------


def test_configs_build_the_datasets_of_folders(
    tmp_path: Path, write_class_folders: Callable[..., None], write_bright_chips: Callable[..., None]
) -> None:
    for split in ("train", "valid"):
        write_class_folders(tmp_path / "cc" / split, {"red": 2, "green": 2})
        write_bright_chips(tmp_path / "regression" / split, 3)
    cc = ClassificationImageDataConfig(
        uri=str(tmp_path / "cc"), img_sz=8, class_config=ClassConfig(names=["red", "green"]), train_sz=3
    )
    regression = RegressionImageDataConfig(
        uri=str(tmp_path / "regression"), img_sz=8, class_config=ClassConfig(names=["darkness"])
    )

    for cfg, sizes in ((cc, (3, 4, 0)), (regression, (3, 3, 0))):
        splits = cfg.build(str(tmp_path))
        assert tuple(map(len, splits)) == sizes
        assert splits[0][0][0].shape == (3, 8, 8)


@pytest.mark.parametrize("method", list(WindowSamplingMethod))
@pytest.mark.parametrize("task", ["cc", "regression"])
def test_configs_build_the_datasets_of_scenes(
    task: str, method: WindowSamplingMethod, image: Path, houses: Path
) -> None:
    vectors = GeoJSONVectorSourceConfig(uris=str(houses))
    labels: Any = ChipRegressionLabelSourceConfig(vector_source=vectors, aggregations="count")
    data_cls: Any = RegressionGeoDataConfig
    if task == "cc":
        labels = ChipClassificationLabelSourceConfig(vector_source=vectors, background_class_id=0)
        data_cls = ClassificationGeoDataConfig
    scenes = [make_scene(image, labels)]
    dataset = DatasetConfig(class_config=CLASSES, train_scenes=scenes, validation_scenes=scenes)
    sampling = WindowSamplingConfig(method=method, size=16, max_windows=5)
    cfg = data_cls(scene_dataset=dataset, sampling=sampling, img_sz=8)

    train, valid, test = cfg.build()

    count = 6 if method is WindowSamplingMethod.sliding else 5
    assert (len(train), len(valid), len(test)) == (count, count, 0)
    x, y = train[0]
    assert x.shape == (3, 8, 8)
    assert y.shape == (() if task == "cc" else (2,))
