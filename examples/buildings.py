"""Building footprints on drone imagery, trained from random weights on two CPU cores in a quarter of an hour.

    rastervision run local examples/buildings.py -a data_uri DIR -a root_uri out/buildings

DIR holds ``scenes.json`` with a list ``scenes`` of ``{"id", "split": "train" | "val", "image", "label"}``; images are
RGB GeoTIFFs, labels GeoJSON building polygons, both relative to DIR.
"""

from rastervision.core.data import (
    ClassConfig,
    ClassInferenceTransformerConfig,
    DatasetConfig,
    GeoJSONVectorSourceConfig,
    PolygonVectorOutputConfig,
    RasterioSourceConfig,
    RasterizedSourceConfig,
    RasterizerConfig,
    SceneConfig,
    SemanticSegmentationLabelSourceConfig,
    SemanticSegmentationLabelStoreConfig,
)
from rastervision.core.rv_pipeline import (
    SemanticSegmentationChipOptions,
    SemanticSegmentationConfig,
    SemanticSegmentationPredictOptions,
    WindowSamplingConfig,
    WindowSamplingMethod,
)
from rastervision.pipeline.file_system import file_to_json
from rastervision.pytorch_backend import (
    Backbone,
    PyTorchSemanticSegmentationConfig,
    SemanticSegmentationImageDataConfig,
    SemanticSegmentationModelConfig,
    SolverConfig,
)

CHIP_SZ = 192


def get_config(runner: str, data_uri: str, root_uri: str, num_epochs: int = 20) -> SemanticSegmentationConfig:
    """Return the pipeline.

    Args:
        runner: Name of the runner; not used.
        data_uri: Folder of the data.
        root_uri: Folder of all outputs.
        num_epochs: Passes over the training chips.
    """
    data_uri = data_uri.rstrip("/")
    class_config = ClassConfig(names=["background", "building"], colors=["lightgray", "crimson"])

    def scene(info: dict[str, str]) -> SceneConfig:
        return SceneConfig(
            id=info["id"],
            raster_source=RasterioSourceConfig(uris=f"{data_uri}/{info['image']}", channel_order=[0, 1, 2]),
            label_source=SemanticSegmentationLabelSourceConfig(
                raster_source=RasterizedSourceConfig(
                    vector_source=GeoJSONVectorSourceConfig(
                        uris=f"{data_uri}/{info['label']}",
                        transformers=[ClassInferenceTransformerConfig(default_class_id=1)],
                    ),
                    rasterizer_config=RasterizerConfig(background_class_id=0),
                )
            ),
            label_store=SemanticSegmentationLabelStoreConfig(
                smooth_output=True, vector_output=[PolygonVectorOutputConfig(class_id=1)]
            ),
        )

    scenes = file_to_json(f"{data_uri}/scenes.json")["scenes"]
    return SemanticSegmentationConfig(
        root_uri=root_uri,
        dataset=DatasetConfig(
            class_config=class_config,
            train_scenes=[scene(s) for s in scenes if s["split"] == "train"],
            validation_scenes=[scene(s) for s in scenes if s["split"] == "val"],
        ),
        chip_options=SemanticSegmentationChipOptions(
            sampling=WindowSamplingConfig(
                method=WindowSamplingMethod.random,
                size=CHIP_SZ,
                size_lims=(CHIP_SZ, CHIP_SZ + 1),
                max_windows=60,
                padding=0,
            ),
            # chips without a building teach little: keep a third of them
            target_class_ids=[1],
            target_count_threshold=100,
            negative_survival_prob=0.35,
        ),
        backend=PyTorchSemanticSegmentationConfig(
            data=SemanticSegmentationImageDataConfig(img_sz=CHIP_SZ, num_workers=0),
            model=SemanticSegmentationModelConfig(
                backbone=Backbone.resnet18, pretrained=False, extra_args={"output_stride": 16}
            ),
            solver=SolverConfig(lr=1e-3, num_epochs=int(num_epochs), batch_sz=8, seed=1),
        ),
        predict_options=SemanticSegmentationPredictOptions(chip_sz=CHIP_SZ, stride=CHIP_SZ // 2, crop_sz="auto"),
    )
