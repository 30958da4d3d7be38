"""Land use from several dates of Sentinel-2, all bands: training and validation areas of one image.

    rastervision run local examples/land_use.py -a data_uri DIR -a root_uri out/land_use

DIR holds ``scenes.json`` with ``classes`` (a list of ``{"id", "name"}``), ``null_class``, ``images`` (``{"image",
"cloud_fraction"}``, one for each date), ``label_raster``, and ``scenes`` (``{"id", "split": "train" | "val", "aoi"}``).
Images and labels are GeoTIFFs on one grid, AOIs GeoJSON, all relative to DIR. Dates without clouds are stacked as
bands.
"""

from rastervision.core.data import (
    ClassConfig,
    DatasetConfig,
    MultiRasterSourceConfig,
    RasterioSourceConfig,
    ReclassTransformerConfig,
    SceneConfig,
    SemanticSegmentationLabelSourceConfig,
    StatsTransformerConfig,
)
from rastervision.core.rv_pipeline import (
    SemanticSegmentationConfig,
    SemanticSegmentationPredictOptions,
    WindowSamplingConfig,
    WindowSamplingMethod,
)
from rastervision.pipeline.file_system import file_to_json
from rastervision.pytorch_backend import (
    Backbone,
    PyTorchSemanticSegmentationConfig,
    SemanticSegmentationGeoDataConfig,
    SemanticSegmentationModelConfig,
    SolverConfig,
)

CHIP_SZ, MODEL_SZ = 32, 128
# pixels of rare classes count more; those of other names count once
CLASS_WEIGHTS = {"forest": 0.5, "shrubland": 4.0, "artificial_surface": 8.0}


def get_config(
    runner: str, data_uri: str, root_uri: str, num_windows: int = 128, num_epochs: int = 8
) -> SemanticSegmentationConfig:
    """Return the pipeline.

    Args:
        runner: Name of the runner; not used.
        data_uri: Folder of the data.
        root_uri: Folder of all outputs.
        num_windows: Random windows of each training area in an epoch.
        num_epochs: Passes over the training areas.
    """
    data_uri = data_uri.rstrip("/")
    info = file_to_json(f"{data_uri}/scenes.json")
    class_config = ClassConfig(names=[c["name"] for c in info["classes"]], null_class=info["null_class"])
    clear = [f"{data_uri}/{image['image']}" for image in info["images"] if image["cloud_fraction"] < 0.1]

    def scene(part: dict[str, str]) -> SceneConfig:
        return SceneConfig(
            id=part["id"],
            raster_source=MultiRasterSourceConfig(
                raster_sources=[RasterioSourceConfig(uris=uri) for uri in clear],
                transformers=[StatsTransformerConfig()],
            ),
            label_source=SemanticSegmentationLabelSourceConfig(
                raster_source=RasterioSourceConfig(
                    uris=f"{data_uri}/{info['label_raster']}",
                    # ids of the labels may have gaps: a class is known by its place in class_config
                    transformers=[
                        ReclassTransformerConfig(mapping={c["id"]: i for i, c in enumerate(info["classes"])})
                    ],
                )
            ),
            aoi_uris=[f"{data_uri}/{part['aoi']}"],
        )

    train, val = ([scene(s) for s in info["scenes"] if s["split"] == split] for split in ("train", "val"))
    random = WindowSamplingConfig(
        method=WindowSamplingMethod.random,
        size=CHIP_SZ,
        size_lims=(CHIP_SZ * 3 // 4, CHIP_SZ + 1),
        max_windows=int(num_windows),
        padding=0,
        within_aoi=True,
    )
    grid = WindowSamplingConfig(size=CHIP_SZ, stride=CHIP_SZ // 2, within_aoi=False)
    return SemanticSegmentationConfig(
        root_uri=root_uri,
        dataset=DatasetConfig(class_config=class_config, train_scenes=train, validation_scenes=val),
        backend=PyTorchSemanticSegmentationConfig(
            data=SemanticSegmentationGeoDataConfig(
                sampling={**{s.id: random for s in train}, **{s.id: grid for s in val}},
                img_sz=MODEL_SZ,
                num_workers=0,
                augmentors=["RandomRotate90", "HorizontalFlip", "VerticalFlip"],
            ),
            model=SemanticSegmentationModelConfig(
                backbone=Backbone.resnet18, pretrained=False, extra_args={"output_stride": 16}
            ),
            solver=SolverConfig(
                lr=1e-3,
                num_epochs=int(num_epochs),
                batch_sz=8,
                seed=1,
                class_loss_weights=[CLASS_WEIGHTS.get(name, 1.0) for name in class_config.names],
                ignore_class_index=0,
            ),
        ),
        predict_options=SemanticSegmentationPredictOptions(chip_sz=CHIP_SZ, stride=CHIP_SZ // 4, crop_sz=0),
    )
