"""The commands that use a model bundle: ``rastervision predict`` and ``rastervision predict_scene``."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["predict", "predict_scene"]


def predict(
    model_bundle: Annotated[str, typer.Argument(help="Model bundle that the bundle command wrote.")],
    image_uri: Annotated[str, typer.Argument(help="Image to predict.")],
    label_uri: Annotated[str, typer.Argument(help="Where the labels go; a folder for semantic segmentation.")],
    update_stats: Annotated[
        bool,
        typer.Option(
            "--update-stats",
            "-a",
            help="Compute statistics from the image instead of using those of training.",
        ),
    ] = False,
    channel_order: Annotated[
        list[str] | None,
        typer.Option(
            "--channel-order",
            metavar="INTEGER...",
            help="Channels of the image in the order of those of training, as in: --channel-order 2 1 0.",
        ),
    ] = None,
    scene_group: Annotated[
        str | None,
        typer.Option("--scene-group", help="Group of training scenes whose statistics are used."),
    ] = None,
) -> None:
    """Predict an image with a model bundle."""
    from rastervision.core.predictor import Predictor
    from rastervision.pipeline.file_system import get_tmp_dir

    channels = parse_channel_order(channel_order)
    with get_tmp_dir() as tmp_dir:
        predictor = Predictor(
            model_bundle, tmp_dir, update_stats=update_stats, channel_order=channels, scene_group=scene_group
        )
        predictor.predict([image_uri], label_uri)
    show_outputs(label_uri)


# all words up to the next option are its values
predict.swallow_options = ("--channel-order",)  # type: ignore[attr-defined]


def predict_scene(
    model_bundle_uri: Annotated[str, typer.Argument(help="Model bundle that the bundle command wrote.")],
    scene_config_uri: Annotated[str, typer.Argument(help="JSON file with a scene config.")],
    predict_options_uri: Annotated[
        str | None,
        typer.Option("--predict_options_uri", help="JSON file with predict options, instead of the bundle's."),
    ] = None,
) -> None:
    """Predict a scene, given by its config, with a model bundle."""
    from rastervision.core.data.scene import SceneConfig
    from rastervision.core.predictor import ScenePredictor
    from rastervision.pipeline.file_system import get_tmp_dir

    scene_config = SceneConfig.from_file(scene_config_uri)
    with get_tmp_dir() as tmp_dir:
        ScenePredictor(model_bundle_uri, predict_options_uri, tmp_dir).predict(scene_config)
    uri = getattr(scene_config.label_store, "uri", None)
    if uri:
        show_outputs(uri)


def parse_channel_order(words: list[str] | None) -> list[int] | None:
    """Return the channels that ``2 1 0`` or ``2,1,0`` stand for; None if there are none."""
    channels = [part for word in words or [] for part in word.replace(",", " ").split()]
    if not all(part.isdecimal() for part in channels):
        raise typer.BadParameter(
            f"{' '.join(words or [])!r} is not a list of channel numbers such as 2 1 0.",
            param_hint="--channel-order",
        )
    return [int(part) for part in channels] or None


def show_outputs(uri: str) -> None:
    """Print the files at a URI: those in it if it is a local folder."""
    from pathlib import Path

    from rastervision.pipeline.file_system import is_local

    if is_local(uri) and Path(uri).is_dir():
        for path in sorted(p for p in Path(uri).rglob("*") if p.is_file()):
            typer.echo(path)
    else:
        typer.echo(uri)
