"""Models of timm, segmentation_models_pytorch and torchgeo, which `ModelConfig.architecture` names.

None of them is needed otherwise; each is an extra of this package.
"""

from __future__ import annotations

import difflib
import importlib
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from rastervision.pipeline.errors import ConfigError, MissingPackageError
from rastervision.pytorch_learner.channels import adjust_first_conv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["build_features", "build_library_classifier", "build_library_segmenter"]

log = logging.getLogger(__name__)

_PACKAGES = {"timm": "timm", "smp": "segmentation_models_pytorch", "torchgeo": "torchgeo.models"}
_DECODER, _ENCODER = "unet", "resnet34"


def build_library_classifier(
    architecture: str,
    num_classes: int,
    in_channels: int = 3,
    *,
    pretrained: bool = False,
    fetch_weights: bool = True,
    **extra_args: Any,
) -> nn.Module:
    """Build a model of timm or torchgeo that gives (N, K) numbers.

    Args:
        architecture: ``timm:<model>`` or ``torchgeo:<model>[/<weights>]``.
        num_classes: Number of outputs.
        in_channels: Number of channels of the images.
        pretrained: Whether to use pretrained weights.
        fetch_weights: Whether to get them now; see `build_model`.
        **extra_args: Arguments of the library's function; vision transformers may need ``img_size``.

    Raises:
        ConfigError: There is no such model, or it does not take these arguments.
        MissingPackageError: The library is not installed.
    """
    library, name = architecture.split(":", 1)
    with _naming(architecture, extra_args):
        if library == "timm":
            args = {**extra_args, "num_classes": num_classes, "pretrained": pretrained and fetch_weights}
            return _with_channels(_timm_maker(name), "in_chans", in_channels, pretrained, args)
        geo = _import("torchgeo", architecture)
        name, weights = _torchgeo_weights(geo, name, pretrained)
        args = {**extra_args, "num_classes": num_classes}

        def make(**kwargs: Any) -> nn.Module:
            return geo.get_model(name, **kwargs)

        if weights is None:
            return _with_channels(make, "in_chans", in_channels, False, args)
        own_channels = weights.meta["in_chans"]
        if fetch_weights:
            model = make(weights=weights, **args)
        else:
            model = _with_channels(make, "in_chans", own_channels, False, args)
        return _fitted(model, weights, own_channels, in_channels)


def build_library_segmenter(
    architecture: str,
    num_classes: int,
    in_channels: int = 3,
    *,
    pretrained: bool = False,
    fetch_weights: bool = True,
    **extra_args: Any,
) -> nn.Module:
    """Build a model of segmentation_models_pytorch that gives logits (N, K, H, W), also with weights of torchgeo.

    Args:
        architecture: ``smp:<decoder>[/<encoder>]``, ``torchgeo:unet[/<weights>]``, or, for a ResNet below a decoder of
            segmentation_models_pytorch, ``torchgeo:<encoder>[/<weights>]``.
        num_classes: Number of classes.
        in_channels: Number of channels of the images.
        pretrained: Whether to use pretrained weights.
        fetch_weights: Whether to get them now; see `build_model`.
        **extra_args: Arguments of ``segmentation_models_pytorch.create_model``: ``encoder_weights`` is "imagenet" if
            pretrained, ``arch`` is "unet" for torchgeo.

    Raises:
        ConfigError: There is no such model, or it does not take these arguments.
        MissingPackageError: The library is not installed.
    """
    library, name = architecture.split(":", 1)
    smp = _import("smp", architecture)
    with _naming(architecture, extra_args):
        if library == "smp":
            decoder, _, encoder = name.partition("/")
            encoder_weights = extra_args.pop("encoder_weights", "imagenet")
            return smp.create_model(
                decoder,
                encoder or _ENCODER,
                encoder_weights if pretrained and fetch_weights else None,
                in_channels,
                num_classes,
                **extra_args,
            )
        geo = _import("torchgeo", architecture)
        name, weights = _torchgeo_weights(geo, name, pretrained)
        if name != "unet" and not name.startswith("resnet"):
            raise ConfigError(f"model.architecture={architecture!r} is no segmentation model. Use unet or a resnet.")
        own_channels = in_channels if weights is None else weights.meta["in_chans"]
        encoder = name if name != "unet" else extra_args.pop("encoder_name", _ENCODER)
        if name == "unet" and weights is not None:
            encoder = weights.meta["encoder"]
        decoder = extra_args.pop("arch", _DECODER)
        if name == "unet" and weights is not None and fetch_weights:
            model = geo.get_model(name, weights=weights, classes=num_classes, **extra_args)
        else:
            model = smp.create_model(decoder, encoder, None, own_channels, num_classes, **extra_args)
            if weights is not None and fetch_weights:
                model.encoder.load_state_dict(weights.get_state_dict(progress=False))
        return _fitted(model, weights, own_channels, in_channels)


