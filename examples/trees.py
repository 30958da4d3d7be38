"""Tree crowns as boxes: object detection on imagery that ships with the repository.

    rastervision run local examples/trees.py -a root_uri out/trees

Trains a small Faster R-CNN from random weights. To be good it needs more data than this, and an hour on two CPU cores;
``-a pretrained yes`` starts from ImageNet weights, which are downloaded, and is much quicker.

``-a data_uri DIR`` takes data of your own. DIR holds ``scenes.json`` with a list ``scenes`` of
``{"id", "split": "train" | "val", "image", "label"}``; images are RGB GeoTIFFs, labels GeoJSON polygons of crowns, both
relative to DIR.
"""

from pathlib import Path
from typing import Any

from rastervision.core.data import (
    ClassConfig,
    ClassInferenceTransformerConfig,
    DatasetConfig,
    GeoJSONVectorSourceConfig,
    ObjectDetectionLabelSourceConfig,
    RasterioSourceConfig,
    SceneConfig,
)
from rastervision.core.rv_pipeline import (
    ObjectDetectionChipOptions,
    ObjectDetectionConfig,
    ObjectDetectionPredictOptions,
    ObjectDetectionWindowSamplingConfig,
    WindowSamplingMethod,
)
from rastervision.pipeline.file_system import file_to_json
from rastervision.pytorch_backend import (
    Backbone,
    ObjectDetectionImageDataConfig,
    ObjectDetectionModelConfig,
    PyTorchObjectDetectionConfig,
    SolverConfig,
)

DATA = Path(__file__).parent / "data" / "tree_cover"
SCENES = [("yell", "train"), ("osbs_west", "train"), ("osbs_east", "val")]
CHIP_SZ = 160


def get_config(
    runner: str,
    root_uri: str,
    data_uri: str | None = None,
    num_chips: int = 100,
    num_epochs: int = 10,
    pretrained: str = "no",
) -> ObjectDetectionConfig:
    """Return the pipeline.

    Args:
        runner: Name of the runner; not used.
        root_uri: Folder of all outputs.
        data_uri: Folder of the data; the sample of the repository if not given.
        num_chips: Training chips per scene.
        num_epochs: Passes over the training chips.
        pretrained: "yes" to start from ImageNet weights.
    """
    scenes: list[dict[str, Any]]
    if data_uri is None:
        data_uri = str(DATA)
        scenes = [{"id": n, "split": s, "image": f"{n}.tif", "label": f"{n}.geojson"} for n, s in SCENES]
    else:
        scenes = file_to_json(f"{data_uri.rstrip('/')}/scenes.json")["scenes"]

    def scene(info: dict[str, Any]) -> SceneConfig:
        return SceneConfig(
            id=info["id"],
            raster_source=RasterioSourceConfig(uris=f"{data_uri}/{info['image']}", channel_order=[0, 1, 2]),
            label_source=ObjectDetectionLabelSourceConfig(
                vector_source=GeoJSONVectorSourceConfig(
                    uris=f"{data_uri}/{info['label']}",
                    transformers=[ClassInferenceTransformerConfig(default_class_id=0)],
                )
            ),
        )

    return ObjectDetectionConfig(
        root_uri=root_uri,
        dataset=DatasetConfig(
            class_config=ClassConfig(names=["tree"], colors=["orange"]),
            train_scenes=[scene(s) for s in scenes if s["split"] == "train"],
            validation_scenes=[scene(s) for s in scenes if s["split"] == "val"],
        ),
        chip_options=ObjectDetectionChipOptions(
            sampling=ObjectDetectionWindowSamplingConfig(
                method=WindowSamplingMethod.random,
                size=CHIP_SZ,
                padding=0,
                max_windows=int(num_chips),
                # crowns at the edge of a chip are cut there, and count if half of them is inside
                clip=True,
                ioa_thresh=0.5,
            )
        ),
        backend=PyTorchObjectDetectionConfig(
            data=ObjectDetectionImageDataConfig(img_sz=CHIP_SZ, num_workers=0),
            model=ObjectDetectionModelConfig(backbone=Backbone.resnet18, pretrained=pretrained == "yes"),
            solver=SolverConfig(lr=3e-4, num_epochs=int(num_epochs), batch_sz=8, seed=1),
        ),
        predict_options=ObjectDetectionPredictOptions(chip_sz=CHIP_SZ, stride=CHIP_SZ // 2, score_thresh=0.3),
    )
