"""Files that releases 0.12 to 0.31 wrote: they load, keep what they say, and come back equal after saving."""

from __future__ import annotations

import copy
import json
import logging
import re
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from rastervision.pipeline.cli_upgrade import upgrade_bundle
from rastervision.pipeline.config import Config, build_config, upgrade_config
from rastervision.pipeline.registry import registry_

SAVED = Path(__file__).parent.parent.parent / "shared" / "saved"
CONFIG_FILES = sorted(SAVED.glob("*/*/pipeline-config.json"))
BUNDLES = sorted(SAVED.glob("*/*/model-bundle.zip"))
UPGRADED_BY_0_31 = sorted(SAVED.glob("*/*/upgraded-by-0.31.1.json"))

needs_saved = pytest.mark.skipif(not SAVED.is_dir(), reason="needs files of old releases in ../shared/saved")


def release_and_task(path: Path) -> str:
    return "/".join(path.parts[-3:-1])


def check_file(saved: Any, tmp_path: Path) -> Config:
    """Load, save, and load again; and upgrade twice."""
    before = copy.deepcopy(saved)
    upgraded = upgrade_config(saved)
    assert saved == before
    assert upgrade_config(upgraded) == upgraded
    versions = {"plugin_versions": registry_.plugin_versions}
    assert upgrade_config({**upgraded, **versions}) == {**upgraded, **versions}

    config = Config.deserialize(saved)
    config.to_file(str(tmp_path / "again.json"))
    again = Config.deserialize(str(tmp_path / "again.json"))
    assert again == config
    assert type(again) is type(config)
    return config


@needs_saved
@pytest.mark.parametrize("path", CONFIG_FILES, ids=release_and_task)
def test_every_saved_config_loads_and_comes_back_equal(path: Path, tmp_path: Path) -> None:
    config = check_file(json.loads(path.read_text()), tmp_path)

    assert config == Config.deserialize(str(path))
    config.recursive_validate_config()


def configs_in_zip(data: bytes) -> Iterator[Any]:
    with zipfile.ZipFile(BytesIO(data)) as archive:
        for name in archive.namelist():
            if name in ("pipeline-config.json", "learner-config.json"):
                yield json.loads(archive.read(name))
            elif name.endswith(".zip"):
                yield from configs_in_zip(archive.read(name))


@needs_saved
@pytest.mark.parametrize("path", BUNDLES, ids=release_and_task)
def test_the_configs_in_every_bundle_load_and_come_back_equal(path: Path, tmp_path: Path) -> None:
    pipeline, learner = (check_file(saved, tmp_path) for saved in configs_in_zip(path.read_bytes()))

    assert type(learner).__name__.endswith("LearnerConfig")
    assert learner.data.img_channels  # type: ignore[attr-defined]
    assert learner.data.class_config.names == pipeline.dataset.class_config.names  # type: ignore[attr-defined]


@needs_saved
@pytest.mark.parametrize("path", BUNDLES, ids=release_and_task)
def test_the_predictor_reads_every_bundle_as_upgraded(path: Path, tmp_path: Path) -> None:
    from rastervision.core.predictor import load_bundle

    config, folder = load_bundle(str(path), str(tmp_path))

    config.plugin_versions = None
    assert config == Config.deserialize(f"{folder}/pipeline-config.json")