def build_features(
    architecture: str, in_channels: int = 3, *, pretrained: bool = False, **extra_args: Any
) -> nn.Module:
    """Build a network of timm that returns a list of feature maps (N, C, H, W), from fine to coarse.

    Its ``feature_info`` tells channels and strides.

    Args:
        architecture: ``timm:<model>``.
        in_channels: Number of channels of the images.
        pretrained: Whether to get pretrained weights.
        **extra_args: Arguments of ``timm.create_model``.

    Raises:
        ConfigError: There is no such model, or it has no feature maps.
        MissingPackageError: timm is not installed.
    """
    with _naming(architecture, extra_args):
        args = {**extra_args, "features_only": True, "pretrained": pretrained}
        make = _timm_maker(architecture.split(":", 1)[1])
        return _with_channels(make, "in_chans", in_channels, pretrained, args)


def _timm_maker(name: str) -> Callable[..., nn.Module]:
    timm = _import("timm", f"timm:{name}")
    # a name with a colon is of a hub, which knows what it has
    if ":" not in name and not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), 3)
        raise ConfigError(
            f"timm has no model {name!r}{' (like it: ' + ', '.join(close) + ')' if close else ''}. Correct "
            "model.architecture; timm.list_models() lists all."
        )
    return lambda **kwargs: timm.create_model(name, **kwargs)


def _torchgeo_weights(geo: Any, name: str, pretrained: bool) -> tuple[str, Any]:
    """Return the name of the model, and the weights (an enum member) or None."""
    name, _, weights_name = name.partition("/")
    if name not in geo.list_models():
        raise ConfigError(f"torchgeo has no model {name!r}. It has {', '.join(geo.list_models())}.")
    if not pretrained:
        return name, None
    members = {w.name: w for w in geo.get_model_weights(name)}
    if weights_name not in members:
        raise ConfigError(
            f"torchgeo has no weights {weights_name!r} for {name}. It has {', '.join(members)}. Name them after a "
            f"slash, as in torchgeo:{name}/{next(iter(members))}, or set model.pretrained=False."
        )
    return name, members[weights_name]


def _with_channels(
    make: Callable[..., nn.Module], keyword: str, in_channels: int, pretrained: bool, args: dict[str, Any]
) -> nn.Module:
    """Make a model for a number of channels: by its own argument if it has one, else by changing its convolution."""
    if in_channels == 3:
        return make(**args)
    try:
        return make(**{keyword: in_channels}, **args)
    except TypeError as e:
        if keyword not in str(e):
            raise
    model = make(**args)
    adjust_first_conv(model, in_channels, pretrained)
    return model


def _fitted(model: nn.Module, weights: Any, own_channels: int, in_channels: int) -> nn.Module:
    """Fit a model with the weights of other channels to the images."""
    if own_channels != in_channels:
        log.warning(
            "the weights %s are for %d channels, the images have %d: the first %d are taken for those of the weights",
            weights, own_channels, in_channels, min(own_channels, in_channels),
        )  # fmt: skip
        adjust_first_conv(model, in_channels)
    return model


def _import(library: str, architecture: str) -> Any:
    package = _PACKAGES[library]
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as e:
        raise MissingPackageError(
            f"model.architecture={architecture!r} needs {e.name}, which is not installed. Run: "
            f'pip install "rastervision_pytorch_learner[{library}]"',
            name=e.name,
        ) from e


@contextmanager
def _naming(architecture: str, extra_args: dict[str, Any]) -> Iterator[None]:
    """Turn what the libraries raise for a wrong name or argument into a `ConfigError`."""
    given = dict(extra_args)
    try:
        yield
    except ConfigError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, AssertionError, RuntimeError) as e:
        args = f" with extra_args {given}" if given else ""
        reason = str(e.args[0]) if isinstance(e, KeyError) and e.args else str(e)
        raise ConfigError(
            f"model.architecture={architecture!r} cannot be made{args}: {' '.join(reason.split())[:400]}. Correct "
            "model.architecture or model.extra_args."
        ) from e
