"""How much of each cell is covered by trees: chip regression on imagery that ships with the repository.

    rastervision run local examples/tree_share.py -a root_uri out/tree_share

Trains a small network from random weights, in a few minutes on two CPU cores. The labels are bounding boxes of tree
crowns, which only approximate cover: see data/tree_cover/README.md.
"""

from pathlib import Path

from rastervision.core.data import (
    ChipRegressionLabelSourceConfig,
    ClassConfig,
    DatasetConfig,
    GeoJSONVectorSourceConfig,
    RasterioSourceConfig,
    SceneConfig,
)
from rastervision.core.rv_pipeline import (
    ChipOptions,
    ChipRegressionConfig,
    PredictOptions,
    WindowSamplingConfig,
    WindowSamplingMethod,
)
from rastervision.pytorch_backend import (
    Backbone,
    PyTorchChipRegressionConfig,
    RegressionImageDataConfig,
    RegressionModelConfig,
    SolverConfig,
)

DATA = Path(__file__).parent / "data" / "tree_cover"
CHIP_SZ = 80


def get_config(
    runner: str, root_uri: str, data_uri: str = str(DATA), num_chips: int = 200, num_epochs: int = 10
) -> ChipRegressionConfig:
    """Return the pipeline.

    Args:
        runner: Name of the runner; not used.
        root_uri: Folder of all outputs.
        data_uri: Folder of the sample.
        num_chips: Training chips per scene.
        num_epochs: Passes over the training chips.
    """

    def scene(name: str) -> SceneConfig:
        return SceneConfig(
            id=name,
            raster_source=RasterioSourceConfig(uris=f"{data_uri}/{name}.tif", channel_order=[0, 1, 2]),
            label_source=ChipRegressionLabelSourceConfig(
                vector_source=GeoJSONVectorSourceConfig(uris=f"{data_uri}/{name}.geojson"), aggregations="coverage"
            ),
        )

    return ChipRegressionConfig(
        root_uri=root_uri,
        dataset=DatasetConfig(
            class_config=ClassConfig(names=["tree_share"]),
            train_scenes=[scene("yell"), scene("osbs_west")],
            validation_scenes=[scene("osbs_east")],
        ),
        chip_options=ChipOptions(
            sampling=WindowSamplingConfig(
                method=WindowSamplingMethod.random, size=CHIP_SZ, padding=0, max_windows=int(num_chips)
            )
        ),
        backend=PyTorchChipRegressionConfig(
            # a share lies in 0 to 1: the model ends with a sigmoid
            data=RegressionImageDataConfig(img_sz=CHIP_SZ, num_workers=0, prob_class_names=["tree_share"]),
            model=RegressionModelConfig(backbone=Backbone.resnet18, pretrained=False),
            solver=SolverConfig(lr=3e-4, num_epochs=int(num_epochs), batch_sz=16, seed=1),
        ),
        predict_options=PredictOptions(chip_sz=CHIP_SZ),
    )
