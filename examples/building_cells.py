"""Which cells of a grid have buildings: chip classification, trained from random weights on two CPU cores.

    rastervision run local examples/building_cells.py -a data_uri DIR -a root_uri out/building_cells

DIR holds ``scenes.json`` with a list ``scenes`` of ``{"id", "split": "train" | "val", "image", "label"}``; images are
RGB GeoTIFFs, labels GeoJSON building polygons, both relative to DIR: the same as for buildings.py. A scene that has
``"chips"`` too, a GeoJSON of cells with class ids, is read by these cells only; others have theirs inferred from the
buildings.
"""

from rastervision.core.data import (
    ChipClassificationLabelSourceConfig,
    ClassConfig,
    ClassInferenceTransformerConfig,
    DatasetConfig,
    GeoJSONVectorSourceConfig,
    RasterioSourceConfig,
    SceneConfig,
)
from rastervision.core.rv_pipeline import (
    ChipClassificationConfig,
    ChipOptions,
    PredictOptions,
    WindowSamplingConfig,
)
from rastervision.pipeline.file_system import file_to_json
from rastervision.pytorch_backend import (
    Backbone,
    ClassificationImageDataConfig,
    ClassificationModelConfig,
    PyTorchChipClassificationConfig,
    SolverConfig,
)

CHIP_SZ, MODEL_SZ = 128, 64


def get_config(runner: str, data_uri: str, root_uri: str, num_epochs: int = 15) -> ChipClassificationConfig:
    """Return the pipeline.

    Args:
        runner: Name of the runner; not used.
        data_uri: Folder of the data.
        root_uri: Folder of all outputs.
        num_epochs: Passes over the training chips.
    """
    data_uri = data_uri.rstrip("/")

    def scene(info: dict[str, str]) -> SceneConfig:
        image = RasterioSourceConfig(uris=f"{data_uri}/{info['image']}", channel_order=[0, 1, 2])
        if "chips" in info:
            cells = f"{data_uri}/{info['chips']}"
            return SceneConfig(
                id=info["id"],
                raster_source=image,
                label_source=ChipClassificationLabelSourceConfig(vector_source=GeoJSONVectorSourceConfig(uris=cells)),
                aoi_uris=[cells],
            )
        return SceneConfig(
            id=info["id"],
            raster_source=image,
            label_source=ChipClassificationLabelSourceConfig(
                vector_source=GeoJSONVectorSourceConfig(
                    uris=f"{data_uri}/{info['label']}",
                    transformers=[ClassInferenceTransformerConfig(default_class_id=1)],
                ),
                # a cell is "building" if one covers a tenth of it or more
                infer_cells=True,
                use_intersection_over_cell=True,
                ioa_thresh=0.1,
                background_class_id=0,
            ),
        )

    scenes = file_to_json(f"{data_uri}/scenes.json")["scenes"]
    return ChipClassificationConfig(
        root_uri=root_uri,
        dataset=DatasetConfig(
            class_config=ClassConfig(names=["no_building", "building"], colors=["lightgray", "crimson"]),
            train_scenes=[scene(s) for s in scenes if s["split"] == "train"],
            validation_scenes=[scene(s) for s in scenes if s["split"] == "val"],
        ),
        chip_options=ChipOptions(sampling=WindowSamplingConfig(size=CHIP_SZ)),
        backend=PyTorchChipClassificationConfig(
            data=ClassificationImageDataConfig(img_sz=MODEL_SZ, num_workers=0),
            model=ClassificationModelConfig(backbone=Backbone.resnet18, pretrained=False),
            solver=SolverConfig(lr=1e-3, num_epochs=int(num_epochs), batch_sz=16, seed=1),
        ),
        predict_options=PredictOptions(chip_sz=CHIP_SZ),
    )
