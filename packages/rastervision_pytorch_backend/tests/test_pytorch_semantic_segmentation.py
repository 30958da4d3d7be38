from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rastervision.core.data.class_config import ClassConfig
from rastervision.core.data.raster_transformer import CastTransformerConfig, StatsTransformerConfig
from rastervision.core.data.scene import SceneConfig
from rastervision.core.rv_pipeline.semantic_segmentation import SemanticSegmentationConfig
from rastervision.pipeline.config import build_config, save_pipeline_config
from rastervision.pipeline.errors import ConfigError, NotReadableError
from rastervision.pytorch_backend import PyTorchSemanticSegmentation, PyTorchSemanticSegmentationConfig
from rastervision.pytorch_backend.learner_config import (
    SemanticSegmentationGeoDataConfig,
    SemanticSegmentationImageDataConfig,
    SemanticSegmentationLearnerConfig,
    SemanticSegmentationModelConfig,
    SolverConfig,
)

MakeScene = Callable[..., SceneConfig]
MakePipeline = Callable[..., SemanticSegmentationConfig]


class FakeLearner:
    """Remembers how it was made; what training does is tested with the learner package."""

    made: list[tuple[str, dict[str, Any]]] = []

    def __init__(self, cfg: Any, **kwargs: Any) -> None:
        self.made.append(("init", {"cfg": cfg, **kwargs}))

    @classmethod
    def from_model_bundle(cls, uri: str, **kwargs: Any) -> FakeLearner:
        learner = cls.__new__(cls)
        cls.made.append(("bundle", {"uri": uri, **kwargs}))
        return learner

    def main(self) -> None:
        self.made.append(("main", {}))


