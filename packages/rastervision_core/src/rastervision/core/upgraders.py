"""How configs that older releases saved become today's: one function per type hint and version.

Version 14 is that of Raster Vision 0.31, 13 of 0.30, 10 of 0.21, 7 of 0.20, and 0 of both 0.12 and 0.13: what these
two have in common or apart is told by the fields that are there. A change leaves a dict that it was made to before as
it is, as the old version numbers stay in a pipeline config that was loaded.
"""

from __future__ import annotations

import re
from typing import Any

from rastervision.pipeline.upgrade import Upgraders, by_version, lose, removing, warn_of_loss

__all__ = ["UPGRADERS"]

Cfg = dict[str, Any]

# what pipelines call their options; others have those of the base class
_CHIP_OPTIONS = {
    "semantic_segmentation": "semantic_segmentation_chip_options",
    "object_detection": "object_detection_chip_options",
}
_PREDICT_OPTIONS = {
    "semantic_segmentation": "semantic_segmentation_predict_options",
    "object_detection": "object_detection_predict_options",
}
_WINDOW_SAMPLING = {"object_detection_chip_options": "object_detection_window_sampling"}


# pipelines


def _pipeline_chip_options(cfg: Cfg) -> None:
    """Move the chip size and the NODATA threshold of a pipeline into its chip options."""
    size, threshold = cfg.pop("train_chip_sz", None), cfg.pop("chip_nodata_threshold", None)
    if size is None and threshold is None:
        return
    hint = _CHIP_OPTIONS.get(cfg["type_hint"], "chip_options")
    options = cfg.get("chip_options") or {"type_hint": hint}
    cfg["chip_options"] = options
    method = "sliding" if options.pop("method", "sliding") == "sliding" else "random"
    sampling = options.setdefault(
        "sampling", {"type_hint": _WINDOW_SAMPLING.get(hint, "window_sampling"), "method": method, "size": 300}
    )
    if size is not None:
        sampling["size"] = size
    options.setdefault("nodata_threshold", 1.0 if threshold is None else threshold)
    _complete_backend_data(cfg, size)


def _complete_backend_data(cfg: Cfg, size: int | None) -> None:
    """Give the backend's data what only the pipeline knows."""
    data = (cfg.get("backend") or {}).get("data")
    if not isinstance(data, dict):
        return
    if "img_sz" not in data:
        # release 0.12 had no data config in the backend; its images were as large as the chips
        data["img_sz"] = 300 if size is None else size
        data.setdefault("uri", cfg.get("chip_uri"))
    classes = (cfg.get("dataset") or {}).get("class_config")
    of_data = data.get("class_config")
    if isinstance(classes, dict) and (of_data is None or of_data.get("names") == classes.get("names")):
        # up to release 0.21 data knew names and colours, but not which class is the null class
        data["class_config"] = dict(classes)


def _pipeline_predict_options(cfg: Cfg) -> None:
    """Move the size and number of windows of a pipeline into its predict options."""
    moved = {new: cfg.pop(f"predict_{new}") for new in ("chip_sz", "batch_sz") if f"predict_{new}" in cfg}
    if moved:
        options = cfg.get("predict_options") or {"type_hint": _PREDICT_OPTIONS.get(cfg["type_hint"], "predict_options")}
        cfg["predict_options"] = {**moved, **options}


def _channel_display_groups(cfg: Cfg) -> None:
    """Move the channel groups of a pipeline to the plots of its data, which may have their own."""
    groups = cfg.pop("channel_display_groups", None)
    plot_options = ((cfg.get("backend") or {}).get("data") or {}).get("plot_options")
    if groups and plot_options and not plot_options.get("channel_display_groups"):
        plot_options["channel_display_groups"] = groups
    # chips have the format that their type of data needs, which is told by their names
    removing("img_format", "label_format")(cfg)


def _do_not_mask_nodata(options: Cfg) -> None:
    """Predict pixels without data, too, as releases did that could not leave them out."""
    options.setdefault("mask_nodata", False)


def _pipeline_does_not_mask_nodata(cfg: Cfg) -> None:
    cfg["predict_options"] = cfg.get("predict_options") or {"type_hint": _PREDICT_OPTIONS["semantic_segmentation"]}
    _do_not_mask_nodata(cfg["predict_options"])


# chip options


