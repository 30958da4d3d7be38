"""Options of semantic segmentation."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from rastervision.core.data.dataset_config import DatasetConfig
from rastervision.core.rv_pipeline import (
    PredictOptions,
    SemanticSegmentationChipOptions,
    SemanticSegmentationConfig,
    SemanticSegmentationPredictOptions,
    WindowSamplingConfig,
)
from rastervision.pipeline.errors import ConfigError
from rastervision.testing.scenes import square_classes


def test_windows_step_by_their_size_unless_told_otherwise() -> None:
    assert PredictOptions().json() == {
        "chip_sz": 300,
        "stride": 300,
        "batch_sz": 8,
        "type_hint": "predict_options",
    }
    assert SemanticSegmentationPredictOptions(chip_sz=100).stride == 100


@pytest.mark.parametrize(("stride", "crop_sz"), [(150, 75), (300, 0), (151, 74)])
def test_auto_crop_is_half_of_the_overlap(stride: int, crop_sz: int, caplog: pytest.LogCaptureFixture) -> None:
    options = SemanticSegmentationPredictOptions(chip_sz=300, stride=stride, crop_sz="auto")
    assert options.crop_sz == crop_sz
    assert ("odd overlap" in caplog.text) == (stride == 151)
    assert options.mask_nodata


@pytest.mark.parametrize("kwargs", [{"chip_sz": 100, "crop_sz": 60}, {"chip_sz": 100, "stride": 90, "crop_sz": 6}])
def test_windows_must_leave_no_gaps(kwargs: dict[str, Any]) -> None:
    # 0.31 fails only when it predicts
    with pytest.raises(ValidationError, match=r'no prediction\. Use crop_sz="auto"'):
        SemanticSegmentationPredictOptions(**kwargs)


@pytest.mark.parametrize("kwargs", [{"chip_sz": 0}, {"stride": 0}, {"batch_sz": 0}, {"crop_sz": -1}])
def test_sizes_are_positive(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SemanticSegmentationPredictOptions(**kwargs)


def make_config(target_class_ids: list[int] | None = None, **kwargs: Any) -> SemanticSegmentationConfig:
    from rastervision.core.backend.backend import BackendConfig

    return SemanticSegmentationConfig(
        dataset=DatasetConfig(class_config=square_classes(), train_scenes=[], validation_scenes=[]),
        backend=BackendConfig(),
        chip_options=SemanticSegmentationChipOptions(
            sampling=WindowSamplingConfig(size=8), target_class_ids=target_class_ids
        ),
        **kwargs,
    )


def test_target_classes_must_exist() -> None:
    make_config([0, 2]).validate_config()
    with pytest.raises(ConfigError, match=r"target_class_ids has \[3\], but the class ids are 0 to 2"):
        make_config([0, 3]).validate_config()


def test_a_null_class_is_needed() -> None:
    config = make_config()
    config.dataset.class_config.__dict__["null_class"] = None
    with pytest.raises(ConfigError, match="needs a null class"):
        config.validate_config()


def test_default_predict_options_are_those_of_the_task() -> None:
    assert make_config().get_predict_options() == SemanticSegmentationPredictOptions()
    given = SemanticSegmentationPredictOptions(chip_sz=64)
    assert make_config(predict_options=given).get_predict_options() is given


def test_options_of_another_task_are_refused() -> None:
    with pytest.raises(ValidationError, match="predict_options"):
        make_config(predict_options=PredictOptions())


def test_works_without_root_uri() -> None:
    config = make_config()
    config.update()
    assert config.predict_uri is None
