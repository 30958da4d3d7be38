from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rastervision.core.box import Box
from rastervision.core.data import ClassConfig, DatasetConfig
from rastervision.core.data_sample import DataSample
from rastervision.core.rv_pipeline import ObjectDetectionConfig
from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_backend import (
    PyTorchObjectDetection,
    PyTorchObjectDetectionConfig,
    PyTorchObjectDetectionSampleWriter,
)
from rastervision.pytorch_backend.learner_config import (
    ObjectDetectionImageDataConfig,
    ObjectDetectionModelConfig,
    SolverConfig,
)

CLASSES = ClassConfig(names=["car", "house"])
CATEGORIES = [{"id": 0, "name": "car"}, {"id": 1, "name": "house"}]


def sample(*boxes: tuple[float, ...], split: str = "train", class_id: int = 1, **kwargs: Any) -> DataSample:
    label = (np.array(boxes, dtype=float).reshape(-1, 4), np.full(len(boxes), class_id), "yxyx")
    chip = np.random.default_rng(0).integers(0, 255, (20, 30, kwargs.pop("channels", 3)), dtype=np.uint8)
    return DataSample(chip=chip, label=label, split=split, **kwargs)  # type: ignore[arg-type]


def write(tmp_path: Path, *samples: DataSample) -> dict[str, Any]:
    """Write samples and return the images and labels in the zip file by name."""
    with PyTorchObjectDetectionSampleWriter(str(tmp_path / "out"), CLASSES, str(tmp_path / "tmp")) as writer:
        for one in samples:
            writer.write_sample(one)
    (path,) = (tmp_path / "out").glob("*.zip")
    found: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            if name.endswith(".json"):
                found[name] = json.loads(data)
            else:
                load = np.load if name.endswith(".npy") else Image.open
                found[name] = np.asarray(load(io.BytesIO(data)))
    del found["manifest.json"]
    return found


def test_each_split_has_its_images_and_labels(tmp_path: Path) -> None:
    window = Box(40, 60, 60, 90)
    samples = [
        sample((2, 3, 10, 20.12345), (0, 0, 5, 5), scene_id="a", window=window),
        sample(scene_id="a", window=Box(0, 0, 20, 30), channels=4),
        sample((1, 1, 2, 2), class_id=0, split="valid", scene_id="b", window=window),
        sample(split="test"),
    ]

    files = write(tmp_path, *samples)

    assert set(files) == {
        "train/img/a-40-60-20x30.png", "train/img/a-0-0-20x30.npy", "train/labels.json",
        "valid/img/b-40-60-20x30.png", "valid/labels.json", "test/img/3.png", "test/labels.json",
    }  # fmt: skip
    np.testing.assert_array_equal(files["train/img/a-40-60-20x30.png"], samples[0].chip)
    size = {"height": 20, "width": 30}
    house = {"image_id": 0, "category_id": 1, "iscrowd": 0}
    assert files["train/labels.json"] == {
        "images": [
            {"id": 0, "file_name": "a-40-60-20x30.png", **size},
            {"id": 1, "file_name": "a-0-0-20x30.npy", **size},
        ],
        "annotations": [
            {"id": 1, "bbox": [3, 2, 17.123, 8], "area": 136.984, **house},
            {"id": 2, "bbox": [0, 0, 5, 5], "area": 25, **house},
        ],
        "categories": CATEGORIES,
    }
    assert [a["category_id"] for a in files["valid/labels.json"]["annotations"]] == [0]
    assert files["test/labels.json"]["annotations"] == []


def test_a_window_drawn_twice_has_two_images_with_their_boxes(tmp_path: Path) -> None:
    one = sample((2, 3, 10, 20), scene_id="a", window=Box(0, 0, 20, 30))

    files = write(tmp_path, one, one)

    labels = files["train/labels.json"]
    assert [i["file_name"] for i in labels["images"]] == ["a-0-0-20x30.png", "a-0-0-20x30-2.png"]
    assert {f"train/img/{i['file_name']}" for i in labels["images"]} == set(files) - {"train/labels.json"}
    assert [(a["id"], a["image_id"]) for a in labels["annotations"]] == [(1, 0), (2, 1)]


def test_boxes_can_be_added_one_by_one_as_in_0_31(tmp_path: Path) -> None:
    with PyTorchObjectDetectionSampleWriter(str(tmp_path), CLASSES, str(tmp_path / "tmp")) as writer:
        writer.update_coco_data(sample((2, 3, 10, 20)), "/somewhere/train/img/7.png")
        assert writer.categories == CATEGORIES
        assert [i["file_name"] for i in writer.splits["train"]["images"]] == ["7.png"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, r"scene 'a', window \(0, 0, 20, 30\): there are no boxes"),
        ({"label": (np.zeros((1, 4)), np.array([2]), "yxyx")}, r"class id 2, but class_config has 2 classes"),
        ({"label": (np.zeros((1, 4)), np.array([0]), "xywh")}, r"the boxes are 'xywh', not 'yxyx'"),
        ({"split": "trian"}, r"sample.split is 'trian'"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    bad = sample(scene_id="a", window=Box(0, 0, 20, 30))
    for name, value in change.items():
        setattr(bad, name, value)

    with pytest.raises(ConfigError, match=message):
        write(tmp_path, bad)
    assert not list((tmp_path / "out").glob("*.zip"))


def test_the_config_builds_the_backend(tmp_path: Path) -> None:
    backend_config = PyTorchObjectDetectionConfig(
        model=ObjectDetectionModelConfig(), solver=SolverConfig(), data=ObjectDetectionImageDataConfig()
    )
    pipeline: Any = ObjectDetectionConfig(
        root_uri=str(tmp_path),
        dataset=DatasetConfig(class_config=CLASSES, train_scenes=[], validation_scenes=[]),
        backend=backend_config,
    )

    backend = backend_config.build(pipeline, str(tmp_path / "tmp"))

    assert isinstance(backend, PyTorchObjectDetection)
    with pytest.raises(ConfigError, match="chip_uri is not set"):
        backend.get_sample_writer()
    pipeline.chip_uri = str(tmp_path / "chips")
    assert backend.get_sample_writer().output_uri == str(tmp_path / "chips")


@pytest.mark.parametrize("option", [{"loss": "dice"}, {"ignore_class_index": 0}, {"class_loss_weights": [1, 2]}])
def test_options_of_the_loss_are_refused(option: dict[str, Any]) -> None:
    backend_config = PyTorchObjectDetectionConfig(
        model=ObjectDetectionModelConfig(), solver=SolverConfig(**option), data=ObjectDetectionImageDataConfig()
    )

    with pytest.raises(ValueError, match=f"{next(iter(option))}.* has no effect in object detection"):
        backend_config.get_learner_config(None)
