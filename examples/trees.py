"""Tree crowns as boxes: object detection on imagery that ships with the repository.

    rastervision run local examples/trees.py -a root_uri out/trees

Trains a small Faster R-CNN from random weights, on new random windows in each epoch. To be good it needs more data than
this; ``-a pretrained yes`` starts from ImageNet weights, which are downloaded, and is much quicker.

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
    ObjectDetectionConfig,
    ObjectDetectionPredictOptions,
    ObjectDetectionWindowSamplingConfig,
    WindowSamplingMethod,
)
from rastervision.pipeline.file_system import file_to_json
from rastervision.pytorch_backend import (
    Backbone,
    LRScheduleConfig,
    ObjectDetectionGeoDataConfig,
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
    num_windows: int = 60,
    num_epochs: int = 6,
    pretrained: str = "no",
) -> ObjectDetectionConfig:
    """Return the pipeline.

    Args:
        runner: Name of the runner; not used.
        root_uri: Folder of all outputs.
        data_uri: Folder of the data; the sample of the repository if not given.
        num_windows: Random windows of each training scene in an epoch.
        num_epochs: Passes over the training scenes.
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
                    transformers=[ClassInferenceTransformerConfig(default_class_id=1)],
                )
            ),
        )

    train, val = ([scene(s) for s in scenes if s["split"] == split] for split in ("train", "val"))
    # crowns at the edge of a window are cut there, and count if a third of them is inside
    edge = {"clip": True, "ioa_thresh": 0.3}
    random = ObjectDetectionWindowSamplingConfig(
        method=WindowSamplingMethod.random,
        size=CHIP_SZ,
        # of other sizes than the model's: crowns are seen smaller and larger than they are
        size_lims=(CHIP_SZ * 3 // 4, CHIP_SZ * 5 // 4),
        padding=0,
        max_windows=int(num_windows),
        **edge,
    )
    grid = ObjectDetectionWindowSamplingConfig(size=CHIP_SZ, stride=CHIP_SZ * 3 // 4, **edge)
    return ObjectDetectionConfig(
        root_uri=root_uri,
        dataset=DatasetConfig(
            class_config=ClassConfig(names=["background", "tree"], colors=["lightgray", "orange"]),
            train_scenes=train,
            validation_scenes=val,
        ),
        backend=PyTorchObjectDetectionConfig(
            data=ObjectDetectionGeoDataConfig(
                sampling={**{s.id: random for s in train}, **{s.id: grid for s in val}},
                img_sz=CHIP_SZ,
                num_workers=0,
                augmentors=["RandomRotate90", "HorizontalFlip", "RGBShift"],
            ),
            model=ObjectDetectionModelConfig(
                backbone=Backbone.resnet18,
                pretrained=pretrained == "yes",
                # fewer boxes to look at than for a photo with everything in it: twice as fast
                extra_args={
                    "anchor_sizes": [16, 32, 64, 128, 256],
                    "rpn_batch_size_per_image": 128,
                    "rpn_pre_nms_top_n_train": 500,
                    "rpn_post_nms_top_n_train": 300,
                    "rpn_pre_nms_top_n_test": 500,
                    "rpn_post_nms_top_n_test": 200,
                    "box_batch_size_per_image": 64,
                },
            ),
            solver=SolverConfig(
                lr=4e-4,
                num_epochs=int(num_epochs),
                batch_sz=4,
                seed=1,
                max_grad_norm=5,
                ema_decay=0.99,
                lr_schedule=LRScheduleConfig(name="cosine", warmup_epochs=1),
            ),
        ),
        predict_options=ObjectDetectionPredictOptions(
            chip_sz=CHIP_SZ, stride=CHIP_SZ // 2, batch_sz=4, score_thresh=0.3, merge_thresh=0.4
        ),
    )
