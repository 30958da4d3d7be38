"""Chips of classes and of numbers, and what else backends of 0.31 offered; nothing here needs PyTorch."""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rastervision.core.box import Box
from rastervision.core.data.class_config import ClassConfig
from rastervision.core.data.dataset_config import DatasetConfig
from rastervision.core.data_sample import DataSample
from rastervision.core.rv_pipeline import (
    ChipClassificationConfig,
    ChipClassificationPredictOptions,
    ChipOptions,
    PredictOptions,
    WindowSamplingConfig,
)
from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_backend import (
    PyTorchChipClassification,
    PyTorchChipClassificationConfig,
    PyTorchChipClassificationSampleWriter,
    PyTorchChipRegressionSampleWriter,
)
from rastervision.pytorch_backend.examples.utils import get_scene_info, save_image_crop
from rastervision.pytorch_backend.learner_config import (
    ClassificationImageDataConfig,
    ClassificationModelConfig,
    SolverConfig,
)
from rastervision.testing import read_geotiff, write_geotiff
from rastervision.testing.scenes import write_polygons

CLASSES = ClassConfig(names=["grass", "house"])
CHIP = np.full((8, 8, 3), 7, np.uint8)


def sample(label: Any, x: int = 0, chip: NDArray[Any] = CHIP, **kwargs: Any) -> DataSample:
    values: dict[str, Any] = {"split": "train", "scene_id": "s", "window": Box(0, x, 8, x + 8), **kwargs}
    return DataSample(chip=chip, label=label, **values)


def files_in(folder: Path) -> dict[str, bytes]:
    (path,) = folder.glob("*.zip")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != "manifest.json"}


def test_chips_lie_in_the_folder_of_their_class(tmp_path: Path) -> None:
    with PyTorchChipClassificationSampleWriter(str(tmp_path / "out"), CLASSES, str(tmp_path)) as writer:
        writer.write_sample(sample(1))
        writer.write_sample(sample(np.int64(0), 8, CHIP.astype(np.uint16)))
        writer.write_sample(sample(1, split="valid", scene_id=None))

    files = files_in(tmp_path / "out")

    assert set(files) == {"train/house/s-0-0-8x8.png", "train/grass/s-0-8-8x8.npy", "valid/house/2.png"}
    np.testing.assert_array_equal(np.load(io.BytesIO(files["train/grass/s-0-8-8x8.npy"])), CHIP)


@pytest.mark.parametrize("label", [2, -1, None])
def test_a_label_that_is_no_class_names_scene_and_window(label: Any, tmp_path: Path) -> None:
    with (
        PyTorchChipClassificationSampleWriter(str(tmp_path / "out"), CLASSES, str(tmp_path)) as writer,
        pytest.raises(ConfigError, match=rf"'s', window \(0, 0, 8, 8\): the label is {label}.* 2 classes"),
    ):
        writer.write_sample(sample(label))


def test_targets_of_chips_stand_in_a_table(tmp_path: Path) -> None:
    names = ClassConfig(names=["height, in m", "share"])
    with PyTorchChipRegressionSampleWriter(str(tmp_path / "out"), names, str(tmp_path)) as writer:
        writer.write_sample(sample(np.array([1 / 3, math.nan])))
        writer.write_sample(sample(np.array([2.0, 1e-30])))  # a window that was drawn before
        writer.write_sample(sample([5, 6], 8, split="valid"))

    files = files_in(tmp_path / "out")

    rows = list(csv.reader(io.StringIO(files["train/labels.csv"].decode())))
    assert rows == [
        ["file", "height, in m", "share"],
        ["s-0-0-8x8.png", "0.3333333333333333", ""],
        ["s-0-0-8x8-2.png", "2.0", "1e-30"],
    ]
    assert {f"train/img/{row[0]}" for row in rows[1:]} | {"valid/img/s-0-8-8x8.png"} < set(files)


@pytest.mark.parametrize("label", [np.zeros(3), 1.0, None])
def test_another_number_of_targets_is_an_error(label: Any, tmp_path: Path) -> None:
    with (
        PyTorchChipRegressionSampleWriter(str(tmp_path / "out"), CLASSES, str(tmp_path)) as writer,
        pytest.raises(ConfigError, match=r"window \(0, 0, 8, 8\): the label has . numbers, .* names 2 targets"),
    ):
        writer.write_sample(sample(label))


@pytest.fixture
def backend(tmp_path: Path) -> PyTorchChipClassification:
    config = PyTorchChipClassificationConfig(
        model=ClassificationModelConfig(), solver=SolverConfig(), data=ClassificationImageDataConfig(img_channels=3)
    )
    dataset = DatasetConfig(class_config=CLASSES, train_scenes=[], validation_scenes=[])
    pipeline = ChipClassificationConfig(root_uri=str(tmp_path / "run"), dataset=dataset, backend=config)
    pipeline.update()
    return config.build(pipeline, str(tmp_path / "tmp"))


class Windows:
    """As a dataset of windows that gives arrays."""

    class scene:
        id = "here"

    return_window = True

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> Any:
        return (np.full((8, 8, 3), i * 50, np.uint8), i % 2), Box(0, 8 * i, 8, 8 * i + 8)


def test_a_dataset_can_be_chipped(backend: PyTorchChipClassification) -> None:
    options = ChipOptions(sampling=WindowSamplingConfig(size=8))

    with backend.get_sample_writer() as writer:
        backend.chip_pytorch_dataset(Windows(), writer, options, split="train")

    # the first chip has no data
    names = set(files_in(Path(str(backend.pipeline_cfg.chip_uri))))
    assert names == {"train/house/here-0-8-8x8.png", "train/grass/here-0-16-8x8.png"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {}),
        (PredictOptions(chip_sz=64, batch_sz=2), {"chip_sz": 64, "batch_sz": 2}),
        (ChipClassificationPredictOptions(probabilities=True), {"probabilities": True}),
    ],
)
def test_predict_options_of_any_task_will_do(
    given: Any, expected: dict[str, Any], backend: PyTorchChipClassification
) -> None:
    backend.pipeline_cfg.predict_options = given

    assert backend.pipeline_cfg.get_predict_options() == ChipClassificationPredictOptions(**expected)


# -- helpers of examples -------------------------------------------------------------------------------------------


def test_tables_of_scenes_are_read(tmp_path: Path) -> None:
    (tmp_path / "scenes.csv").write_text("a.tif,a.json\nb.tif,b.json\n")

    assert get_scene_info(str(tmp_path / "scenes.csv")) == [["a.tif", "a.json"], ["b.tif", "b.json"]]


def test_a_part_with_enough_labels_is_cut_out(tmp_path: Path) -> None:
    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    image = str(write_geotiff(tmp_path / "image.tif", pixels, epsg=32618))
    boxes = [Box(2, 2, 6, 6), Box(34, 40, 38, 44), Box(50, 50, 54, 54)]
    labels = str(write_polygons(tmp_path / "labels.json", image, boxes))
    crop, label_crop = tmp_path / "crop.tif", tmp_path / "crop.json"

    save_image_crop(image, str(crop), labels, str(label_crop), size=32, min_features=2)

    np.testing.assert_array_equal(read_geotiff(crop)[..., 0], pixels[32:, 32:])
    assert len(json.loads(label_crop.read_text())["features"]) == 2
    with pytest.raises(ConfigError, match=r"No part of the image has 3 features .*; the most that one has is 2"):
        save_image_crop(image, str(tmp_path / "other.tif"), labels, size=32, min_features=3)
