"""Tell in a few lines how a pipeline's predictions did and where its outputs are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rastervision.pipeline.errors import RasterVisionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rastervision.core.rv_pipeline.rv_pipeline import RVPipelineConfig

__all__ = ["summarize"]

_METRICS = ("precision", "recall", "f1")


def summarize(config: RVPipelineConfig) -> str | None:
    """Return a table of metrics for each eval.json there is, and the URIs of outputs; None if none exist."""
    lines: list[str] = []
    outputs = list(_outputs(config))
    for name, uri in outputs:
        if name == "evaluation":
            lines += [*_table(uri), ""]
    if not outputs:
        return None
    width = max(len(name) for name, _ in outputs)
    lines += ["Outputs", *(f"  {name:<{width}}  {uri}" for name, uri in outputs)]
    return "\n".join(lines)


def _outputs(config: RVPipelineConfig) -> Iterator[tuple[str, str]]:
    """Yield what kind of output there is, and where."""
    from rastervision.core.evaluation.preview import preview_uri
    from rastervision.pipeline.file_system import file_exists

    for evaluator in config.evaluators:
        for group in config.dataset.scene_groups:
            if evaluator.output_uri and file_exists(uri := evaluator.get_output_uri(group), include_dir=False):
                yield "evaluation", uri
    scenes = [*config.dataset.validation_scenes, *config.dataset.test_scenes]
    for scene in scenes:
        store_uri: str | None = getattr(scene.label_store, "uri", None)
        if store_uri and file_exists(store_uri, include_dir=True):
            yield "prediction", store_uri
    for scene in scenes:
        if config.eval_uri and file_exists(uri := preview_uri(config.eval_uri, scene.id), include_dir=False):
            yield "picture", uri
    yield from (("plot", uri) for uri in _plots(config.train_uri))
    if config.bundle_uri and file_exists(config.get_model_bundle_uri(), include_dir=False):
        yield "bundle", config.get_model_bundle_uri()


def _plots(train_uri: str | None) -> list[str]:
    from rastervision.pipeline.file_system import list_paths

    if not train_uri:
        return []
    try:
        return sorted(list_paths(train_uri, ".png"))
    except (RasterVisionError, OSError, NotImplementedError):
        return []  # not trained here, or a file system that cannot list


def _table(uri: str) -> list[str]:
    """Return the lines of a table of the metrics in an eval.json."""
    from rastervision.pipeline.file_system import file_to_json

    content: Any = file_to_json(uri)
    items = content["overall"] if isinstance(content, dict) else content
    group = uri.rstrip("/").split("/")[-2]
    width = max(len("class"), *(len(item["class_name"]) for item in items))
    of_classes = any("f1" in item["metrics"] for item in items)
    names, digits = (_METRICS, ".3f") if of_classes else (tuple(items[0]["metrics"]), ".4g")
    lines = [f"Evaluation of {group}", f"  {'class':<{width}}" + "".join(f"{m:>11}" for m in names)]
    for item in items:
        values = (item["metrics"].get(m) for m in names)
        cells = "".join(f"{'-' if v is None else format(v, digits):>11}" for v in values)
        lines.append(f"  {item['class_name']:<{width}}{cells}")
    return lines
