from __future__ import annotations

import pytest

from rastervision.pipeline.config import Config, build_config
from rastervision.pytorch_backend import (
    PyTorchChipClassificationConfig,
    PyTorchChipRegressionConfig,
    PyTorchObjectDetectionConfig,
)
from rastervision.pytorch_backend.learner_config import (
    ClassificationImageDataConfig,
    ClassificationLearnerConfig,
    ClassificationModelConfig,
    ObjectDetectionImageDataConfig,
    ObjectDetectionLearnerConfig,
    ObjectDetectionModelConfig,
    RegressionImageDataConfig,
    RegressionLearnerConfig,
    RegressionModelConfig,
    SolverConfig,
)

CC = PyTorchChipClassificationConfig(
    model=ClassificationModelConfig(), solver=SolverConfig(), data=ClassificationImageDataConfig()
)
OD = PyTorchObjectDetectionConfig(
    model=ObjectDetectionModelConfig(), solver=SolverConfig(), data=ObjectDetectionImageDataConfig()
)
REGRESSION = PyTorchChipRegressionConfig(
    model=RegressionModelConfig(), solver=SolverConfig(), data=RegressionImageDataConfig()
)


@pytest.mark.parametrize("backend", [CC, OD, REGRESSION])
def test_backends_survive_a_trip_through_json(backend: Config) -> None:
    saved = backend.json()

    assert next(iter(saved)) == "type_hint"
    assert build_config(saved) == backend


def test_backends_have_the_learner_of_their_task() -> None:
    assert isinstance(CC.get_learner_config(None), ClassificationLearnerConfig)
    assert isinstance(OD.get_learner_config(None), ObjectDetectionLearnerConfig)
    assert isinstance(REGRESSION.get_learner_config(None), RegressionLearnerConfig)
