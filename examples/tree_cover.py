"""Tree cover on NEON airborne imagery: the whole pipeline on data that ships with the repository.

    rastervision run local examples/tree_cover.py -a root_uri out/tree_cover

Trains a small segmentation network from random weights, in a few minutes on two CPU cores. The labels are bounding
boxes of tree crowns, which only approximate cover: see data/tree_cover/README.md.
"""

from pathlib import Path

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
    StatsTransformerConfig,
)
from rastervision.core.rv_pipeline import (
    SemanticSegmentationChipOptions,
    SemanticSegmentationConfig,
    SemanticSegmentationPredictOptions,
    WindowSamplingConfig,
    WindowSamplingMethod,
)
from rastervision.pytorch_backend import (
    Backbone,
    PyTorchSemanticSegmentationConfig,
    SemanticSegmentationImageDataConfig,
    SemanticSegmentationModelConfig,
    SolverConfig,
)

DATA = Path(__file__).parent / "data" / "tree_cover"
CHIP_SZ = 160


def get_config(
    runner: str, root_uri: str, data_uri: str = str(DATA), num_epochs: int = 8
) -> SemanticSegmentationConfig:
    """Return the pipeline.

    Args:
        runner: Name of the runner; not used.
        root_uri: Folder of all outputs.
        data_uri: Folder of the sample.
        num_epochs: Passes over the training chips.
    """
    class_config = ClassConfig(names=["background", "tree"], colors=["lightgray", "darkgreen"])

    def scene(name: str) -> SceneConfig:
        return SceneConfig(
            id=name,
            raster_source=RasterioSourceConfig(
                uris=f"{data_uri}/{name}.tif",
                channel_order=[0, 1, 2],
                # scales imagery of any depth to 8 bits by its statistics; 8-bit imagery like this stays as it is
                transformers=[StatsTransformerConfig()],
            ),
            label_source=SemanticSegmentationLabelSourceConfig(
                raster_source=RasterizedSourceConfig(
                    vector_source=GeoJSONVectorSourceConfig(
                        uris=f"{data_uri}/{name}.geojson",
                        transformers=[ClassInferenceTransformerConfig(default_class_id=1)],
                    ),
                    rasterizer_config=RasterizerConfig(background_class_id=0),
                )
            ),
            label_store=SemanticSegmentationLabelStoreConfig(
                smooth_output=True, vector_output=[PolygonVectorOutputConfig(class_id=1)]
            ),
        )

    return SemanticSegmentationConfig(
        root_uri=root_uri,
        dataset=DatasetConfig(
            class_config=class_config,
            train_scenes=[scene("yell"), scene("osbs_west")],
            validation_scenes=[scene("osbs_east")],
        ),
        chip_options=SemanticSegmentationChipOptions(
            # padding=0: no chip reaches over the edge of a scene, where there is nothing to learn
            sampling=WindowSamplingConfig(method=WindowSamplingMethod.random, size=CHIP_SZ, padding=0, max_windows=100)
        ),
        backend=PyTorchSemanticSegmentationConfig(
            data=SemanticSegmentationImageDataConfig(img_sz=CHIP_SZ, num_workers=0),
            # no download of pretrained weights: the demo needs nothing but this repository
            model=SemanticSegmentationModelConfig(
                backbone=Backbone.resnet18, pretrained=False, extra_args={"output_stride": 16}
            ),
            solver=SolverConfig(lr=1e-3, num_epochs=int(num_epochs), batch_sz=8, seed=1),
        ),
        # windows overlap by half, and their scores are averaged: no seams
        predict_options=SemanticSegmentationPredictOptions(chip_sz=CHIP_SZ, stride=CHIP_SZ // 2),
    )
