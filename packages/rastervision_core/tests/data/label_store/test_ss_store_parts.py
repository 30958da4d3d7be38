"""The parts of a semantic segmentation store that can be used on their own, and its rasters as COGs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from rastervision.core.box import Box
from rastervision.core.data import (
    ClassConfig,
    PolygonVectorOutputConfig,
    RasterioCRSTransformer,
    SemanticSegmentationDiscreteLabels,
    SemanticSegmentationLabelStore,
    SemanticSegmentationSmoothLabels,
)
from rastervision.core.data.label.label_blocks import LabelBlock, WindowGrid, blend, first_argmax, unlabeled_id
from rastervision.core.data.label.streamed_labels import StreamedSemanticSegmentationLabels

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

UTM = RasterioCRSTransformer(
    transform=Affine.translation(500000, 4000000) @ Affine.scale(0.5, -0.5), image_crs="EPSG:32617"
)
SMALL = Box(0, 0, 40, 50)
LARGE = Box(0, 0, 700, 1100)


def classes(count: int = 3) -> ClassConfig:
    return ClassConfig(names=[*(f"c{i}" for i in range(count - 1)), "null"])


def store(folder: Path, count: int = 3, **kwargs: Any) -> SemanticSegmentationLabelStore:
    return SemanticSegmentationLabelStore(str(folder), UTM, classes(count), bbox=Box(10, 20, 710, 1120), **kwargs)


def class_ids(extent: Box, count: int = 3, dtype: Any = np.uint8) -> NDArray[Any]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, count, (-(-int(extent.height) // 10), -(-int(extent.width) // 10)))
    fine = np.kron(coarse, np.ones((10, 10)))
    return fine[: int(extent.height), : int(extent.width)].astype(dtype)


def discrete(extent: Box) -> SemanticSegmentationDiscreteLabels:
    labels = SemanticSegmentationDiscreteLabels.make_empty(extent, 3)
    labels.add_window(extent, class_ids(extent))
    return labels


def smooth(extent: Box, seed: int = 0) -> SemanticSegmentationSmoothLabels:
    labels = SemanticSegmentationSmoothLabels.make_empty(extent, 3)
    scores = np.random.default_rng(seed).integers(0, 5, (3, int(extent.height), int(extent.width))) / np.float32(4)
    labels.add_window(extent, scores)
    half = Box(0, 0, int(extent.height), int(extent.width) // 2)
    labels.add_window(half, scores[:, *half.to_slices()])
    return labels


@pytest.mark.parametrize(("extent", "factors"), [(SMALL, []), (LARGE, [2, 4])])
@pytest.mark.parametrize("options", [{}, {"save_as_rgb": True}, {"smooth_as_uint8": True}])
def test_rasters_are_cogs_as_0_31_reads_them(
    extent: Box, factors: list[int], options: dict[str, Any], tmp_path: Path
) -> None:
    store(tmp_path, smooth_output=True, **options).save(smooth(extent))

    for name in ("labels.tif", "scores.tif"):
        with rasterio.open(tmp_path / name) as src:
            assert src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert src.profile["tiled"]
            assert src.overviews(1) == factors
            assert src.block_shapes[0] == ((512, 512) if extent is LARGE else (48, 64))
            assert src.shape == extent.size
            assert src.crs.to_epsg() == 32617
            assert src.transform @ (0, 0) == (500010, 3999995)
            assert src.nodata is None
            if name == "labels.tif":
                assert (src.count, src.dtypes[0]) == (3 if options.get("save_as_rgb") else 1, "uint8")
                assert src.compression.name == "deflate"
            else:
                assert (src.count, src.dtypes[0]) == (3, "uint8" if options.get("smooth_as_uint8") else "float32")
    assert {p.name for p in tmp_path.iterdir()} == {"labels.tif", "scores.tif", "pixel_hits.npy"}


def test_overviews_of_class_ids_have_no_other_ids(tmp_path: Path) -> None:
    the_store = store(tmp_path)
    ids = class_ids(LARGE) // 2 * 2  # 0 and 2
    labels = SemanticSegmentationDiscreteLabels.make_empty(LARGE, 3)
    labels.add_window(LARGE, ids)

    the_store.save(labels)

    with rasterio.open(tmp_path / "labels.tif", overview_level=1) as src:
        assert set(np.unique(src.read())) == {0, 2}


def test_overviews_of_scores_are_means(tmp_path: Path) -> None:
    labels = smooth(LARGE)

    store(tmp_path, smooth_output=True).save(labels)

    scores = labels.get_score_arr(LARGE)
    with rasterio.open(tmp_path / "scores.tif", overview_level=0) as src:
        np.testing.assert_allclose(src.read(), scores.reshape(3, 350, 2, 550, 2).mean(axis=(2, 4)), atol=1e-6)


@pytest.mark.parametrize("block_sz", [300, 256, 16])
def test_tiles_of_any_size(block_sz: int, tmp_path: Path) -> None:
    the_store, labels = store(tmp_path, smooth_output=True, rasterio_block_size=block_sz), smooth(LARGE)

    the_store.save(labels)

    np.testing.assert_allclose(the_store.get_scores().get_score_arr(LARGE), labels.get_score_arr(LARGE), atol=1e-6)


@pytest.mark.parametrize(
    "profile", [{"compress": "lzw", "blockxsize": 128, "blockysize": 64}, {"tiled": False, "blockysize": 1}]
)
def test_profile_entries_go_before_ours(profile: dict[str, Any], tmp_path: Path) -> None:
    the_store, labels = store(tmp_path, smooth_output=True), smooth(LARGE)

    the_store.save(labels, profile=profile)

    for name in ("labels.tif", "scores.tif"):
        with rasterio.open(tmp_path / name) as src:
            assert {key: src.profile.get(key) for key in profile} == profile
    np.testing.assert_allclose(the_store.get_scores().get_score_arr(LARGE), labels.get_score_arr(LARGE), atol=1e-6)


def test_scores_of_class_ids_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only class ids"):
        store(tmp_path, smooth_output=True).save(discrete(SMALL))

    assert not list(tmp_path.iterdir())


def test_a_profile_that_gdal_refuses_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="multiples of 16"):
        store(tmp_path, smooth_output=True).save(smooth(SMALL), profile={"blockxsize": 7})

    assert not list(tmp_path.iterdir())


def test_polygons_do_not_need_the_raster(tmp_path: Path) -> None:
    outputs = [PolygonVectorOutputConfig(class_id=1, denoise=0)]

    store(tmp_path / "a", discrete_output=False, vector_outputs=outputs).save(discrete(LARGE))
    store(tmp_path / "b", vector_outputs=outputs).save(discrete(LARGE))

    assert [p.name for p in (tmp_path / "a").iterdir()] == ["vector_output"]
    name = "vector_output/class-1-c1.json"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_rasters_are_written_one_by_one(tmp_path: Path) -> None:
    the_store, labels = store(tmp_path / "unused", smooth_output=True), smooth(LARGE)
    profile = the_store.build_rasterio_gtiff_profile(labels)
    assert {"driver", "height", "width", "transform", "crs"} <= set(profile)
    paths = [str(tmp_path / name) for name in ("ids.tif", "s.tif", "h.npy")]

    the_store.write_discrete_raster_output(profile, paths[0], labels)
    the_store.write_smooth_raster_output(profile, *paths[1:], labels)

    with rasterio.open(paths[0]) as src:
        np.testing.assert_array_equal(src.read(1), labels.get_label_arr(LARGE))
    with rasterio.open(paths[1]) as src:
        np.testing.assert_array_equal(src.read(), labels.get_score_arr(LARGE))
    np.testing.assert_array_equal(np.load(paths[2]), labels.pixel_hits)
    assert {p.name for p in tmp_path.iterdir()} == {"ids.tif", "s.tif", "h.npy"}


def test_polygons_are_written_one_by_one(tmp_path: Path) -> None:
    outputs = [PolygonVectorOutputConfig(class_id=i, denoise=0) for i in range(2)]
    the_store, labels = store(tmp_path / "a", vector_outputs=outputs), discrete(LARGE)
    the_store.save(labels)

    the_store.write_vector_outputs(labels, str(tmp_path / "b"))
    mask = labels.get_class_mask(LARGE, 1)
    the_store.write_vector_output(outputs[1], mask, str(tmp_path / "c"))

    saved = {p.name: p.read_bytes() for p in Path(the_store.vector_output_dir_local).iterdir()}
    assert {p.name: p.read_bytes() for p in (tmp_path / "b").iterdir()} == saved
    assert {p.name: p.read_bytes() for p in (tmp_path / "c").iterdir()} == {"class-1-c1.json": saved["class-1-c1.json"]}


def test_old_scores_are_merged_only_when_asked_for(tmp_path: Path) -> None:
    the_store = store(tmp_path, smooth_output=True)
    first, second = smooth(SMALL, 0), smooth(SMALL, 1)
    assert the_store.merge_with_old_scores(first) is first
    the_store.save(first)

    merged = the_store.merge_with_old_scores(second)
    the_store.save(second)

    assert merged == first + second
    assert the_store.get_scores() == second


def test_local_folders(tmp_path: Path) -> None:
    local = store(tmp_path / "x")
    assert (local.root_uri_local, local.vector_output_dir_local) == (
        str(tmp_path / "x"),
        str(tmp_path / "x/vector_output"),
    )
    remote = SemanticSegmentationLabelStore("http://example.com/out", UTM, classes(), tmp_dir=str(tmp_path))
    assert remote.root_uri_local.startswith(str(tmp_path))
    without_folder = SemanticSegmentationLabelStore("http://example.com/out", UTM, classes())
    assert without_folder.root_uri_local == without_folder.root_uri_local


# -- many classes ------------------------------------------------------------------------------------------------------


def streamed(extent: Box, arr: NDArray[Any], count: int) -> StreamedSemanticSegmentationLabels:
    def blocks() -> Iterator[LabelBlock]:
        for y in range(0, int(extent.height), 16):
            part = arr[y : y + 16].copy()
            complete = bool((part != unlabeled_id(part.dtype)).all())
            yield LabelBlock(Box(y, 0, y + len(part), int(extent.width)), part, complete=complete)

    return StreamedSemanticSegmentationLabels(extent, count, smooth=False, make_blocks=blocks, block_sz=16)


@pytest.mark.parametrize(("count", "dtype"), [(255, "uint8"), (256, "uint16"), (65_535, "uint16")])
def test_many_classes_get_a_wider_raster(count: int, dtype: str, tmp_path: Path) -> None:
    arr = class_ids(SMALL, count - 1, dtype)
    arr[:, 45:] = unlabeled_id(np.dtype(dtype))
    the_store = store(tmp_path, count, rasterio_block_size=16)

    the_store.save(streamed(SMALL, arr, count))

    arr[:, 45:] = count - 1  # the null class
    with rasterio.open(tmp_path / "labels.tif") as src:
        assert src.dtypes == (dtype,)
        np.testing.assert_array_equal(src.read(1), arr)
    with the_store.label_reader() as reader:
        np.testing.assert_array_equal(reader.get_label_arr(SMALL), arr)


def test_too_many_classes_are_an_error() -> None:
    with pytest.raises(ValueError, match="65536 classes"):
        streamed(SMALL, class_ids(SMALL), 65_536)


@settings(max_examples=20)
@given(
    count=st.sampled_from([3, 300]),
    stride=st.sampled_from([8, 16]),
    smooth=st.booleans(),
    null=st.sampled_from([-1, 2]),
)
def test_blocks_of_many_classes_equal_labels_in_memory(count: int, stride: int, smooth: bool, null: int) -> None:
    extent = Box(0, 0, 24, 40)
    scores = np.random.default_rng(0).random((count, 24, 40), np.float32)
    grid = WindowGrid.sliding(extent, 16, stride)
    padded = np.pad(scores, ((0, 0), (0, 32), (0, 32)))
    predictions = {
        (y, x): padded[:, y : y + 16, x : x + 16] if smooth else first_argmax(padded[:, y : y + 16, x : x + 16])
        for y in grid.rows
        for x in grid.cols
    }

    def predict(strip: Any) -> Iterator[Any]:
        for i, y in enumerate(grid.rows):
            yield i, [(x, predictions[y, x]) for x in strip.cols]

    labels_cls = SemanticSegmentationSmoothLabels if smooth else SemanticSegmentationDiscreteLabels
    labels = labels_cls.make_empty(extent, count)
    for (y, x), prediction in predictions.items():
        labels.add_window(Box(y, x, y + 16, x + 16), prediction)

    for block in blend(grid, count, predict, smooth=smooth, block_sz=16):
        expected = labels.get_label_arr(block.window, null)
        np.testing.assert_array_equal(block.label_arr, expected)
        assert expected.dtype == {(3, -1): "i2", (3, 2): "u1", (300, -1): "i4", (300, 2): "u2"}[count, null]
