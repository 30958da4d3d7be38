"""Object detection: chips with their boxes in one file per split, and a learner that finds boxes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from pydantic import Field

from rastervision.pipeline.config import register_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_backend.learner_config.object_detection import (
    ObjectDetectionLearnerConfig,
    ObjectDetectionModelConfig,
)
from rastervision.pytorch_backend.pytorch_learner_backend import (
    PyTorchLearnerBackend,
    PyTorchLearnerBackendConfig,
)
from rastervision.pytorch_backend.sample_writer import PyTorchLearnerSampleWriter, encode_chip

if TYPE_CHECKING:
    from rastervision.core.data.class_config import ClassConfig
    from rastervision.core.data_sample import DataSample
    from rastervision.core.rv_pipeline.rv_pipeline import RVPipelineConfig
    from rastervision.pytorch_backend.sample_writer import EncodedSample

__all__ = ["PyTorchObjectDetection", "PyTorchObjectDetectionConfig", "PyTorchObjectDetectionSampleWriter"]

_LABELS = "labels.json"
_BOX_DECIMALS = 3


@register_config("pytorch_object_detection_backend")
class PyTorchObjectDetectionConfig(PyTorchLearnerBackendConfig):
    """Configure a `PyTorchObjectDetection`."""

    model: ObjectDetectionModelConfig = Field(description="The model.")

    def get_learner_config(self, pipeline: RVPipelineConfig | None) -> ObjectDetectionLearnerConfig:
        """Return the config of the learner, which writes to the pipeline's ``train_uri``."""
        return ObjectDetectionLearnerConfig(**self._learner_fields(pipeline))

    def build(self, pipeline: RVPipelineConfig | None, tmp_dir: str) -> PyTorchObjectDetection:
        """Build the backend of a pipeline; ``tmp_dir`` is a local folder for temporary files."""
        learner = self.get_learner_config(pipeline)
        return PyTorchObjectDetection(cast("RVPipelineConfig", pipeline), learner, tmp_dir)


class PyTorchObjectDetection(PyTorchLearnerBackend):
    """The backend for object detection.

    Predictions have the boxes of overlapping windows; the pipeline keeps the best of those of an object.
    """

    predict_function: ClassVar[str | None] = "rastervision.pytorch_learner.predict_boxes:predict_scene_od"

    def get_sample_writer(self) -> PyTorchObjectDetectionSampleWriter:
        """Return a writer of chips to the pipeline's ``chip_uri``."""
        return self._make_writer(PyTorchObjectDetectionSampleWriter)


class PyTorchObjectDetectionSampleWriter(PyTorchLearnerSampleWriter):
    """Writes ``<split>/img/<name>.png`` (or npy) for each sample, and ``<split>/labels.json`` with their boxes.

    The labels are in the format of COCO (https://cocodataset.org/#format-data); ids of categories are class ids.

    Attributes:
        categories: Id and name of each class.
        splits: Images and annotations by split.
    """

    def __init__(self, output_uri: str, class_config: ClassConfig, tmp_dir: str) -> None:
        super().__init__(output_uri, class_config, tmp_dir)
        self.categories = [{"id": i, "name": name} for i, name in enumerate(class_config.names)]
        self.splits: dict[str, dict[str, list[dict[str, Any]]]] = {}

    def encode_sample(self, sample: DataSample) -> EncodedSample:
        """Return the image file of a sample, and its part of the labels; may be called from several threads.

        Raises:
            ConfigError: The label is not one for object detection, or does not fit the classes.
        """
        self._check_split(sample)
        img_path = self.get_image_path(sample)
        labels = json.dumps(self._coco(sample)).encode()
        image = encode_chip(sample.chip, img_path.rpartition(".")[2])
        return [(self._member(img_path), image), (f"{sample.split}/{_LABELS}", labels)]

    def add_sample(self, files: EncodedSample, scene_id: str | None = None) -> list[str]:
        """Add the image of a sample, and its boxes to the labels of the split."""
        image, (labels_path, labels) = files
        paths = super().add_sample([image], scene_id)
        self._add_coco(labels_path.partition("/")[0], json.loads(labels), paths[0])
        return paths

    def update_coco_data(self, sample: DataSample, img_path: str) -> None:
        """Add the boxes of a sample to the labels of its split.

        Args:
            sample: The sample.
            img_path: Where its chip is.
        """
        self._check_split(sample)
        self._add_coco(str(sample.split), self._coco(sample), img_path)

    def _coco(self, sample: DataSample) -> dict[str, Any]:
        """Return the size of a chip and its boxes, as they stand in a file of labels, without ids."""
        where = f"scene {sample.scene_id!r}" + (f", window {tuple(sample.window)}" if sample.window is not None else "")
        if not isinstance(sample.label, tuple):
            raise ConfigError(f"{where}: there are no boxes. Use a label source for object detection.")
        boxes, class_ids, order = sample.label
        if order != "yxyx":
            raise ConfigError(f"{where}: the boxes are {order!r}, not 'yxyx'. Correct the label source.")
        for class_id in class_ids:
            if not 0 <= class_id < len(self.categories):
                raise ConfigError(
                    f"{where}: the labels have the class id {class_id}, but class_config has {len(self.categories)} "
                    f"classes (0 to {len(self.categories) - 1}). Correct the labels, or add the class."
                )
        ymin, xmin, ymax, xmax = np.asarray(boxes, np.float64).reshape(-1, 4).T
        xywh = np.stack([xmin, ymin, xmax - xmin, ymax - ymin], axis=1).round(_BOX_DECIMALS)
        height, width = sample.chip.shape[-3:-1]
        annotations = [
            {"bbox": box, "area": round(box[2] * box[3], _BOX_DECIMALS), "iscrowd": 0, "category_id": int(class_id)}
            for box, class_id in zip(xywh.tolist(), class_ids, strict=True)
        ]
        return {"height": int(height), "width": int(width), "annotations": annotations}

    def _add_coco(self, split: str, coco: dict[str, Any], img_path: str) -> None:
        labels = self.splits.setdefault(split, {"images": [], "annotations": []})
        image = {"id": len(labels["images"]), "file_name": os.path.basename(img_path)}
        labels["images"].append(image | {"height": coco["height"], "width": coco["width"]})
        for values in coco["annotations"]:
            ids = {"id": len(labels["annotations"]) + 1, "image_id": image["id"]}
            labels["annotations"].append(ids | values)

    def _finish(self) -> None:
        for split, labels in self.splits.items():
            folder = os.path.join(self.sample_dir, split)
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, _LABELS), "w", encoding="utf-8") as f:
                json.dump({**labels, "categories": self.categories}, f)
        super()._finish()