def _ss_sampling(cfg: Cfg) -> None:
    """Make window sampling of how semantic segmentation placed windows; the size is that of the pipeline."""
    if "sampling" not in cfg:
        method = cfg.pop("window_method", None)
        cfg["sampling"] = {
            "type_hint": "window_sampling",
            # up to release 0.21 the other method was called random_sample
            "method": "sliding" if method in (None, "sliding") else "random",
            "size": 300,
        }
        for old, new in (("stride", "stride"), ("chips_per_scene", "max_windows")):
            if (value := cfg.pop(old, None)) is not None:
                cfg["sampling"][new] = value


def _od_sampling(cfg: Cfg) -> None:
    """Make window sampling of how object detection placed windows; the size is that of the pipeline."""
    if "sampling" in cfg:
        return
    method = cfg.pop("window_method", None) or "chip"
    if method != "sliding":
        advice = {
            "chip": "there were as many windows as objects; now there are sampling.max_windows per scene.",
            "label": "windows were as large as objects; now they have the size of chips, or sampling.size_lims.",
            "image": "windows were whole images; now they have the size of chips.",
        }
        warn_of_loss(cfg, "window_method", method, advice.get(method, "windows are placed at random."))
    lose(cfg, "label_buffer", "windows are not fitted to objects.", harmless=(None, 0))
    moved = {name: cfg.pop(name) for name in ("neg_ratio", "ioa_thresh") if cfg.get(name) is not None}
    cfg["sampling"] = {
        "type_hint": "object_detection_window_sampling",
        "method": "sliding" if method == "sliding" else "random",
        "size": 300,
        **moved,
    }
    removing("neg_ratio", "ioa_thresh")(cfg)


# scenes and imagery


def _aoi_geometries(cfg: Cfg) -> None:
    lose(cfg, "aoi_geometries", "write them to a GeoJSON file and name it in aoi_uris.", harmless=(None, []))


def _shift(cfg: Cfg) -> None:
    for name in ("x_shift", "y_shift"):
        lose(cfg, name, "shift the image itself.", harmless=(None, 0))


def _extent_crop(cfg: Cfg) -> None:
    crop = cfg.pop("extent_crop", None)
    offsets = [v for k, v in crop.items() if k != "type_hint"] if isinstance(crop, dict) else crop
    if offsets and any(offsets):
        # fractions of a size that is only in the image
        warn_of_loss(cfg, "extent_crop", crop, "the whole image is used; set bbox, in pixels.")


def _bbox(cfg: Cfg) -> None:
    if "extent" in cfg:
        extent = cfg.pop("extent")
        cfg.setdefault("bbox", extent)


def _multi_raster_source(cfg: Cfg) -> Cfg:
    """Take raster sources out of what said where their channels go, and say the same with the channel order."""
    if "crs_source" in cfg:
        cfg["primary_source_idx"] = cfg.pop("crs_source") or 0
    # sources of different extents are always allowed
    cfg.pop("allow_different_extents", None)
    parts = cfg["raster_sources"]
    if not any("target_channels" in part for part in parts):
        return cfg
    cfg["raster_sources"] = [part.get("raster_source", part) for part in parts]
    targets = [part.get("target_channels") for part in parts]
    if all(t is None for t in targets):
        return cfg
    flat = [channel for t in targets for channel in t or ()]
    if None in targets or sorted(flat) != list(range(len(flat))):
        warn_of_loss(cfg, "raster_sources.target_channels", targets, "channels follow each other; set channel_order.")
        return cfg
    order = [flat.index(channel) for channel in range(len(flat))]
    stats = [t for t in cfg.get("transformers") or () if t.get("type_hint") == "stats_transformer"]
    if cfg.get("channel_order") is None:
        cfg["channel_order"] = order
        for transformer in stats:
            # its statistics are in the order of the targets already
            transformer["needs_channel_order"] = False
        return cfg
    if not stats:
        cfg["channel_order"] = [order[channel] for channel in cfg["channel_order"]]
        return cfg
    # statistics in the order of the targets, of which channel_order selects: one source makes the targets
    inner = {name: cfg[name] for name in ("type_hint", "raster_sources", "primary_source_idx") if name in cfg}
    cfg["raster_sources"] = [{**inner, "channel_order": order}]
    cfg["primary_source_idx"] = 0
    return cfg


def _scene_group(cfg: Cfg) -> None:
    # up to release 0.13 there was one stats.json for all scenes; this name stands for it
    cfg.setdefault("scene_group", "__N/A__")


def _needs_channel_order(cfg: Cfg) -> None:
    cfg.setdefault("needs_channel_order", True)


# labels, vectors, evaluation


