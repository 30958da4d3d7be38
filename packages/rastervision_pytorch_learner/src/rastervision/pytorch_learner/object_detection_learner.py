"""The learner for object detection: boxes with a class and a score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_learner.coco_metrics import compute_coco_eval, precision_recall
from rastervision.pytorch_learner.dataset.visualizer import ObjectDetectionVisualizer
from rastervision.pytorch_learner.learner import Learner
from rastervision.pytorch_learner.object_detection_utils import (
    ONNXRuntimeAdapterForFasterRCNN,
    TorchVisionODAdapter,
    collate_fn,
)
from rastervision.pytorch_learner.onnx_export import DETECTION_OUTPUTS, DetectionOutputs, ONNXRuntimeAdapter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.figure import Figure
    from torch import nn

    from rastervision.pytorch_learner.box_list import BoxList

__all__ = ["ObjectDetectionLearner"]


class ObjectDetectionLearner(Learner):
    """Train and run detection models: those of torchvision, or others that are called in the same way."""

    best_metric: ClassVar[tuple[str, bool]] = ("mAP", True)
    onnx_outputs: ClassVar[Sequence[str]] = DETECTION_OUTPUTS
    onnx_adapter: ClassVar[type[ONNXRuntimeAdapter]] = ONNXRuntimeAdapterForFasterRCNN

    _measured: tuple[list[BoxList], list[BoxList]] | None = None

    def get_visualizer_class(self) -> type[ObjectDetectionVisualizer]:
        """Return the class that plots boxes."""
        return ObjectDetectionVisualizer

    def get_collate_fn(self) -> Callable[..., Any]:
        """Return the function that makes batches: images are stacked, boxes are listed."""
        return collate_fn

    def setup_model(self, model_weights_path: str | None = None, model_def_path: str | None = None) -> None:
        """Build the model, or wrap the one that was given, and load the weights to start from."""
        if self.model is not None and not isinstance(self.model, (TorchVisionODAdapter, ONNXRuntimeAdapter)):
            self.model = TorchVisionODAdapter(self.model)
        super().setup_model(model_weights_path, model_def_path)

    def build_model(self, model_def_path: str | None = None, fetch_weights: bool = True) -> nn.Module:
        """Build the model of the config; arguments as `Learner.build_model`."""
        cfg, data = self.cfg.model, self.cfg.data
        if cfg is None:
            raise ConfigError("learner.model is not set. Set it, or give the learner a model object.")
        model = cfg.build(
            num_classes=data.num_classes,
            in_channels=data.img_channels,  # type: ignore[arg-type]
            save_dir=self.modules_dir,
            hubconf_dir=model_def_path,
            img_sz=data.img_sz,
            **({} if fetch_weights else {"fetch_weights": False}),
        )
        return model if isinstance(model, TorchVisionODAdapter) else TorchVisionODAdapter(model)

    def setup_loss(self, loss_def_path: str | None = None) -> None:
        """Do nothing: the model computes its losses."""

    def train_step(self, batch: Any, batch_ind: int) -> dict[str, Any]:
        """Return the losses of a batch and their sum, ``train_loss``."""
        x, y = batch
        losses = self.model(x, y)
        return {**{name: loss.detach() for name, loss in losses.items()}, "train_loss": sum(losses.values())}

    def validate_step(self, batch: Any, batch_ind: int) -> dict[str, Any]:
        """Return the true and the predicted boxes of a batch."""
        x, y = batch
        return {"ys": [b.to("cpu") for b in y], "outs": [b.to("cpu") for b in self.model(x)]}

    def validate_end(self, outputs: list[dict[str, Any]]) -> dict[str, float]:
        """Return the average precision as COCO measures it: ``mAP``, and ``mAP50`` at an IoU of 0.5."""
        truth, found = ([boxes for o in outputs for boxes in o[key]] for key in ("ys", "outs"))
        self._measured = found, truth
        stats = compute_coco_eval(found, truth, self.cfg.data.num_classes).stats
        return {"mAP": float(stats[0]), "mAP50": float(stats[1])}

    def plot_metrics(self) -> dict[str, Figure]:
        """Return a plot of precision against recall in the last pass of validation."""
        from rastervision.pytorch_learner.plots import plot_precision_recall

        if self._measured is None:
            return {}
        names = self.cfg.data.class_names or []
        curves = {name: precision_recall(*self._measured, class_id=i) for i, name in enumerate(names)}
        return {"precision_recall": plot_precision_recall(curves, "IoU 0.5")}

    def check_batch(self, batch: Any, describe: Callable[[], str]) -> None:
        """Raise `ConfigError` if boxes have a class id that the class config does not have."""
        y = batch[1]
        if any(isinstance(boxes, torch.Tensor) for boxes in y):
            raise ConfigError(f"There are chips without labels ({describe()}). Add a label source to their scenes.")
        ids = torch.cat([boxes.get_field("class_ids") for boxes in y])
        names = self.cfg.data.class_names or []
        wrong = ids[(ids < 0) | (ids >= len(names))]
        if len(wrong):
            raise ConfigError(
                f"The labels have class id {int(wrong[0])}, but there are {len(names)} classes "
                f"(0 to {len(names) - 1}: {', '.join(names)}), in {describe()}. Correct the class config or "
                "the labels."
            )

    def predict(
        self, x: torch.Tensor, raw_out: bool = False, out_shape: tuple[int, int] | None = None
    ) -> list[BoxList]:
        """Return the boxes in a chip or in each chip of a batch, on the CPU.

        Args:
            x: (C, H, W) or (N, C, H, W) chips, float in 0..1.
            raw_out: No effect: the boxes are what the model gives.
            out_shape: (height, width) of images to which the boxes are scaled.
        """
        out = [boxes.to("cpu") for boxes in self._forward(x)]
        return out if out_shape is None else self.postprocess_model_output(x, out, out_shape)

    def predict_onnx(
        self, x: torch.Tensor, raw_out: bool = False, out_shape: tuple[int, int] | None = None
    ) -> list[BoxList]:
        """Return what `predict` does, which serves ONNX models too."""
        return self.predict(x, raw_out=raw_out, out_shape=out_shape)

    def postprocess_model_output(
        self, x: torch.Tensor, out_batch: Sequence[BoxList], out_shape: tuple[int, int]
    ) -> list[BoxList]:
        """Return boxes as they are in images of another size.

        Args:
            x: (..., H, W) the chips in which they were found.
            out_batch: The boxes of each chip.
            out_shape: (height, width) of the images.
        """
        yscale, xscale = out_shape[0] / x.shape[-2], out_shape[1] / x.shape[-1]
        return [boxes.scale(yscale, xscale) for boxes in out_batch]

    def prob_to_pred(self, x: Any) -> Any:
        """Return ``x``: boxes have a class already."""
        return x

    def output_to_numpy(self, out: Any) -> Any:
        """Return boxes as a dict of arrays ``boxes`` (yxyx), ``class_ids`` and ``scores``; a list for a list."""
        if isinstance(out, list):
            return [self.output_to_numpy(boxes) for boxes in out]
        if isinstance(out, torch.Tensor):
            return out.numpy()
        values: dict[str, np.ndarray[Any, Any]] = {"boxes": out.convert_boxes("yxyx").numpy()}
        return values | {name: out.get_field(name).numpy() for name in ("class_ids", "scores") if name in out}

    def make_exportable(self, model: nn.Module) -> nn.Module:
        """Return a module around a model that gives boxes, class ids and scores of one image."""
        return DetectionOutputs(model)
