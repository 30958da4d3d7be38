"""Chips of chip classification and object detection, in the layouts of 0.31, by writers as plugins may have them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rastervision.core.box import Box
from rastervision.core.data import (
    ChipClassificationLabelSourceConfig,
    ClassConfig,
    ClassInferenceTransformerConfig,
    DatasetConfig,
    GeoJSONVectorSourceConfig,
    ObjectDetectionLabelSourceConfig,
    RasterioSourceConfig,
    SceneConfig,
)
from rastervision.core.rv_pipeline import (
    ChipClassificationConfig,
    ChipOptions,
    ObjectDetectionChipOptions,
    ObjectDetectionConfig,
    ObjectDetectionWindowSamplingConfig,
    WindowSamplingConfig,
    WindowSamplingMethod,
)
from rastervision.core.rv_pipeline.chip_record import chip_record_uri
from rastervision.pipeline.config import register_config
from rastervision.pytorch_backend.learner_config import DataConfig, ModelConfig, SolverConfig
from rastervision.pytorch_backend.pytorch_learner_backend import PyTorchLearnerBackend, PyTorchLearnerBackendConfig
from rastervision.pytorch_backend.sample_writer import PyTorchLearnerSampleWriter, encode_chip
from rastervision.testing.rasters import write_geotiff
from rastervision.testing.scenes import write_polygons

CLASSES = ["background", "car"]
CARS = [Box(10, 10, 20, 22), Box(50, 60, 62, 70), Box(58, 4, 70, 14)]


class ClassFolderWriter(PyTorchLearnerSampleWriter):
    """``<split>/<class name>/<name>.png``."""

    def encode_sample(self, sample: Any) -> Any:
        ext = self.get_image_ext(sample.chip)
        name = f"{sample.split}/{self.class_config.get_name(sample.label)}/{self.get_stem(sample)}.{ext}"
        return [(name, encode_chip(sample.chip, ext))]


class BoxWriter(PyTorchLearnerSampleWriter):
    """``<split>/img/<name>.png`` and ``<split>/boxes/<name>.json``."""

    def encode_sample(self, sample: Any) -> Any:
        ext = self.get_image_ext(sample.chip)
        boxes, class_ids, order = sample.label
        content = json.dumps({"boxes": boxes.tolist(), "class_ids": class_ids.tolist(), "order": order})
        stem = self.get_stem(sample)
        return [
            (f"{sample.split}/img/{stem}.{ext}", encode_chip(sample.chip, ext)),
            (f"{sample.split}/boxes/{stem}.json", content.encode()),
        ]


@register_config("tests.chips_only_backend")
class ChipsOnlyConfig(PyTorchLearnerBackendConfig):
    def get_learner_config(self, pipeline: Any) -> Any:
        return None

    def build(self, pipeline: Any, tmp_dir: str) -> ChipsOnly:
        return ChipsOnly(pipeline, None, tmp_dir)  # type: ignore[arg-type]

    def update(self, pipeline: Any = None) -> None:
        pass


class ChipsOnly(PyTorchLearnerBackend):
    def get_sample_writer(self) -> PyTorchLearnerSampleWriter:
        writer = BoxWriter if isinstance(self.pipeline_cfg, ObjectDetectionConfig) else ClassFolderWriter
        return writer(str(self.pipeline_cfg.chip_uri), self.pipeline_cfg.dataset.class_config, self.tmp_dir)


def pixels() -> NDArray[np.uint8]:
    image = np.random.default_rng(0).integers(1, 100, (80, 80, 3), dtype=np.uint8)
    for car in CARS:
        image[car.to_slices()] = 250
    return image


def scene(tmp_path: Path, name: str, task: str, image: NDArray[Any] | None = None, **raster_source: Any) -> SceneConfig:
    uri = write_geotiff(tmp_path / f"{name}.tif", pixels() if image is None else image, epsg=32618)
    vectors = GeoJSONVectorSourceConfig(
        uris=str(write_polygons(tmp_path / f"{name}.json", uri, CARS)),
        transformers=[ClassInferenceTransformerConfig(default_class_id=1)],
    )
    labels: Any = ObjectDetectionLabelSourceConfig(vector_source=vectors)
    if task == "cc":
        labels = ChipClassificationLabelSourceConfig(
            vector_source=vectors, infer_cells=True, background_class_id=0, ioa_thresh=0.5
        )
    imagery = RasterioSourceConfig(uris=str(uri), **raster_source)
    return SceneConfig(id=name, raster_source=imagery, label_source=labels)


def chips_of(tmp_path: Path, task: str, sampling: Any, scenes: list[SceneConfig], **options: Any) -> dict[str, Any]:
    """Run the chip command and return what is in its zip files, by name."""
    config_cls: Any = {"cc": ChipClassificationConfig, "od": ObjectDetectionConfig}[task]
    options_cls: Any = {"cc": ChipOptions, "od": ObjectDetectionChipOptions}[task]
    config = config_cls(
        root_uri=str(tmp_path / "run"),
        dataset=DatasetConfig(
            class_config=ClassConfig(names=CLASSES), train_scenes=scenes[:1], validation_scenes=scenes[1:]
        ),
        backend=ChipsOnlyConfig(model=ModelConfig(), solver=SolverConfig(), data=DataConfig()),
        chip_options=options_cls(sampling=sampling, **options),
    )
    config.update()
    config.build(str(tmp_path / "tmp")).chip()
    assert Path(chip_record_uri(config.chip_uri)).is_file()
    found: dict[str, Any] = {}
    for path in Path(config.chip_uri).glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                data = archive.read(name)
                if name.endswith(".json"):
                    found[name] = json.loads(data)
                elif name.endswith(".npy"):
                    found[name] = np.load(io.BytesIO(data))
                else:
                    found[name] = np.asarray(Image.open(io.BytesIO(data)))
    del found["manifest.json"]
    return found


def test_chips_of_classes_lie_in_folders_of_the_classes(tmp_path: Path) -> None:
    scenes = [scene(tmp_path, name, "cc") for name in ("a", "b")]

    chips = chips_of(tmp_path, "cc", WindowSamplingConfig(size=20), scenes)

    # the cells of the pipeline have the size of its chips; half of a car must be in one
    cars = {(0, 0), (40, 60), (60, 0)}
    expected = {
        f"{split}/{CLASSES[int((y, x) in cars)]}/{name}-{y}-{x}-20x20.png"
        for split, name in (("train", "a"), ("valid", "b"))
        for y in range(0, 80, 20)
        for x in range(0, 80, 20)
    }
    assert set(chips) == expected
    np.testing.assert_array_equal(chips["train/car/a-40-60-20x20.png"], pixels()[40:60, 60:80])


def test_boxes_are_those_of_the_window(tmp_path: Path) -> None:
    scenes = [scene(tmp_path, name, "od") for name in ("a", "b")]

    chips = chips_of(tmp_path, "od", ObjectDetectionWindowSamplingConfig(size=40), scenes)

    assert set(chips["train/boxes/a-0-0-40x40.json"]) == {"boxes", "class_ids", "order"}
    assert chips["train/boxes/a-0-0-40x40.json"] == {"boxes": [[10, 10, 20, 22]], "class_ids": [1], "order": "yxyx"}
    assert chips["train/boxes/a-0-40-40x40.json"]["boxes"] == []
    assert chips["train/boxes/a-40-0-40x40.json"]["boxes"] == [[18, 4, 30, 14]]
    assert chips["valid/boxes/b-40-40-40x40.json"]["boxes"] == [[10, 20, 22, 30]]
    for name, content in chips.items():
        if "/boxes/" in name:
            chip = chips[name.replace("/boxes/", "/img/").replace(".json", ".png")]
            for ymin, xmin, ymax, xmax in content["boxes"]:
                assert (chip[int(ymin) : int(ymax), int(xmin) : int(xmax)] == 250).all()


@pytest.mark.parametrize(("ioa_thresh", "clip"), [(0.8, False), (0.4, False), (0.4, True)])
def test_boxes_at_the_edge_count_as_the_options_say(tmp_path: Path, ioa_thresh: float, clip: bool) -> None:
    sampling = ObjectDetectionWindowSamplingConfig(size=15, ioa_thresh=ioa_thresh, clip=clip)

    chips = chips_of(tmp_path, "od", sampling, [scene(tmp_path, "a", "od"), scene(tmp_path, "b", "od")])

    # of the first car 5 of 10 rows and 5 of 12 columns are in the window: 0.21
    assert chips["train/boxes/a-0-0-15x15.json"]["boxes"] == []
    # of the third car 10 of 12 rows are
    assert chips["train/boxes/a-60-0-15x15.json"]["boxes"] == [[0 if clip else -2, 4, 10, 14]]
    # and of the second as well, all columns included
    assert chips["train/boxes/a-45-60-15x15.json"]["boxes"] == [[5, 0, 15 if clip else 17, 10]]
    # of the first 5 of 10 rows and 7 of 12 columns: 0.29
    assert chips["train/boxes/a-15-15-15x15.json"]["boxes"] == []


def test_windows_around_objects_are_resized_with_their_boxes(tmp_path: Path) -> None:
    sampling = ObjectDetectionWindowSamplingConfig(
        method=WindowSamplingMethod.random, size=32, size_lims=(16, 60), max_windows=40, neg_ratio=0.5
    )

    chips = chips_of(tmp_path, "od", sampling, [scene(tmp_path, "a", "od"), scene(tmp_path, "b", "od")])

    labels = {name: content for name, content in chips.items() if name.startswith("train/boxes")}
    positive = [content for content in labels.values() if content["boxes"]]
    # windows without cars may lie beyond the image altogether, and are left out then
    assert 30 <= len(labels) <= 40
    assert 15 <= len(positive) < len(labels)
    for name, content in labels.items():
        chip = chips[name.replace("/boxes/", "/img/").replace(".json", ".png")]
        assert chip.shape == (32, 32, 3)
        for ymin, xmin, ymax, xmax in content["boxes"]:
            inner = chip[int(max(ymin, 0)) + 2 : int(ymax) - 1, int(max(xmin, 0)) + 2 : int(xmax) - 1]
            assert inner.size == 0 or (inner > 240).all()


@pytest.mark.parametrize(("threshold", "kept"), [(1.0, 12), (0.6, 12), (0.5, 8), (0.0, 0)])
@pytest.mark.parametrize("task", ["cc", "od"])
def test_chips_with_too_much_nodata_are_left_out(tmp_path: Path, threshold: float, kept: int, task: str) -> None:
    image = pixels()
    image[:, :20] = 0  # a column of four chips without data, and one with half
    image[:, 20:30] = 0
    image[5, 45] = [0, 0, 7]  # a pixel has data if any of its channels has
    sampling_cls = ObjectDetectionWindowSamplingConfig if task == "od" else WindowSamplingConfig
    scenes = [scene(tmp_path, "a", task, image), scene(tmp_path, "b", task)]

    if not kept:
        with pytest.raises(ValueError, match="chip_options keeps none of 16 training chips"):
            chips_of(tmp_path, task, sampling_cls(size=20), scenes, nodata_threshold=threshold)
        return
    chips = chips_of(tmp_path, task, sampling_cls(size=20), scenes, nodata_threshold=threshold)

    train = [name for name in chips if name.startswith("train/") and not name.endswith(".json")]
    assert len(train) == kept
    assert not [name for name in train if "-0-20x20" in name]


@pytest.mark.parametrize("task", ["cc", "od"])
def test_more_channels_and_bits_go_to_arrays(tmp_path: Path, task: str) -> None:
    image = np.dstack([pixels(), pixels()[..., 0]]).astype(np.uint16) * 100
    sampling_cls = ObjectDetectionWindowSamplingConfig if task == "od" else WindowSamplingConfig
    scenes = [scene(tmp_path, name, task, image, channel_order=[3, 0]) for name in ("a", "b")]

    chips = chips_of(tmp_path, task, sampling_cls(size=40), scenes)

    images = {name: chip for name, chip in chips.items() if name.endswith(".npy")}
    assert len(images) == 8
    chip = next(chip for name, chip in images.items() if "a-40-40-40x40" in name)
    np.testing.assert_array_equal(chip, image[40:80, 40:80][..., [3, 0]])