def _rgb_class_config(cfg: Cfg) -> None:
    """Make a transformer of the colours of a label raster."""
    classes = cfg.pop("rgb_class_config", None)
    source = cfg.get("raster_source")
    if classes is None or not isinstance(source, dict):
        return
    if source.get("type_hint") == "rasterized_source":
        # vectors are not read by colour
        return
    transformer = {"type_hint": "rgb_class_transformer", "class_config": classes}
    source["transformers"] = [transformer, *(source.get("transformers") or ())]


def _ioa_thresh(cfg: Cfg) -> None:
    if cfg.get("ioa_thresh") is None:
        cfg["ioa_thresh"] = 0.5


def _vector_transformers(cfg: Cfg) -> None:
    """Make transformers of how classes are inferred and how lines and points get an area."""
    names = ("default_class_id", "class_id_to_filter", "line_bufs", "point_bufs")
    if not any(name in cfg for name in names):
        return
    default_class_id, class_id_to_filter, line_bufs, point_bufs = (cfg.pop(name, None) for name in names)
    cfg.setdefault(
        "transformers",
        [
            {
                "type_hint": "class_inference_transformer",
                "default_class_id": default_class_id,
                "class_id_to_filter": class_id_to_filter,
            },
            {"type_hint": "buffer_transformer", "geom_type": "LineString", "class_bufs": line_bufs or {}},
            {"type_hint": "buffer_transformer", "geom_type": "Point", "class_bufs": point_bufs or {}},
        ],
    )


def _uris(cfg: Cfg) -> None:
    if "uri" in cfg:
        uri = cfg.pop("uri")
        cfg.setdefault("uris", uri or [])


def _denoise_diameter(cfg: Cfg) -> None:
    # the radius of a disc up to release 0.13, which still had a uri here; its diameter since
    if "uri" in cfg and cfg.get("denoise"):
        cfg["denoise"] = 2 * cfg["denoise"] + 1


def _vector_output_uri(cfg: Cfg) -> None:
    uri = cfg.pop("uri", None)
    if uri is not None and not re.search(r"((polygons|buildings)-\d+|-\d+-(polygons|buildings))\.json$", uri):
        warn_of_loss(cfg, "uri", uri, "it is vector_output/class-<id>-<name>.json in the folder of the label store.")


def _min_aspect_ratio(cfg: Cfg) -> None:
    lose(cfg, "min_aspect_ratio", "buildings are not chosen by their shape.", harmless=(None, 1.618))


def _label_store_folder(cfg: Cfg) -> None:
    # a file up to release 0.12, which did not have smooth_output; a folder since
    uri = cfg.get("uri")
    if uri is not None and "smooth_output" not in cfg:
        cfg["uri"] = uri.removesuffix(".tif")


def _evaluator_folder(cfg: Cfg) -> None:
    # a file up to release 0.13; since then a folder, with a file per group of scenes
    uri = cfg.get("output_uri")
    if uri is not None and uri.endswith(".json"):
        cfg["output_uri"] = uri.removesuffix("/eval.json").removesuffix(".json")


UPGRADERS = Upgraders(
    version=15,
    steps={
        "building_vector_output": by_version({6: _min_aspect_ratio}),
        "chip_classification_label_source": by_version({4: _ioa_thresh}),
        "dataset": by_version({0: removing("img_channels")}),
        "evaluator": by_version({0: _evaluator_folder}),
        "geojson_vector_source": by_version({7: _uris, 12: removing("ignore_crs_field")}),
        "multi_raster_source": by_version({1: _multi_raster_source, 13: removing("force_same_dtype")}),
        "object_detection_chip_options": by_version({10: _od_sampling}),
        "raster_source": by_version({6: _extent_crop, 9: _bbox}),
        "rasterio_source": by_version({5: _shift}),
        "rv_pipeline": by_version({10: _pipeline_chip_options, 11: _pipeline_predict_options}),
        "scene": by_version({4: _aoi_geometries}),
        "semantic_segmentation": by_version({0: _channel_display_groups, 14: _pipeline_does_not_mask_nodata}),
        "semantic_segmentation_chip_options": by_version({10: _ss_sampling}),
        "semantic_segmentation_evaluator": by_version({2: removing("vector_output_uri")}),
        "semantic_segmentation_label_source": by_version({3: _rgb_class_config}),
        "semantic_segmentation_label_store": by_version({0: _label_store_folder}),
        "semantic_segmentation_predict_options": by_version({14: _do_not_mask_nodata}),
        "stats_transformer": by_version({2: _scene_group, 13: _needs_channel_order}),
        "vector_output": by_version({0: _denoise_diameter, 8: _vector_output_uri}),
        "vector_source": by_version({4: _vector_transformers}),
    },
)
