from __future__ import annotations

import copy
import logging
from typing import Any

import pytest

from rastervision.core.upgraders import UPGRADERS
from rastervision.pipeline.config import Config, upgrade_config


def step(type_hint: str, version: int, cfg: dict[str, Any]) -> dict[str, Any]:
    """Take a config one version up, twice: the second time changes nothing."""
    cfg = {"type_hint": type_hint, **copy.deepcopy(cfg)}
    once = UPGRADERS.steps[type_hint](cfg, version)
    assert UPGRADERS.steps[type_hint](copy.deepcopy(once), version) == once
    once.pop("type_hint")
    return once


RGB = {"type_hint": "class_config", "names": ["a", "null"], "colors": ["red", "black"]}


@pytest.mark.parametrize(
    ("type_hint", "version", "before", "after"),
    [
        ("dataset", 0, {"img_channels": 3, "test_scenes": []}, {"test_scenes": []}),
        ("evaluator", 0, {"output_uri": "root/eval/eval.json"}, {"output_uri": "root/eval"}),
        ("evaluator", 0, {"output_uri": "root/mine.json"}, {"output_uri": "root/mine"}),
        ("evaluator", 0, {"output_uri": None}, {"output_uri": None}),
        ("multi_raster_source", 13, {"force_same_dtype": True}, {}),
        ("stats_transformer", 2, {}, {"scene_group": "__N/A__"}),
        ("stats_transformer", 2, {"scene_group": "g"}, {"scene_group": "g"}),
        ("stats_transformer", 13, {}, {"needs_channel_order": True}),
        ("stats_transformer", 13, {"needs_channel_order": False}, {"needs_channel_order": False}),
        ("semantic_segmentation_evaluator", 2, {"vector_output_uri": "u"}, {}),
        ("chip_classification_label_source", 4, {}, {"ioa_thresh": 0.5}),
        ("chip_classification_label_source", 4, {"ioa_thresh": None}, {"ioa_thresh": 0.5}),
        ("chip_classification_label_source", 4, {"ioa_thresh": 0.3}, {"ioa_thresh": 0.3}),
        ("rasterio_source", 5, {"x_shift": 0.0, "y_shift": 0}, {}),
        ("raster_source", 6, {"extent_crop": None}, {}),
        ("raster_source", 6, {"extent_crop": {"skip_top": 0, "skip_left": 0.0}}, {}),
        ("raster_source", 9, {"extent": [1, 2, 3, 4]}, {"bbox": [1, 2, 3, 4]}),
        ("raster_source", 9, {"extent": None}, {"bbox": None}),
        ("raster_source", 9, {"bbox": [1, 2, 3, 4]}, {"bbox": [1, 2, 3, 4]}),
        ("building_vector_output", 6, {"min_aspect_ratio": 1.618}, {}),
        ("vector_output", 0, {"uri": None, "denoise": 0}, {"uri": None, "denoise": 0}),
        ("vector_output", 8, {"uri": "p/s/vector_output/polygons-0.json"}, {}),
        ("vector_output", 8, {"uri": "p/s-0-polygons.json"}, {}),
        ("geojson_vector_source", 7, {"uri": "a.json"}, {"uris": "a.json"}),
        ("geojson_vector_source", 7, {"uri": None}, {"uris": []}),
        ("geojson_vector_source", 12, {"uris": "a", "ignore_crs_field": True}, {"uris": "a"}),
        ("scene", 4, {"aoi_geometries": None, "id": "x"}, {"id": "x"}),
        ("semantic_segmentation_label_store", 0, {"uri": "p/x.tif"}, {"uri": "p/x"}),
        (
            "semantic_segmentation_label_store",
            0,
            {"uri": "p/x.tif", "smooth_output": False},
            {"uri": "p/x.tif", "smooth_output": False},
        ),
        ("semantic_segmentation_label_source", 3, {"rgb_class_config": None}, {}),
        (
            "semantic_segmentation_label_source",
            3,
            {"rgb_class_config": RGB, "raster_source": {"type_hint": "rasterio_source", "transformers": [{"x": 1}]}},
            {
                "raster_source": {
                    "type_hint": "rasterio_source",
                    "transformers": [{"type_hint": "rgb_class_transformer", "class_config": RGB}, {"x": 1}],
                }
            },
        ),
        (
            "semantic_segmentation_label_source",
            3,
            {"rgb_class_config": RGB, "raster_source": {"type_hint": "rasterized_source"}},
            {"raster_source": {"type_hint": "rasterized_source"}},
        ),
        ("semantic_segmentation_predict_options", 14, {"stride": 3}, {"stride": 3, "mask_nodata": False}),
        (
            "semantic_segmentation",
            14,
            {},
            {"predict_options": {"type_hint": "semantic_segmentation_predict_options", "mask_nodata": False}},
        ),
        ("vector_source", 4, {}, {}),
    ],
)
def test_steps_on_single_configs(
    type_hint: str, version: int, before: dict[str, Any], after: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert step(type_hint, version, before) == after
    assert not caplog.records


@pytest.mark.parametrize(
    ("type_hint", "version", "before", "field"),
    [
        ("rasterio_source", 5, {"x_shift": 1.5}, "x_shift"),
        ("raster_source", 6, {"extent_crop": {"skip_top": 0.5, "skip_left": 0}}, "extent_crop"),
        ("raster_source", 6, {"extent_crop": [0, 0.5, 0, 0]}, "extent_crop"),
        ("scene", 4, {"aoi_geometries": [{"type": "Polygon"}]}, "aoi_geometries"),
        ("building_vector_output", 6, {"min_aspect_ratio": 2}, "min_aspect_ratio"),
        ("vector_output", 8, {"uri": "my/houses.json"}, "uri"),
    ],
)
def test_what_has_no_counterpart_is_told_with_its_field(
    type_hint: str, version: int, before: dict[str, Any], field: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert step(type_hint, version, before) == {}
    assert caplog.messages[0].startswith(f"{field} of {type_hint} was ")


def test_the_radius_of_a_vector_output_becomes_a_diameter_once() -> None:
    saved = {
        "type_hint": "polygon_vector_output",
        "class_id": 0,
        "denoise": 3,
        "uri": None,
        "plugin_versions": {"rastervision.core": 0},
    }
    once = upgrade_config(saved)

    assert once["denoise"] == 7
    assert upgrade_config(once) == once
    assert upgrade_config({**saved, "plugin_versions": {"rastervision.core": 7}})["denoise"] == 3


def test_classes_and_buffers_become_transformers() -> None:
    before = {
        "default_class_id": 1,
        "class_id_to_filter": {"1": ["has", "x"]},
        "line_bufs": {"1": 3},
        "point_bufs": None,
    }

    after = step("vector_source", 4, before)

    assert after == {
        "transformers": [
            {
                "type_hint": "class_inference_transformer",
                "default_class_id": 1,
                "class_id_to_filter": {"1": ["has", "x"]},
            },
            {"type_hint": "buffer_transformer", "geom_type": "LineString", "class_bufs": {"1": 3}},
            {"type_hint": "buffer_transformer", "geom_type": "Point", "class_bufs": {}},
        ]
    }


@pytest.mark.parametrize(
    ("method", "expected"),
    [("sliding", "sliding"), ("random_sample", "random"), ("random", "random"), (None, "sliding")],
)
def test_windows_of_semantic_segmentation(method: str | None, expected: str) -> None:
    before = {"window_method": method, "stride": 50, "chips_per_scene": 7, "target_class_ids": [1]}

    after = step("semantic_segmentation_chip_options", 10, before)

    sampling = {"type_hint": "window_sampling", "method": expected, "size": 300, "stride": 50, "max_windows": 7}
    assert after == {"target_class_ids": [1], "sampling": sampling}


def test_windows_without_a_stride_are_side_by_side() -> None:
    after = step("semantic_segmentation_chip_options", 10, {"window_method": "sliding", "stride": None})

    assert after["sampling"] == {"type_hint": "window_sampling", "method": "sliding", "size": 300}


@pytest.mark.parametrize("method", ["chip", "label", "image", "sliding", None])
def test_windows_of_object_detection(method: str | None, caplog: pytest.LogCaptureFixture) -> None:
    before = {"window_method": method, "neg_ratio": 0.5, "ioa_thresh": 0.7, "label_buffer": None}

    with caplog.at_level(logging.WARNING):
        after = step("object_detection_chip_options", 10, before)

    assert after["sampling"] == {
        "type_hint": "object_detection_window_sampling",
        "method": "sliding" if method == "sliding" else "random",
        "size": 300,
        "neg_ratio": 0.5,
        "ioa_thresh": 0.7,
    }
    assert list(after) == ["sampling"]
    assert [m.partition(" ")[0] for m in caplog.messages] == ([] if method == "sliding" else ["window_method"])


def test_a_label_buffer_is_lost_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        step("object_detection_chip_options", 10, {"window_method": "sliding", "label_buffer": 3})

    assert caplog.messages[0].startswith("label_buffer of object_detection_chip_options was 3,")


def pipeline(hint: str, **fields: Any) -> dict[str, Any]:
    return {"type_hint": hint, "plugin_versions": {"rastervision.core": 0, "rastervision.pytorch_backend": 2}, **fields}


@pytest.mark.parametrize(
    ("hint", "options", "sampling"),
    [
        ("chip_classification", "chip_options", "window_sampling"),
        ("object_detection", "object_detection_chip_options", "object_detection_window_sampling"),
        ("semantic_segmentation", "semantic_segmentation_chip_options", "window_sampling"),
    ],
)
def test_sizes_of_pipelines_move_into_options(hint: str, options: str, sampling: str) -> None:
    saved = pipeline(hint, train_chip_sz=200, predict_chip_sz=100, predict_batch_sz=4, chip_nodata_threshold=0.5)

    new = upgrade_config(saved)

    assert new["chip_options"] == {
        "type_hint": options,
        "sampling": {"type_hint": sampling, "method": "sliding", "size": 200},
        "nodata_threshold": 0.5,
    }
    assert new["predict_options"]["type_hint"] == options.replace("chip", "predict")
    assert (new["predict_options"]["chip_sz"], new["predict_options"]["batch_sz"]) == (100, 4)
    left = {"train_chip_sz", "predict_chip_sz", "predict_batch_sz", "chip_nodata_threshold"} & new.keys()
    assert not left


def test_sizes_of_pipelines_join_the_options_that_are_there() -> None:
    chip_options = {
        "type_hint": "semantic_segmentation_chip_options",
        "window_method": "random_sample",
        "chips_per_scene": 5,
        "stride": None,
    }
    predict_options = {"type_hint": "semantic_segmentation_predict_options", "stride": 50}
    saved = pipeline(
        "semantic_segmentation",
        train_chip_sz=200,
        predict_chip_sz=100,
        predict_batch_sz=4,
        chip_options=chip_options,
        predict_options=predict_options,
    )

    new = upgrade_config(saved)

    assert new["chip_options"]["sampling"] == {
        "type_hint": "window_sampling",
        "method": "random",
        "size": 200,
        "max_windows": 5,
    }
    assert new["chip_options"]["nodata_threshold"] == 1.0
    assert new["predict_options"] == {**predict_options, "chip_sz": 100, "batch_sz": 4, "mask_nodata": False}


def test_data_of_the_backend_get_what_the_pipeline_knows() -> None:
    classes = {"type_hint": "class_config", "names": ["a", "b"], "colors": ["red", "blue"], "null_class": "b"}
    data = {"type_hint": "semantic_segmentation_image_data"}
    saved = pipeline(
        "semantic_segmentation",
        train_chip_sz=200,
        chip_uri="root/chip",
        dataset={"type_hint": "dataset", "class_config": classes},
        backend={"type_hint": "pytorch_semantic_segmentation_backend", "data": data},
    )

    new = upgrade_config(saved)

    assert new["backend"]["data"] == {**data, "img_sz": 200, "uri": "root/chip", "class_config": classes}


def test_channel_groups_of_a_pipeline_move_to_the_plots_unless_these_have_some() -> None:
    def upgraded(plot_options: Any) -> Any:
        data = {"type_hint": "semantic_segmentation_image_data", "plot_options": plot_options}
        backend = {"type_hint": "pytorch_semantic_segmentation_backend", "data": data}
        groups = {"RGB": [0, 1, 2]}
        new = step(
            "semantic_segmentation",
            0,
            {"channel_display_groups": groups, "img_format": "npy", "label_format": "png", "backend": backend},
        )
        assert list(new) == ["backend"]
        return new["backend"]["data"]["plot_options"]

    assert upgraded({"x": 1})["channel_display_groups"] == {"RGB": [0, 1, 2]}
    assert upgraded({"channel_display_groups": [[0]]})["channel_display_groups"] == [[0]]
    assert upgraded(None) is None


def source(uri: str) -> dict[str, Any]:
    return {"type_hint": "rasterio_source", "uris": [uri]}


def multi(*targets: list[int] | None, **fields: Any) -> dict[str, Any]:
    subs = [
        {"type_hint": "sub_raster_source", "raster_source": source(str(i)), "target_channels": t}
        for i, t in enumerate(targets)
    ]
    return {
        "type_hint": "multi_raster_source",
        "raster_sources": subs,
        "crs_source": 1,
        "allow_different_extents": True,
        "force_same_dtype": False,
        "plugin_versions": {"rastervision.core": 0},
        **fields,
    }


def stats() -> dict[str, Any]:
    return {"type_hint": "stats_transformer", "stats_uri": "stats.json"}


def test_target_channels_become_the_channel_order() -> None:
    new = upgrade_config(multi([1, 2, 3], [0], channel_order=None, transformers=[stats()]))

    assert new["raster_sources"] == [source("0"), source("1")]
    assert (new["channel_order"], new["primary_source_idx"]) == ([3, 0, 1, 2], 1)
    # they have the order of the targets
    assert new["transformers"][0]["needs_channel_order"] is False
    assert upgrade_config(new) == new
    assert type(Config.deserialize(new)).__name__ == "MultiRasterSourceConfig"


def test_target_channels_and_a_channel_order_become_one() -> None:
    new = upgrade_config(multi([1, 2, 3], [0], channel_order=[0, 3]))

    # the target channels 0 and 3 are the fourth and the third of what is read
    assert new["channel_order"] == [3, 2]


def test_target_channels_a_channel_order_and_statistics_need_a_source_in_between() -> None:
    new = upgrade_config(multi([1, 2, 3], [0], channel_order=[0, 3], transformers=[stats()]))

    (inner,) = new["raster_sources"]
    assert (new["channel_order"], inner["channel_order"]) == ([0, 3], [3, 0, 1, 2])
    assert (new["primary_source_idx"], inner["primary_source_idx"]) == (0, 1)
    assert inner["raster_sources"] == [source("0"), source("1")]
    assert new["transformers"][0]["needs_channel_order"] is True
    Config.deserialize(new)


def test_sources_without_targets_follow_each_other() -> None:
    new = upgrade_config(multi(None, None, channel_order=[1, 0]))

    assert new["raster_sources"] == [source("0"), source("1")]
    assert new["channel_order"] == [1, 0]


@pytest.mark.parametrize("targets", [([0, 1], [1]), ([0, 2], [3]), ([0], None)])
def test_targets_that_are_no_order_are_told(targets: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        new = upgrade_config(multi(*targets, channel_order=None))

    assert new["channel_order"] is None
    assert caplog.messages[0].startswith("raster_sources.target_channels of multi_raster_source was ")