def files_in_zip(data: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with zipfile.ZipFile(BytesIO(data)) as archive:
        for name in archive.namelist():
            inner = files_in_zip(archive.read(name)) if name.endswith(".zip") else {"": archive.read(name)}
            files |= {f"{name}/{n}".rstrip("/"): content for n, content in inner.items()}
    return files


@needs_saved
@pytest.mark.parametrize("path", [p for p in BUNDLES if p.stat().st_size < 1.4e6], ids=release_and_task)
def test_rewriting_a_bundle_changes_its_configs_and_nothing_else(path: Path, tmp_path: Path) -> None:
    new, newer = tmp_path / "new.zip", tmp_path / "newer.zip"

    assert upgrade_bundle(str(path), str(new))
    assert upgrade_bundle(str(new), str(newer)) == []

    before, after = files_in_zip(path.read_bytes()), files_in_zip(new.read_bytes())
    assert files_in_zip(newer.read_bytes()) == after
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    assert changed <= {"pipeline-config.json", "model-bundle.zip/learner-config.json"}
    assert before.keys() ^ after.keys() <= {
        "model-bundle.zip/pipeline-config.json",
        "model-bundle.zip/learner-config.json",
    }
    for name in after:
        if name.endswith("-config.json"):
            config: Any = Config.from_dict(json.loads(after[name]))
            old: Any = Config.from_dict(json.loads(before.get(name) or before[name.replace("learner-", "pipeline-")]))
            assert config == old


# where an upgrade of ours differs from 0.31's, and why; [] stands for any index
DIFFERENCES: dict[str, str] = {
    r"backend\.solver\.seed": "a field that 0.31 does not have",
    r"backend\.solver\.(accumulate_batches|compile_model|early_stopping_patience|ema_decay|max_grad_norm)": (
        "fields that 0.31 does not have; off"
    ),
    r"backend\.solver\.(focal_gamma|loss|lr_schedule|optimizer)(\..*)?": "fields that 0.31 does not have; what it did",
    r"backend\.(loggers|export_onnx)": "fields that 0.31 does not have; off",
    r"backend\.solver\.mixed_precision": "a field that 0.31 does not have; false, as it always was",
    r"backend\.model\.(architecture|temporal_pooling)": "fields that 0.31 does not have; null",
    r".*evaluators\[\]\.ignore_null_class": "a field that 0.31 does not have; false",
    r".*\.vector_output\[\]\.format": "a field that 0.31 does not have; GeoJSON, as it always was",
    r"predict_options\.mask_nodata": "a field that 0.31 does not have; false, as it always was",
    r".*\.vector_source\.layer": "a field that 0.31 does not have; null, as files had one layer",
    r"backend\.data\.class_config\.null_class": "the pipeline's; up to 0.21 data knew only names and colours",
    r"backend\.data\.plot_options\.channel_display_groups\..*": "those of the data of 0.13, which 0.31 dropped",
    r"chip_options\.sampling\.max_windows": "chips_per_scene, which 0.31 dropped",
    r"chip_options\.sampling\.stride": "stride, which 0.31 dropped",
    r"evaluators\[\]\.output_uri": "a file up to 0.13, a folder since; 0.31 made a folder eval.json",
    r"dataset\.\w+\[\]\.label_source\.raster_source\.transformers.*": "rgb_class_config, which 0.31 dropped",
    r"dataset\.\w+\[\]\.label_store\.vector_output\[\]\.denoise": "a radius up to 0.13, a diameter since",
    r"(backend\.data\.scene_)?dataset\.scene_groups\..*": "sets: the order says nothing",
}


def fields(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from fields(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list) and any(isinstance(item, (dict, list)) for item in node):
        for i, item in enumerate(node):
            yield from fields(item, f"{path}[{i}]")
    else:
        yield path, node


@needs_saved
@pytest.mark.parametrize("path", UPGRADED_BY_0_31, ids=release_and_task)
def test_upgrades_are_those_of_0_31_where_it_lost_nothing(path: Path) -> None:
    saved = json.loads(path.with_name("pipeline-config.json").read_text())
    ours = dict(fields(build_config(upgrade_config(saved)).json()))
    theirs = dict(fields(json.loads(path.read_text())))

    differing = {p for p in ours.keys() | theirs.keys() if ours.get(p, "absent") != theirs.get(p, "absent")}
    plain = {re.sub(r"\[\d+\]", "[]", p) for p in differing}
    assert [p for p in sorted(plain) if not any(re.fullmatch(known, p) for known in DIFFERENCES)] == []


@needs_saved
def test_what_0_31_lost_or_could_not_load_is_carried_over() -> None:
    def load(name: str) -> Any:
        return Config.deserialize(str(SAVED / name / "pipeline-config.json"))

    multi = load("0.13.1/ss_multi")
    source = multi.dataset.train_scenes[0].raster_source
    assert [type(s).__name__ for s in source.raster_sources] == ["RasterioSourceConfig", "RasterioSourceConfig"]
    assert source.raster_sources[0].channel_order == [2, 1, 0]
    assert source.channel_order == [3, 0, 1, 2]
    # the statistics of 0.13 are in this order already
    assert not source.transformers[0].needs_channel_order
    sampling = multi.chip_options.sampling
    assert (sampling.method.value, sampling.size, sampling.max_windows) == ("random", 128, 8)
    assert multi.backend.solver.ignore_class_index == -1
    assert multi.predict_options.chip_sz == 128
    assert multi.predict_options.batch_sz == 4

    detection = load("0.21.3/od")
    sampling = detection.chip_options.sampling
    assert (sampling.method.value, sampling.size, sampling.stride) == ("sliding", 256, 256)
    assert (sampling.neg_ratio, sampling.ioa_thresh) == (1.0, 0.7)
    assert detection.chip_options.nodata_threshold == 0.9

    windows = load("0.13.1/exotic_geo_od").backend.data.sampling
    assert type(windows["od-0"]).__name__ == "ObjectDetectionWindowSamplingConfig"
    assert (windows["od-0"].ioa_thresh, windows["od-0"].h_lims) == (0.6, (200, 300))

    labels = load("0.13.1/ss").dataset.train_scenes[0].label_source.raster_source
    assert labels.transformers[0].class_config.names == ["car", "building", "null"]

    assert load("0.21.3/exotic_ss").dataset.test_scenes[0].raster_source.bbox == (10, 20, 200, 220)


# releases of which there is no file: made of the files of their neighbours, with the fields and versions they had


def fields_of(release: str) -> dict[str, set[str]]:
    """Return type hint -> names of its fields in a release, as listed in ``fields-by-release.txt``."""
    out: dict[str, set[str]] = {}
    hint = ""
    for line in (SAVED / "fields-by-release.txt").read_text().splitlines():
        if line.startswith("## "):
            hint = line[3:].partition(" in ")[0]
        elif line.startswith("    "):
            name, _, only = line.strip().partition(" ")
            if "ONLY" not in only or release in only:
                out.setdefault(hint, set()).add(name)
    return out


VERSIONS = {
    "0.12.1": {"core": 0, "pytorch_learner": 1, "pytorch_backend": 0, "pipeline": 0, "aws_s3": 0},
    "0.20.2": {"core": 7, "pytorch_learner": 4, "pytorch_backend": 1, "pipeline": 0, "aws_s3": 0},
    "0.30.1": {"core": 13, "pytorch_learner": 7, "pytorch_backend": 2, "pipeline": 0, "aws_s3": 0},
}


FIELDS_OF_DATA_IN_0_12 = {
    *("uri", "train_sz", "group_uris", "group_train_sz", "data_format", "class_names", "class_colors", "img_sz"),
    *("num_workers", "augmentors", "type_hint"),
}


def as_0_12(cfg: dict[str, Any]) -> None:
    if cfg["type_hint"].endswith("_backend"):
        cfg["augmentors"] = ["HorizontalFlip"]
        del cfg["data"]
    if cfg["type_hint"] == "semantic_segmentation_label_store":
        cfg["uri"] += ".tif"
    if cfg["type_hint"].endswith(("_image_data", "_geo_data")):
        cfg["type_hint"] = re.sub("_(image|geo)_data", "_data", cfg["type_hint"])
        for name in cfg.keys() - FIELDS_OF_DATA_IN_0_12:
            del cfg[name]
    if cfg["type_hint"] == "multi_raster_source":
        pytest.skip("0.12 has no multi raster source")


def as_0_20(cfg: dict[str, Any]) -> None:
    if "bbox" in cfg:
        cfg["extent"] = cfg.pop("bbox")
    if cfg["type_hint"] == "geojson_vector_source":
        cfg["uri"] = cfg.pop("uris")[0]
    if cfg["type_hint"].endswith("_vector_output"):
        cfg["uri"] = f"s3://bucket/vector_output/polygons-{cfg['class_id']}.json"


def as_0_30(cfg: dict[str, Any]) -> None:
    if cfg["type_hint"] == "multi_raster_source":
        cfg["force_same_dtype"] = True


def rewrite(node: Any, names: dict[str, set[str]], change: Callable[[dict[str, Any]], None]) -> Any:
    """Return a saved config with the fields that another release had, children first."""
    if isinstance(node, list):
        return [rewrite(item, names, change) for item in node]
    if not isinstance(node, dict):
        return node
    new = {key: rewrite(value, names, change) for key, value in node.items()}
    if isinstance(new.get("type_hint"), str):
        change(new)
        allowed = names.get(new["type_hint"])
        new = {k: v for k, v in new.items() if allowed is None or k in allowed}
    return new


NEIGHBOURS = [("0.13.1", "0.12.1", as_0_12), ("0.21.3", "0.20.2", as_0_20), ("0.31.1", "0.30.1", as_0_30)]


@needs_saved
@pytest.mark.parametrize(("donor", "release", "change"), NEIGHBOURS, ids=[n[1] for n in NEIGHBOURS])
@pytest.mark.parametrize("task", sorted({p.parent.name for p in CONFIG_FILES} - {"cc_base_transform"}))
def test_files_of_releases_between_load(
    donor: str, release: str, change: Callable[[dict[str, Any]], None], task: str, tmp_path: Path
) -> None:
    saved = json.loads((SAVED / donor / task / "pipeline-config.json").read_text())
    if release == "0.12.1":
        img_sz = saved["train_chip_sz"]
    saved = rewrite(saved, fields_of(release), change)
    saved["plugin_versions"] = {f"rastervision.{name}": version for name, version in VERSIONS[release].items()}

    config: Any = check_file(saved, tmp_path)

    if release == "0.12.1":
        data = config.backend.data
        assert (data.img_sz, data.augmentors) == (img_sz, ["HorizontalFlip"])
        assert data.class_config == config.dataset.class_config
        assert data.uri == config.chip_uri


@needs_saved
@pytest.mark.parametrize("path", [p for p in BUNDLES if "0.13.1" in p.parts], ids=release_and_task)
def test_learners_of_0_12_load(path: Path, tmp_path: Path) -> None:
    _, saved = configs_in_zip(path.read_bytes())
    saved = rewrite(saved, fields_of("0.12.1"), as_0_12)
    saved["plugin_versions"] = {f"rastervision.{name}": version for name, version in VERSIONS["0.12.1"].items()}
    assert saved["learner"]["data"]["type_hint"].count("_") == saved["learner"]["type_hint"].count("_")

    learner: Any = check_file(saved, tmp_path)

    assert type(learner.data).__name__.endswith("ImageDataConfig")
    assert learner.data.class_config.names == saved["learner"]["data"]["class_names"]
    assert learner.data.img_channels == 3 or learner.model.external_def is not None


@needs_saved
@pytest.mark.parametrize("how", ["null", "without pytorch_learner", "without core", "none", "with an unknown plugin"])
@pytest.mark.parametrize("path", [p for p in CONFIG_FILES if "0.31.1" not in p.parts], ids=release_and_task)
def test_versions_that_are_not_in_the_file_are_told_by_its_fields(path: Path, how: str, tmp_path: Path) -> None:
    saved = json.loads(path.read_text())
    expected = Config.deserialize(saved)
    versions = saved["plugin_versions"]
    if how == "null":
        saved["plugin_versions"] = dict.fromkeys(versions)
    elif how == "none":
        del saved["plugin_versions"]
    elif how == "with an unknown plugin":
        versions["somebody.else"] = 7
    else:
        del versions["rastervision." + how.removeprefix("without ")]

    assert check_file(saved, tmp_path) == expected


@needs_saved
def test_losses_are_told_with_path_and_field_once_per_file(caplog: pytest.LogCaptureFixture) -> None:
    saved = json.loads((SAVED / "0.13.1/ss_sliding/pipeline-config.json").read_text())
    scenes = saved["dataset"]["train_scenes"] = [saved["dataset"]["train_scenes"][0]] * 3
    scenes[0]["raster_source"]["x_shift"] = 2.0

    with caplog.at_level(logging.WARNING, logger="rastervision"):
        upgrade_config(saved)

    assert caplog.messages == [
        "dataset.train_scenes[0].raster_source.x_shift of rasterio_source was 2.0, which has no counterpart today: "
        "shift the image itself. (3 times)"
    ]
