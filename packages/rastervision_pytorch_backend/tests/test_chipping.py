from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rastervision.core.data import MultiRasterSourceConfig
from rastervision.core.data.scene import SceneConfig
from rastervision.core.rv_pipeline.chip_options import ChipOptions, WindowSamplingConfig, WindowSamplingMethod
from rastervision.core.rv_pipeline.semantic_segmentation import SemanticSegmentationConfig
from rastervision.pipeline.errors import ConfigError
from rastervision.pytorch_backend.chipping import _in_order, _keep_function, resize_nearest

MakeScene = Callable[..., SceneConfig]
MakePipeline = Callable[..., SemanticSegmentationConfig]


def chip(pipeline: SemanticSegmentationConfig, tmp_path: Path, *split: int) -> dict[str, NDArray[Any]]:
    """Run the chip command and return the arrays of all chips by member name."""
    pipeline.build(str(tmp_path / "tmp")).chip(*split)
    return read_chips(tmp_path)


def read_chips(tmp_path: Path) -> dict[str, NDArray[Any]]:
    out: dict[str, NDArray[Any]] = {}
    for path in sorted((tmp_path / "out" / "chip").glob("*.zip")):
        with zipfile.ZipFile(path) as zf:
            for name in zf.namelist():
                data = io.BytesIO(zf.read(name))
                if name.endswith(".png"):
                    out[name] = np.asarray(Image.open(data))
                elif name.endswith(".npy"):
                    out[name] = np.load(data)
    return out


def random_windows(count: int, **kwargs: Any) -> WindowSamplingConfig:
    return WindowSamplingConfig(
        **{"method": WindowSamplingMethod.random, "size": 20, "max_windows": count, "padding": 0, **kwargs}
    )


@pytest.mark.parametrize("method", list(WindowSamplingMethod))
def test_chips_of_time_series_have_all_steps(
    make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path, method: WindowSamplingMethod
) -> None:
    scene, later = make_scene(), make_scene("later")
    scene.raster_source = MultiRasterSourceConfig(
        raster_sources=[scene.raster_source, later.raster_source], temporal=True
    )
    sampling = WindowSamplingConfig(method=method, size=20, size_lims=None, max_windows=3, padding=0)

    chips = chip(make_pipeline([scene], [], sampling=sampling), tmp_path)

    images = {name: arr for name, arr in chips.items() if "/img/" in name}
    assert len(images) >= 3
    for name, image in images.items():
        assert (image.shape, image.dtype) == ((2, 20, 20, 3), np.uint8)
        assert chips[name.replace("/img/", "/labels/").replace(".npy", ".png")].shape == (20, 20)
        assert (image[0] != image[1]).mean() > 0.5


@pytest.mark.parametrize("out_shape", [(2, 2), (4, 6), (8, 12), (3, 5)])
def test_resize_nearest_takes_pixels_of_the_array(out_shape: tuple[int, int]) -> None:
    arr = np.arange(24).reshape(4, 6)

    out = resize_nearest(arr, out_shape)

    assert out.shape == out_shape
    assert set(out.ravel()) <= set(arr.ravel())
    if out_shape == (8, 12):
        np.testing.assert_array_equal(out, arr.repeat(2, 0).repeat(2, 1))


def test_results_come_in_order_and_work_is_bounded() -> None:
    from concurrent.futures import ThreadPoolExecutor

    started: list[int] = []

    def work(i: int) -> Any:
        started.append(i)
        return [(str(i), b"")]

    with ThreadPoolExecutor(3) as pool:
        results = _in_order(range(50), work, pool, depth=5)
        first = [next(results) for _ in range(10)]
        assert len(started) <= 16
        rest = list(results)

    assert [r[0][0] for r in [*first, *rest] if r] == [str(i) for i in range(50)]


def test_options_of_0_31_that_know_no_rng_work() -> None:
    class OldOptions(ChipOptions):
        def keep_chip(self, chip: Any, label: Any) -> bool:  # type: ignore[override]
            return bool(label)

    keep = _keep_function(OldOptions(sampling=WindowSamplingConfig(size=5)))

    assert keep(None, True, np.random.default_rng())
    assert not keep(None, False, np.random.default_rng())


