from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rastervision.core.data.class_config import ClassConfig
from rastervision.pipeline.config import Config, build_config
from rastervision.pipeline.errors import ConfigError
from rastervision.pipeline.registry import registry_
from rastervision.pytorch_backend import learner_config
from rastervision.pytorch_backend.learner_config import (
    ClassificationLearnerConfig,
    ClassificationModelConfig,
    ImageDataConfig,
    LearnerConfig,
    ObjectDetectionLearnerConfig,
    ObjectDetectionModelConfig,
    RegressionLearnerConfig,
    RegressionModelConfig,
    SemanticSegmentationImageDataConfig,
    SemanticSegmentationLearnerConfig,
    SemanticSegmentationModelConfig,
    SolverConfig,
)

CLASSES = ClassConfig(names=["a", "b"])
TASKS = ["classification", "object_detection", "regression", "semantic_segmentation"]


def config_classes() -> list[type[Config]]:
    found = [getattr(learner_config, name) for name in dir(learner_config)]
    return [c for c in found if isinstance(c, type) and issubclass(c, Config)]


def test_all_configs_of_0_31_are_registered_under_the_plugin_of_their_files() -> None:
    hints = {c.registered_type_hint for c in config_classes()}

    kinds = ("data", "image_data", "geo_data", "model", "learner")
    expected = {f"{task}_{kind}" for task in TASKS for kind in kinds} | set(kinds)
    others = {"solver", "external-module", "plot_options", "regression_plot_options", "optimizer", "lr_schedule"}
    assert hints == expected | others
    assert {registry_.get_plugin(h) for h in hints if h} == {"rastervision.pytorch_learner"}


@pytest.mark.parametrize("cls", config_classes(), ids=lambda c: c.__name__)
def test_defaults_survive_a_trip_through_json(cls: type[Config]) -> None:
    required: dict[str, Any] = {"data": ImageDataConfig(class_config=CLASSES)} if "data" in cls.model_fields else {}
    if cls.registered_type_hint == "external-module":
        required = {"uri": "x.zip", "entrypoint": "make"}
    config = cls(**required)

    back = build_config(config.json())

    assert type(back) is cls
    assert back.json() == config.json()


@pytest.mark.parametrize("task", TASKS)
def test_type_hint_comes_where_saved_files_have_it(task: str) -> None:
    keys = list(registry_.get_config(f"{task}_image_data")().dict())

    assert keys[10:13] == ["preview_batch_limit", "type_hint", "data_format"]


def test_lineage_of_data_configs_is_that_of_0_31() -> None:
    assert registry_.get_type_hint_lineage("semantic_segmentation_image_data") == [
        "data",
        "image_data",
        "semantic_segmentation_data",
        "semantic_segmentation_image_data",
    ]


@pytest.mark.parametrize(
    ("cls", "model"),
    [
        (ClassificationLearnerConfig, ClassificationModelConfig),
        (ObjectDetectionLearnerConfig, ObjectDetectionModelConfig),
        (RegressionLearnerConfig, RegressionModelConfig),
        (SemanticSegmentationLearnerConfig, SemanticSegmentationModelConfig),
    ],
)
def test_a_learner_takes_the_model_of_its_task(cls: type[LearnerConfig], model: type[Config]) -> None:
    assert isinstance(cls(model=model(), data=ImageDataConfig()).model, model)
    with pytest.raises(ValidationError, match="model"):
        cls(model={"type_hint": "solver"}, data=ImageDataConfig())


def test_class_loss_weights_are_one_per_class() -> None:
    solver = SolverConfig(class_loss_weights=[1.0, 2.0, 3.0])

    with pytest.raises(ValidationError, match=r"has 3 items but there are 2 classes \(a, b\)"):
        LearnerConfig(data=ImageDataConfig(class_config=CLASSES), solver=solver)
    LearnerConfig(data=ImageDataConfig(), solver=solver)  # classes are not known yet


def test_running_tensorboard_needs_its_logs() -> None:
    with pytest.raises(ValidationError, match="log_tensorboard is off"):
        LearnerConfig(data=ImageDataConfig(), run_tensorboard=True, log_tensorboard=False)


@pytest.mark.parametrize("option", [{"class_loss_weights": [1.0, 1.0]}, {"ignore_class_index": 0}])
def test_object_detection_has_its_own_loss(option: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="has no effect in object detection"):
        ObjectDetectionLearnerConfig(data=ImageDataConfig(), solver=SolverConfig(**option))


def test_bundle_uri_is_below_the_output() -> None:
    assert (
        LearnerConfig(data=ImageDataConfig(), output_uri="s3://x/").get_model_bundle_uri() == "s3://x/model-bundle.zip"
    )
    with pytest.raises(ConfigError, match="output_uri is not set"):
        LearnerConfig(data=ImageDataConfig()).get_model_bundle_uri()


def test_a_learner_without_task_cannot_be_built() -> None:
    with pytest.raises(NotImplementedError, match="use the config of a task"):
        LearnerConfig(data=ImageDataConfig()).build()


def test_regression_model_gets_a_multiplier_per_target() -> None:
    model = RegressionModelConfig()

    model.update()
    assert model.output_multiplier is None

    model.update(RegressionLearnerConfig(model=model, data=ImageDataConfig(class_config=CLASSES)))
    assert model.output_multiplier == [1.0, 1.0]


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="img_size"):
        SemanticSegmentationImageDataConfig(img_size=3)  # type: ignore[call-arg]
