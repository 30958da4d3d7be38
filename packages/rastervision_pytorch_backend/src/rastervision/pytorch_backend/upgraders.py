"""History of the saved configs of this package, under the two plugin names that they carry.

``rastervision.pytorch_learner`` has version 7 in releases 0.30 and 0.31, 4 in 0.20 and 0.21, 2 in 0.13, and 1 or 0 in
0.12; ``rastervision.pytorch_backend`` has 2, 1, 1 and 0. A change leaves a dict that it was made to before as it is.
"""

from __future__ import annotations

from typing import Any

from rastervision.pipeline.upgrade import Change, Upgraders, by_version, lose, removing, warn_of_loss

__all__ = ["BACKEND", "LEARNER"]

Cfg = dict[str, Any]

_MOVED_TO_DATA = (
    "augmentors",
    "group_uris",
    "group_train_sz",
    "group_train_sz_rel",
    "num_workers",
    "img_sz",
    "base_transform",
    "aug_transform",
    "plot_options",
    "preview_batch_limit",
)


def _data_of_backend(type_hint: str) -> Change:
    """Return the change that moves what release 0.12 said of the data in the backend into a data config."""

    def change(cfg: Cfg) -> None:
        moved = {name: cfg.pop(name) for name in _MOVED_TO_DATA if name in cfg}
        if moved.get("img_sz", 0) is None:
            # the pipeline knows it
            del moved["img_sz"]
        cfg["data"] = cfg.get("data") or {"type_hint": type_hint, **moved}

    return change


def _renamed(old: str, new: str) -> Change:
    def change(cfg: Cfg) -> None:
        if cfg["type_hint"] == old:
            cfg["type_hint"] = new

    return change


def _backbone_name(cfg: Cfg) -> None:
    backbone = cfg.get("backbone")
    if isinstance(backbone, int):
        from rastervision.pytorch_backend.learner_config.model import Backbone

        cfg["backbone"] = Backbone.int_to_str(backbone)


def _class_config(cfg: Cfg) -> None:
    """Make a class config of the names and colours of the classes."""
    if "class_names" not in cfg and "class_colors" not in cfg:
        return
    names, colors = cfg.pop("class_names", None), cfg.pop("class_colors", None)
    if not names or cfg.get("class_config") is not None:
        return
    if colors and len(colors) != len(names):
        warn_of_loss(cfg, "class_colors", colors, f"there are {len(names)} class_names; the classes get new colours.")
        colors = None
    cfg["class_config"] = {"type_hint": "class_config", "names": names, "colors": colors or None}


def _channel_display_groups(cfg: Cfg) -> None:
    """Move the channel groups to the plots, which may have their own."""
    groups, plot_options = cfg.pop("channel_display_groups", None), cfg.get("plot_options")
    if groups and plot_options and not plot_options.get("channel_display_groups"):
        plot_options["channel_display_groups"] = groups


def _sampling(cfg: Cfg) -> None:
    if "window_opts" in cfg:
        options = cfg.pop("window_opts")
        cfg.setdefault("sampling", options or {})


def _ignore_class_index(cfg: Cfg) -> None:
    """Name the last class by its index; any value but false, such as "force", meant it."""
    ignored = cfg.pop("ignore_last_class", None)
    if ignored is None or ignored is False:
        return
    if cfg.get("external_loss_def") is None:
        cfg.setdefault("ignore_class_index", -1)
    else:
        warn_of_loss(cfg, "ignore_last_class", ignored, "an external loss decides itself what it leaves out.")


def _full_precision(cfg: Cfg) -> None:
    # as releases did that could not do otherwise
    cfg.setdefault("mixed_precision", False)


def _three_channels(cfg: Cfg) -> None:
    """Say that images have three channels where a model could not have others."""
    data = cfg.get("data")
    external = (cfg.get("model") or {}).get("external_def")
    if isinstance(data, dict) and data.get("img_channels") is None and external is None:
        data["img_channels"] = 3


def _learner_of_pipeline(cfg: Cfg) -> Cfg:
    """Return the learner in what bundles held up to release 0.21: a pipeline of a learner and nothing else."""
    learner = cfg["learner"]
    if "plugin_versions" in cfg:
        learner["plugin_versions"] = cfg["plugin_versions"]
    return learner


def _test_mode(cfg: Cfg) -> None:
    lose(cfg, "test_mode", "set small sizes in the config instead.", harmless=(None, False))


BACKEND = Upgraders(
    version=2,
    steps={
        "pytorch_chip_classification_backend": by_version({0: _data_of_backend("classification_image_data")}),
        "pytorch_learner_backend": by_version({1: _test_mode}),
        "pytorch_object_detection_backend": by_version({0: _data_of_backend("object_detection_image_data")}),
        "pytorch_semantic_segmentation_backend": by_version({0: _data_of_backend("semantic_segmentation_image_data")}),
    },
)

_DATA_RENAMES = {
    "data": "image_data",
    "classification_data": "classification_image_data",
    "object_detection_data": "object_detection_image_data",
    "regression_data": "regression_image_data",
}

LEARNER = Upgraders(
    version=8,
    renames={
        "geo_data_window": "window_sampling",
        "object_detection_geo_data_window": "object_detection_window_sampling",
    },
    steps={
        **{old: by_version({1: _renamed(old, new)}) for old, new in _DATA_RENAMES.items() if old != "data"},
        "data": by_version({1: _renamed("data", "image_data"), 6: _class_config}),
        "geo_data": by_version({5: _sampling}),
        "learner": by_version({2: _three_channels, 4: removing("overfit_mode", "test_mode", "predict_mode")}),
        "learner_pipeline": by_version({4: _learner_of_pipeline}),
        "model": by_version({0: _backbone_name}),
        "semantic_segmentation_data": by_version(
            {1: _renamed("semantic_segmentation_data", "semantic_segmentation_image_data"), 2: _channel_display_groups}
        ),
        "semantic_segmentation_image_data": by_version({2: removing("img_format", "label_format")}),
        "solver": by_version(
            {
                3: _ignore_class_index,
                4: removing("test_batch_sz", "test_num_epochs", "overfit_num_steps"),
                7: _full_precision,
            }
        ),
    },
)