def test_two_scenes_give_pairs_of_chip_and_label(
    make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    train, valid = make_scene("a"), make_scene("b")
    pipeline = make_pipeline([train], [valid])

    chips = chip(pipeline, tmp_path)

    stems = [f"{s}-{y}-{x}-20x20" for s in "ab" for y in (0, 20) for x in (0, 20, 40)]
    expected = {f"train/{kind}/{s}.png" for kind in ("img", "labels") for s in stems if s[0] == "a"}
    expected |= {f"valid/{kind}/{s}.png" for kind in ("img", "labels") for s in stems if s[0] == "b"}
    assert set(chips) == expected
    scene = train.build(pipeline.dataset.class_config, str(tmp_path))
    image = np.hstack([chips[f"train/img/a-20-{x}-20x20.png"] for x in (0, 20, 40)])
    labels = np.hstack([chips[f"train/labels/a-20-{x}-20x20.png"] for x in (0, 20, 40)])
    np.testing.assert_array_equal(image, scene.raster_source[20:40, 0:60])
    np.testing.assert_array_equal(labels, np.repeat([[1, 0]], 30, axis=1).repeat(20, axis=0))


def test_a_second_run_gives_the_same_chips(make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path) -> None:
    # 0.31 added a second zip file
    options = {"target_class_ids": [1], "target_count_threshold": 200, "negative_survival_prob": 0.5}
    pipeline = make_pipeline([make_scene("a")], [make_scene("b")], sampling=random_windows(30), **options)

    first = chip(pipeline, tmp_path)
    second = chip(pipeline, tmp_path)

    assert len(list((tmp_path / "out" / "chip").glob("*.zip"))) == 1
    assert set(first) == set(second)
    assert all((first[name] == second[name]).all() for name in first)


def test_any_number_of_splits_gives_the_same_chips(
    make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    train = [make_scene("a"), make_scene("b")]
    pipeline = make_pipeline(train, [make_scene("c")], sampling=random_windows(5))
    whole = chip(pipeline, tmp_path)

    for num_splits in (3, 2):
        for split_ind in range(num_splits):
            chips = chip(pipeline, tmp_path, split_ind, num_splits)

        assert set(chips) == set(whole)
        assert all((chips[name] == whole[name]).all() for name in whole)
        assert len(list((tmp_path / "out" / "chip").glob("*.zip"))) == 2


def test_a_scene_in_train_and_validation_gives_different_random_chips(
    make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    scene = make_scene("a")
    chips = chip(make_pipeline([scene], [scene.copy()], sampling=random_windows(5)), tmp_path)

    train, valid = ({n.split("/")[2] for n in chips if n.startswith(f"{s}/img")} for s in ("train", "valid"))
    assert len(train) == len(valid) == 5
    assert train != valid


def test_random_windows_are_resized_to_the_chip_size(
    make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    sampling = random_windows(8, size=16, size_lims=(8, 30))

    chips = chip(make_pipeline([make_scene("a")], [make_scene("b")], sampling=sampling), tmp_path)

    assert len(chips) == 32
    assert {a.shape for n, a in chips.items() if "/img/" in n} == {(16, 16, 3)}
    assert {a.shape for n, a in chips.items() if "/labels/" in n} == {(16, 16)}
    # nearest pixel: no class between others
    assert {v for n, a in chips.items() if "/labels/" in n for v in np.unique(a)} <= {0, 1}


def test_more_channels_and_other_types_are_kept_as_they_are(
    make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    scenes = [make_scene("a", channels=4, dtype="uint16")], [make_scene("b", channels=3, dtype="uint16")]

    chips = chip(make_pipeline(*scenes), tmp_path)

    a, b = chips["train/img/a-0-0-20x20.npy"], chips["valid/img/b-0-0-20x20.npy"]
    assert a.shape == (20, 20, 4)
    assert a.dtype == np.uint16
    assert b.shape == (20, 20, 3)
    assert b.dtype == np.uint16


def test_sampling_by_scene(make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path) -> None:
    sampling = {"a": WindowSamplingConfig(size=20), "b": WindowSamplingConfig(size=10)}

    chips = chip(make_pipeline([make_scene("a")], [make_scene("b")], sampling=sampling), tmp_path)

    assert chips["train/img/a-0-0-20x20.png"].shape == (20, 20, 3)
    assert chips["valid/img/b-0-0-10x10.png"].shape == (10, 10, 3)


def test_chips_without_enough_targets_are_left_out(
    make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    options = {"target_class_ids": [1], "target_count_threshold": 300, "negative_survival_prob": 0.0}

    chips = chip(make_pipeline([make_scene("a")], [make_scene("b")], **options), tmp_path)

    assert {n for n in chips if n.startswith("train/labels")} == {f"train/labels/a-{y}-0-20x20.png" for y in (0, 20)}


def test_filters_that_leave_nothing_are_named(
    make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    options = {"target_class_ids": [1], "target_count_threshold": 500, "negative_survival_prob": 0.0}
    pipeline = make_pipeline([make_scene("a")], [make_scene("b")], **options)

    with pytest.raises(ConfigError, match=r"keeps none of 6 training chips \(.*target_count_threshold=500"):
        chip(pipeline, tmp_path)

    assert not (tmp_path / "out" / "chip").exists()


def test_a_split_without_chips_only_warns(
    make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"target_class_ids": [1], "target_count_threshold": 300, "negative_survival_prob": 0.0}
    empty = make_scene("a", labels=np.zeros((40, 60), np.uint8))
    pipeline = make_pipeline([empty, make_scene("b")], [make_scene("c")], **options)

    chip(pipeline, tmp_path, 0, 2)
    chips = chip(pipeline, tmp_path, 1, 2)

    assert "keeps none of 6 training chips" in caplog.text
    assert {n.split("/")[2][0] for n in chips} == {"b", "c"}


def test_a_window_that_fits_nowhere_is_an_error(
    make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    pipeline = make_pipeline([make_scene("a")], [make_scene("b")], sampling=WindowSamplingConfig(size=100, padding=0))

    with pytest.raises(ConfigError, match="no window to chip in the training scenes"):
        chip(pipeline, tmp_path)


def test_class_ids_outside_the_class_config_are_reported_now(
    make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    # 0.31 crashed in training
    scene = make_scene("a", labels=np.full((40, 60), 7, np.uint8))

    with pytest.raises(Exception, match=r"7") as e:
        chip(make_pipeline([scene], [make_scene("b")]), tmp_path)

    assert isinstance(e.value, ConfigError)
    assert not (tmp_path / "out" / "chip").exists()


def test_training_scenes_need_labels_and_test_scenes_do_not(
    make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    bare = make_scene("bare")
    bare.label_source = None

    chips = chip(make_pipeline([make_scene("a")], [make_scene("b")], [bare, make_scene("t")]), tmp_path)
    assert {n.split("/")[0] for n in chips} == {"train", "valid", "test"}
    assert not any("bare" in n for n in chips)

    with pytest.raises(ConfigError, match="Scene 'bare' in validation_scenes has no label_source"):
        chip(make_pipeline([make_scene("a")], [bare]), tmp_path)


def test_the_manifest_names_the_scenes(make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path) -> None:
    chip(make_pipeline([make_scene("a")], [make_scene("b")]), tmp_path)

    (path,) = (tmp_path / "out" / "chip").glob("*.zip")
    with zipfile.ZipFile(path) as zf:
        manifest = json.loads(zf.read("manifest.json"))
    assert manifest == {"scenes": ["a", "b"], "files": 24}
    assert json.loads(path.with_suffix(".json").read_text()) == manifest


def test_workers_come_from_the_settings(
    make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RASTERVISION_CHIP_NUM_WORKERS", "1")
    pipeline = make_pipeline([make_scene("a")], [make_scene("b")])

    backend: Any = pipeline.backend.build(pipeline, str(tmp_path))
    assert backend._num_chip_workers() == 1
    assert len(chip(pipeline, tmp_path)) == 24


def test_a_split_without_scenes_writes_nothing(
    make_scene: MakeScene, make_pipeline: MakePipeline, tmp_path: Path
) -> None:
    pipeline = make_pipeline([make_scene("a")], [make_scene("b")])

    backend = pipeline.backend.build(pipeline, str(tmp_path / "tmp"))
    assert pipeline.chip_options is not None
    backend.chip_dataset(pipeline.dataset.get_split_config(3, 4), pipeline.chip_options)

    assert not (tmp_path / "out").exists()
