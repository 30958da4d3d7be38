"""Bundles hold all that a predictor needs, or are not there."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rastervision.core.data.dataset_config import DatasetConfig
from rastervision.core.data.raster_transformer.stats_transformer import StatsTransformerConfig
from rastervision.core.rv_pipeline import SemanticSegmentation, SemanticSegmentationConfig
from rastervision.testing.scenes import make_square_scene, square_classes

MakePipeline = Callable[..., SemanticSegmentationConfig]


def trained(config: SemanticSegmentationConfig, tmp_path: Path) -> SemanticSegmentation:
    config.update()
    pipeline = config.build(str(tmp_path / "tmp"))
    pipeline.train()
    return pipeline


def members(tmp_path: Path) -> list[str]:
    with zipfile.ZipFile(tmp_path / "run/bundle/model-bundle.zip") as zf:
        assert zf.testzip() is None
        return sorted(zf.namelist())


def test_holds_the_config_and_the_model(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    pipeline = trained(make_pipeline(), tmp_path)
    pipeline.bundle()
    assert members(tmp_path) == ["model-bundle.zip", "pipeline-config.json"]
    with zipfile.ZipFile(tmp_path / "run/bundle/model-bundle.zip") as zf:
        saved = json.loads(zf.read("pipeline-config.json"))
    assert saved["type_hint"] == "semantic_segmentation"
    assert saved["plugin_versions"] is not None
    # the bundle leaves no traces elsewhere
    assert pipeline.config.plugin_versions is None
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [p.name for p in (tmp_path / "run/bundle").iterdir()] == ["model-bundle.zip"]


def test_holds_the_statistics(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    scene = make_square_scene(tmp_path / "data", "s", dtype="uint16", transformers=[StatsTransformerConfig()])
    dataset = DatasetConfig(class_config=square_classes(), train_scenes=[scene], validation_scenes=[scene])
    pipeline = trained(make_pipeline(dataset=dataset), tmp_path)
    pipeline.analyze()
    pipeline.bundle()
    assert members(tmp_path) == [
        "analyze/stats/train_scenes/stats.json",
        "analyze/stats/validation_scenes/stats.json",
        "model-bundle.zip",
        "pipeline-config.json",
    ]


def test_holds_statistics_that_the_scene_names_itself(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    # 0.31 bundles those of the analyze command, which the model was not trained with
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"means": [1.0] * 3, "stds": [2.0] * 3, "counts": [5] * 3}))
    scene = make_square_scene(
        tmp_path / "data", "s", dtype="uint16", transformers=[StatsTransformerConfig(stats_uri=str(own))]
    )
    dataset = DatasetConfig(class_config=square_classes(), train_scenes=[scene], validation_scenes=[scene])
    pipeline = trained(make_pipeline(dataset=dataset), tmp_path)
    pipeline.analyze()
    pipeline.bundle()
    with zipfile.ZipFile(tmp_path / "run/bundle/model-bundle.zip") as zf:
        assert zf.read("analyze/stats/train_scenes/stats.json") == own.read_bytes()


def test_a_failure_leaves_the_old_bundle(
    make_pipeline: MakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rastervision.pipeline.file_system as fs

    pipeline = trained(make_pipeline(), tmp_path)
    pipeline.bundle()
    before = (tmp_path / "run/bundle/model-bundle.zip").read_bytes()

    def disk_full(dir: str, zip_path: str) -> None:
        Path(zip_path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fs, "zipdir", disk_full)
    with pytest.raises(OSError, match="No space left"):
        pipeline.bundle()
    assert (tmp_path / "run/bundle/model-bundle.zip").read_bytes() == before


def test_without_a_place_there_is_no_bundle(make_pipeline: MakePipeline, tmp_path: Path) -> None:
    pipeline = trained(make_pipeline(), tmp_path)
    pipeline.config.bundle_uri = None
    pipeline.bundle()
    assert not (tmp_path / "run/bundle").exists()