@pytest.fixture
def learners(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    package = ModuleType("rastervision.pytorch_learner")
    package.SemanticSegmentationLearner = FakeLearner  # type: ignore[attr-defined]
    predict = ModuleType("rastervision.pytorch_learner.predict")
    predict.predict_scene_ss = lambda *args: args  # type: ignore[attr-defined]
    trust = ModuleType("rastervision.pytorch_learner.trust")
    trust.note_own_config = lambda cfg: None  # type: ignore[attr-defined]
    for module in (package, predict, trust):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("rastervision.pytorch_backend.onnx_predict.has_torch", lambda: True)
    FakeLearner.made.clear()
    return FakeLearner.made


@pytest.fixture
def pipeline(make_scene: MakeScene, make_pipeline: MakePipeline) -> SemanticSegmentationConfig:
    return make_pipeline([make_scene("a")], [make_scene("b")])


def backend_of(pipeline: SemanticSegmentationConfig, tmp_path: Path) -> PyTorchSemanticSegmentation:
    backend = pipeline.backend.build(pipeline, str(tmp_path / "tmp"))
    assert isinstance(backend, PyTorchSemanticSegmentation)
    return backend


def test_update_fills_what_the_pipeline_knows(pipeline: SemanticSegmentationConfig, tmp_path: Path) -> None:
    backend = pipeline.backend
    assert isinstance(backend, PyTorchSemanticSegmentationConfig)

    assert backend.data.class_config == pipeline.dataset.class_config
    assert backend.data.img_channels == 3
    assert isinstance(backend.data, SemanticSegmentationImageDataConfig)
    assert backend.data.uri == str(tmp_path / "out" / "chip")
    assert backend.data.plot_options is not None
    assert backend.data.plot_options.channel_display_groups == {"Input": [0, 1, 2]}


def test_channels_come_from_a_channel_order_or_the_first_image(
    make_scene: MakeScene, make_pipeline: MakePipeline
) -> None:
    ordered = make_scene("a", channels=5, channel_order=[3, 1])
    image = make_scene("b", channels=4, dtype="uint16")

    assert make_pipeline([image], [ordered]).backend.data.img_channels == 2  # type: ignore[attr-defined]
    assert make_pipeline([image], [image.copy()]).backend.data.img_channels == 4  # type: ignore[attr-defined]


def test_transformers_that_change_the_channels_are_counted(make_scene: MakeScene, make_pipeline: MakePipeline) -> None:
    scene = make_scene("a")
    scene.raster_source.transformers = [StatsTransformerConfig(), CastTransformerConfig(to_dtype="float32")]

    # there are no statistics yet: analyze makes them
    assert make_pipeline([scene], [make_scene("b")]).backend.data.img_channels == 3  # type: ignore[attr-defined]


def test_what_is_set_is_not_replaced(make_scene: MakeScene, make_pipeline: MakePipeline) -> None:
    data = SemanticSegmentationImageDataConfig(group_uris=["x"], img_channels=7)

    backend = make_pipeline([make_scene("a")], [make_scene("b")], data=data).backend

    assert backend.data.uri is None  # type: ignore[attr-defined]
    assert backend.data.img_channels == 7  # type: ignore[attr-defined]


def test_a_null_class_reaches_classes_that_are_set(make_scene: MakeScene, make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline([make_scene("a")], [make_scene("b")])
    pipeline.dataset.class_config = ClassConfig(names=["building", "null"])
    pipeline.backend.data.class_config = ClassConfig(names=["building"])  # type: ignore[attr-defined]

    pipeline.backend.update(pipeline=pipeline)

    assert pipeline.backend.data.class_names == ["building", "null"]  # type: ignore[attr-defined]


def test_other_classes_than_those_of_the_dataset_are_refused(
    make_scene: MakeScene, make_pipeline: MakePipeline
) -> None:
    data = SemanticSegmentationImageDataConfig(class_config=ClassConfig(names=["a", "b", "c"]))

    with pytest.raises(ConfigError, match=r"backend.data.class_config has the classes \['a', 'b', 'c'\]"):
        make_pipeline([make_scene("a")], [make_scene("b")], data=data)


def test_geo_data_takes_scenes_and_sampling_of_the_pipeline(make_scene: MakeScene, make_pipeline: MakePipeline) -> None:
    pipeline = make_pipeline([make_scene("a")], [make_scene("b")], data=SemanticSegmentationGeoDataConfig())

    data = pipeline.backend.data  # type: ignore[attr-defined]
    assert data.scene_dataset == pipeline.dataset
    assert data.sampling == pipeline.chip_options.sampling  # type: ignore[union-attr]
    assert [s.id for s in data.build_scenes(data.scene_dataset.all_scenes)] == ["a", "b"]
    pipeline.recursive_validate_config()


def test_chips_are_only_written_for_image_data(make_scene: MakeScene, make_pipeline: MakePipeline) -> None:
    scenes = [make_scene("a")], [make_scene("b")]
    commands = ["analyze", "chip", "train"]

    assert make_pipeline(*scenes).backend.filter_commands(commands) == commands
    geo = make_pipeline(*scenes, data=SemanticSegmentationGeoDataConfig())
    assert geo.backend.filter_commands(commands) == ["analyze", "train"]


def test_the_learner_writes_to_train_uri(pipeline: SemanticSegmentationConfig, tmp_path: Path) -> None:
    learner = pipeline.backend.get_learner_config(pipeline)  # type: ignore[attr-defined]

    assert isinstance(learner, SemanticSegmentationLearnerConfig)
    assert learner.get_model_bundle_uri() == str(tmp_path / "out" / "train" / "model-bundle.zip")
    assert pipeline.backend.get_bundle_filenames() == ["model-bundle.zip"]


def test_a_backend_without_pipeline_has_a_learner_without_output() -> None:
    backend = PyTorchSemanticSegmentationConfig(
        model=SemanticSegmentationModelConfig(),
        solver=SolverConfig(),
        data=SemanticSegmentationImageDataConfig(),
    )

    backend.update()

    assert backend.get_learner_config(None).output_uri is None


def test_a_saved_pipeline_comes_back_equal(make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path) -> None:
    for data in (None, SemanticSegmentationGeoDataConfig()):
        pipeline = make_pipeline([make_scene("a")], [make_scene("b")], data=data)
        pipeline.recursive_validate_config()

        save_pipeline_config(pipeline, pipeline.get_config_uri())

        loaded = SemanticSegmentationConfig.from_file(pipeline.get_config_uri())
        assert loaded.json() == pipeline.json()
        assert build_config(json.loads(Path(pipeline.get_config_uri()).read_text())).json() == pipeline.json()


def test_train_builds_the_learner_and_runs_it(
    pipeline: SemanticSegmentationConfig, tmp_path: Path, learners: list[Any]
) -> None:
    pipeline.build(str(tmp_path / "tmp")).train()

    assert [what for what, _ in learners] == ["init", "main"]
    assert learners[0][1]["training"] is True
    assert learners[0][1]["cfg"].output_uri == str(tmp_path / "out" / "train")


@pytest.mark.parametrize("of_pipeline", [True, False])
def test_training_starts_from_a_bundle_of_a_pipeline_or_a_learner(
    pipeline: SemanticSegmentationConfig, tmp_path: Path, learners: list[Any], of_pipeline: bool
) -> None:
    source = tmp_path / "source.zip"
    with zipfile.ZipFile(source, "w") as zf:
        zf.writestr("model-bundle.zip" if of_pipeline else "model.pth", b"x")
    pipeline.source_bundle_uri = str(source)

    pipeline.build(str(tmp_path / "tmp")).train()

    (kind, kwargs), (main, _) = learners
    assert (kind, main) == ("bundle", "main")
    assert Path(kwargs["uri"]).name == ("model-bundle.zip" if of_pipeline else "source.zip")
    assert Path(kwargs["uri"]).exists()
    assert kwargs["training"] is True
    assert kwargs["cfg"].output_uri == pipeline.train_uri


def test_a_missing_source_bundle_is_named(
    pipeline: SemanticSegmentationConfig, tmp_path: Path, learners: list[Any]
) -> None:
    with pytest.raises(NotReadableError, match=r"no model bundle at gone.zip \(source_bundle_uri\)"):
        backend_of(pipeline, tmp_path).train(source_bundle_uri="gone.zip")


def test_prediction_loads_the_trained_model_once(
    pipeline: SemanticSegmentationConfig, tmp_path: Path, learners: list[Any]
) -> None:
    bundle = tmp_path / "out" / "train" / "model-bundle.zip"
    bundle.parent.mkdir(parents=True)
    bundle.write_bytes(b"")
    backend = backend_of(pipeline, tmp_path)

    for _ in range(2):
        out = backend.predict_scene("scene", "options")  # type: ignore[arg-type]

    assert learners == [("bundle", {"uri": str(bundle), "tmp_dir": str(tmp_path / "tmp"), "training": False})]
    assert out == (backend.learner, "scene", "options")


def test_a_model_that_is_not_trained_yet_is_named_with_the_command(
    pipeline: SemanticSegmentationConfig, tmp_path: Path, learners: list[Any]
) -> None:
    with pytest.raises(
        NotReadableError, match=r"no model bundle at .*out/train/model-bundle.zip.*Run the train command"
    ):
        backend_of(pipeline, tmp_path).load_model()
    with pytest.raises(NotReadableError, match=r"no model bundle at other.zip"):
        backend_of(pipeline, tmp_path).load_model("other.zip")


def test_chips_need_a_place(pipeline: SemanticSegmentationConfig, tmp_path: Path) -> None:
    pipeline.chip_uri = None

    with pytest.raises(ConfigError, match="chip_uri is not set"):
        backend_of(pipeline, tmp_path).get_sample_writer()
