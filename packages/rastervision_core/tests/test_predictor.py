"""Predicting new imagery with a bundle."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rastervision.core.box import Box
from rastervision.core.data.dataset_config import DatasetConfig
from rastervision.core.data.label_store.semantic_segmentation_label_store import SemanticSegmentationLabelStoreConfig
from rastervision.core.data.raster_transformer.stats_transformer import StatsTransformerConfig
from rastervision.core.predictor import Predictor, ScenePredictor
from rastervision.core.rv_pipeline import SemanticSegmentationConfig, SemanticSegmentationPredictOptions
from rastervision.pipeline.errors import BundleError, ConfigError, NotReadableError
from rastervision.testing.rasters import read_geotiff, write_geotiff
from rastervision.testing.scenes import make_square_scene, square_classes, square_labels

MakePipeline = Callable[..., SemanticSegmentationConfig]

SQUARE = Box(10, 20, 40, 50)


@pytest.fixture
def bundle(make_pipeline: MakePipeline, tmp_path: Path) -> str:
    """A bundle whose validation scene has a bbox, an AOI and labels."""
    folder = tmp_path / "data"
    scene = make_square_scene(folder, "val", aois=[Box(0, 0, 50, 50)], bbox=(5, 5, 60, 60))
    dataset = DatasetConfig(class_config=square_classes(), train_scenes=[], validation_scenes=[scene])
    return make_bundle(make_pipeline(dataset=dataset), tmp_path)


def make_bundle(config: SemanticSegmentationConfig, tmp_path: Path) -> str:
    config.update()
    pipeline = config.build(str(tmp_path / "tmp"))
    pipeline.train()
    if pipeline.config.analyzers:
        pipeline.analyze()
    pipeline.bundle()
    return config.get_model_bundle_uri()


@pytest.fixture
def image(tmp_path: Path) -> str:
    """A new image with one square, larger than the validation scene."""
    make_square_scene(tmp_path / "new", "new", size=(120, 140), squares=[SQUARE], labels=None)
    return str(tmp_path / "new/new.tif")


def labels_at(uri: str) -> Any:
    return read_geotiff(Path(uri) / "labels.tif")[..., 0]


def test_predicts_a_whole_new_image(bundle: str, image: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    predictor = Predictor(bundle, str(tmp_path / "work"))
    assert not predictor.model_loaded

    predictor.predict([image], out)
    predictor.predict(image, str(tmp_path / "again"))

    np.testing.assert_array_equal(labels_at(out), square_labels((120, 140), [SQUARE]))
    np.testing.assert_array_equal(labels_at(out), labels_at(str(tmp_path / "again")))
    assert predictor.model_loaded
    assert len(list((tmp_path / "out/vector_output").iterdir())) == 3
    assert predictor.scene.raster_source.bbox is None
    assert not (tmp_path / "run/predict").exists()


def test_a_channel_order_replaces_that_of_training(bundle: str, tmp_path: Path) -> None:
    dark = np.full((40, 40, 1), 20, np.uint8)
    image = np.concatenate([dark, dark, np.full_like(dark, 220)], axis=-1)
    path = str(write_geotiff(tmp_path / "bgr.tif", image, epsg=32618))
    Predictor(bundle, str(tmp_path / "w1")).predict([path], str(tmp_path / "rgb"))
    Predictor(bundle, str(tmp_path / "w2"), channel_order=[2, 1, 0]).predict([path], str(tmp_path / "bgr"))
    assert (labels_at(str(tmp_path / "rgb")) == 0).all()
    assert (labels_at(str(tmp_path / "bgr")) == 1).all()


def test_an_image_with_too_few_bands_is_named(bundle: str, tmp_path: Path) -> None:
    path = str(write_geotiff(tmp_path / "grey.tif", np.full((40, 40, 1), 20, np.uint8), epsg=32618))
    predictor = Predictor(bundle, str(tmp_path / "work"), channel_order=[2, 1, 0])
    with pytest.raises(ValueError, match=r"grey\.tif") as error:
        predictor.predict([path], str(tmp_path / "out"))
    assert "channel" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_the_number_of_channels_must_be_that_of_training(
    make_pipeline: MakePipeline,
    threshold_backend_config: Any,
    threshold_data_config: Any,
    tmp_path: Path,
) -> None:
    backend = threshold_backend_config(data=threshold_data_config(img_channels=3))
    bundle = make_bundle(make_pipeline(backend=backend), tmp_path)
    path = str(write_geotiff(tmp_path / "grey.tif", np.full((40, 40, 1), 20, np.uint8), epsg=32618))
    with pytest.raises(ConfigError, match=r"grey\.tif gives 1 channels, but the model was trained on 3"):
        Predictor(bundle, str(tmp_path / "work")).predict([path], str(tmp_path / "out"))


def test_a_missing_image_is_named(bundle: str, tmp_path: Path) -> None:
    predictor = Predictor(bundle, str(tmp_path / "work"))
    with pytest.raises(NotReadableError, match=r"gone\.tif"):
        predictor.predict([str(tmp_path / "gone.tif")], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


# -- statistics ------------------------------------------------------------------------------------------------


@pytest.fixture
def stats_bundle(make_pipeline: MakePipeline, tmp_path: Path) -> str:
    """A bundle for imagery of 16 bits that is transformed by its statistics."""
    scenes = [
        make_square_scene(
            tmp_path / "data",
            name,
            dtype="uint16",
            transformers=[StatsTransformerConfig()],
            squares=[Box(0, 0, 10, 10)],
        )
        for name in ("train", "val")
    ]
    dataset = DatasetConfig(class_config=square_classes(), train_scenes=scenes[:1], validation_scenes=scenes[1:])
    return make_bundle(make_pipeline(dataset=dataset), tmp_path)


@pytest.fixture
def bright_image(tmp_path: Path) -> str:
    """An image of which the training statistics say nothing: all of it is far above their mean."""
    image = np.full((60, 60, 3), 5000, np.uint16)
    image[10:30, 10:30] = 6000
    return str(write_geotiff(tmp_path / "bright.tif", image, epsg=32618))


def test_the_statistics_of_training_are_used(stats_bundle: str, bright_image: str, tmp_path: Path) -> None:
    Predictor(stats_bundle, str(tmp_path / "work")).predict([bright_image], str(tmp_path / "out"))
    assert (labels_at(str(tmp_path / "out")) == 1).all()


def test_statistics_of_the_image_are_used_if_asked_for(stats_bundle: str, bright_image: str, tmp_path: Path) -> None:
    # 0.31 writes them where the transformer does not look, or fails
    predictor = Predictor(stats_bundle, str(tmp_path / "work"), update_stats=True)
    predictor.predict([bright_image], str(tmp_path / "out"))
    expected = square_labels((60, 60), [Box(10, 10, 30, 30)])
    np.testing.assert_array_equal(labels_at(str(tmp_path / "out")), expected)


def test_updating_statistics_that_are_not_used_is_said(
    bundle: str, image: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Predictor(bundle, str(tmp_path / "work"), update_stats=True).predict([image], str(tmp_path / "out"))
    assert "update_stats has no effect" in caplog.text


def test_statistics_of_another_group(stats_bundle: str, bright_image: str, tmp_path: Path) -> None:
    predictor = Predictor(stats_bundle, str(tmp_path / "work"), scene_group="validation_scenes")
    transformer: Any = predictor.scene.raster_source.transformers[0]
    assert transformer.stats_uri == str(tmp_path / "work/bundle/analyze/stats/validation_scenes/stats.json")
    predictor.predict([bright_image], str(tmp_path / "out"))
    with pytest.raises(ConfigError, match=r"'nowhere', it has \['train_scenes', 'validation_scenes'\]"):
        Predictor(stats_bundle, str(tmp_path / "work"), scene_group="nowhere")


# -- bad bundles -----------------------------------------------------------------------------------------------


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReadableError, match=r"no model bundle at .*gone\.zip"):
        Predictor(str(tmp_path / "gone.zip"), str(tmp_path / "work"))


@pytest.mark.parametrize("damage", ["cut", "text", "flipped"])
def test_a_corrupt_bundle_is_named(bundle: str, tmp_path: Path, damage: str) -> None:
    content = bytearray(Path(bundle).read_bytes())
    if damage == "flipped":
        middle = len(content) // 3
        content[middle : middle + 40] = bytes(b ^ 255 for b in content[middle : middle + 40])
    bad = tmp_path / "bad.zip"
    bad.write_bytes({"cut": bytes(content[:-200]), "text": b"not a zip", "flipped": bytes(content)}[damage])
    with pytest.raises(BundleError, match=r"bad\.zip is not a readable zip file"):
        Predictor(str(bad), str(tmp_path / "work"))


def test_a_zip_of_something_else_is_named(bundle: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"run/train/model-bundle\.zip has no pipeline-config\.json"):
        Predictor(str(tmp_path / "run/train/model-bundle.zip"), str(tmp_path / "work"))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as zf:
        zf.writestr("pipeline-config.json", json.dumps({"type_hint": "class_config", "names": ["a"]}))
    with pytest.raises(BundleError, match="holds a ClassConfig"):
        Predictor(str(tmp_path / "other.zip"), str(tmp_path / "work"))


def test_a_bundle_without_scenes_can_only_predict_scenes(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    dataset = DatasetConfig(class_config=square_classes(), train_scenes=[], validation_scenes=[])
    bundle = make_bundle(make_pipeline(dataset=dataset), tmp_path)
    with pytest.raises(BundleError, match="has no scene"):
        Predictor(bundle, str(tmp_path / "work"))
    ScenePredictor(bundle, tmp_dir=str(tmp_path / "work2"))


# -- scenes ----------------------------------------------------------------------------------------------------


def test_predicts_scenes_with_their_own_config(bundle: str, tmp_path: Path) -> None:
    scene = make_square_scene(tmp_path / "new", "new", squares=[SQUARE], labels=None)
    with pytest.raises(ConfigError, match="Scene 'new' has no label_store"):
        ScenePredictor(bundle).predict(scene)
    scene.label_store = SemanticSegmentationLabelStoreConfig(uri=str(tmp_path / "out"))
    path = tmp_path / "scene.json"
    scene.to_file(str(path))

    forms: tuple[Any, ...] = (scene, scene.dict(), str(path))
    for i, given in enumerate(forms):
        ScenePredictor(bundle, tmp_dir=str(tmp_path / f"work{i}")).predict(given)
        np.testing.assert_array_equal(labels_at(str(tmp_path / "out")), square_labels((96, 128), [SQUARE]))
        (tmp_path / "out/labels.tif").unlink()


@pytest.mark.parametrize("how", ["object", "dict", "file", "none"])
def test_predict_options_replace_those_of_the_bundle(bundle: str, tmp_path: Path, how: str) -> None:
    options = SemanticSegmentationPredictOptions(chip_sz=64)
    path = tmp_path / "options.json"
    options.to_file(str(path))
    given: Any = {"object": options, "dict": {"chip_sz": 64}, "file": str(path), "none": None}[how]
    predictor = ScenePredictor(bundle, given)
    expected = SemanticSegmentationPredictOptions() if how == "none" else options
    assert predictor.pipeline_config.get_predict_options() == expected
    assert predictor.class_config.names == ["background", "square", "null"]


def test_a_scene_object_without_label_store_is_refused(bundle: str, tmp_path: Path) -> None:
    scene = make_square_scene(tmp_path / "new", labels=None).build(square_classes())
    with pytest.raises(ConfigError, match="no label_store"):
        ScenePredictor(bundle).predict_scene(scene)
