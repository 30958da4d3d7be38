from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest
from pydantic import ValidationError

from rastervision.core.data.class_config import ClassConfig
from rastervision.core.data.dataset_config import DatasetConfig
from rastervision.core.data.scene import SceneConfig
from rastervision.core.rv_pipeline.chip_options import WindowSamplingConfig
from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_backend.learner_config import (
    ObjectDetectionGeoDataConfig,
    SemanticSegmentationGeoDataConfig,
)

SAMPLING = WindowSamplingConfig(size=10)


@pytest.fixture
def dataset(make_scene: Callable[..., SceneConfig]) -> DatasetConfig:
    classes = ClassConfig(names=["background", "building"], null_class="background")
    return DatasetConfig(class_config=classes, train_scenes=[make_scene("a")], validation_scenes=[make_scene("b")])


def test_classes_come_from_the_scenes(dataset: DatasetConfig) -> None:
    data = SemanticSegmentationGeoDataConfig(scene_dataset=dataset, sampling=SAMPLING)

    assert data.class_names == ["background", "building"]


def test_each_scene_needs_sampling_if_it_is_given_by_scene(dataset: DatasetConfig) -> None:
    with pytest.raises(ValidationError, match="no entry for scene 'b'"):
        SemanticSegmentationGeoDataConfig(scene_dataset=dataset, sampling={"a": SAMPLING})


def test_sampling_of_a_scene(dataset: DatasetConfig) -> None:
    other = WindowSamplingConfig(size=20)
    by_scene = SemanticSegmentationGeoDataConfig(scene_dataset=dataset, sampling={"a": SAMPLING, "b": other})

    assert by_scene.get_sampling("b") == other
    with pytest.raises(ConfigError, match="no entry for scene 'c'"):
        by_scene.get_sampling("c")
    assert SemanticSegmentationGeoDataConfig(sampling=SAMPLING).get_sampling("any") == SAMPLING


def test_empty_sampling_is_an_error_at_the_latest_when_it_is_validated(dataset: DatasetConfig) -> None:
    data = SemanticSegmentationGeoDataConfig(scene_dataset=dataset)

    with pytest.raises(ConfigError, match=r"data.sampling is empty"):
        data.recursive_validate_config()


def test_scenes_are_built_with_the_classes(dataset: DatasetConfig, tmp_path: object) -> None:
    data = SemanticSegmentationGeoDataConfig(scene_dataset=dataset, sampling=SAMPLING)

    scenes = data.build_scenes(dataset.train_scenes, str(tmp_path))

    assert [scene.id for scene in scenes] == ["a"]
    x, y = scenes[0][:5, :5]
    assert x.shape == (5, 5, 3)
    assert (y == 1).all()


def test_builds_go_to_the_learner_package(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("data")
    for name in ("build_datasets", "scene_to_dataset"):
        setattr(module, name, lambda *a, _name=name, **k: (_name, a, k))
    monkeypatch.setitem(sys.modules, "rastervision.pytorch_learner", ModuleType("pytorch_learner"))
    monkeypatch.setitem(sys.modules, "rastervision.pytorch_learner.data", module)
    ss, od = SemanticSegmentationGeoDataConfig(), ObjectDetectionGeoDataConfig()

    assert ss.build("tmp", for_chipping=True) == ("build_datasets", (ss, "tmp"), {"for_chipping": True})
    kwargs = {"transform": None, "for_chipping": False}
    assert ss.scene_to_dataset("scene") == ("scene_to_dataset", (ss, "scene"), kwargs)  # type: ignore[arg-type]
    out = od.scene_to_dataset("scene", bbox_params="boxes")  # type: ignore[arg-type]
    assert out == ("scene_to_dataset", (od, "scene"), {**kwargs, "bbox_params": "boxes"})
