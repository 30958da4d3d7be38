"""A bundle may come from anybody: it runs nothing and writes nowhere else, and one error tells what is wrong."""

from __future__ import annotations

import io
import json
import os
import pickle
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from rastervision.core.predictor import Predictor, load_bundle
from rastervision.pipeline import rv_config_
from rastervision.pipeline.errors import (
    BundleError,
    ConfigError,
    NotReadableError,
    RasterVisionError,
    UntrustedCodeError,
)
from rastervision.pytorch_learner import ClassificationLearner, SemanticSegmentationLearner

if TYPE_CHECKING:
    from conftest import Project

INNER = "model-bundle.zip"
Change = Callable[[str, bytes], bytes | None]


@pytest.fixture(autouse=True)
def nobody_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings, no code of this user that is remembered, and settings as they were at the end."""
    monkeypatch.setenv("RV_CONFIG_DIR", str(tmp_path / "settings"))
    rv_config_.set_everett_config()
    yield
    monkeypatch.undo()
    rv_config_.set_everett_config()


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that hostile code would write."""
    path = tmp_path / "hostile-code-has-run"
    yield path
    assert not path.exists()


def changed(content: bytes, change: Change, add: dict[str, bytes] | None = None) -> bytes:
    """Return a zip with changed members; those that become None are left out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            data = change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
        for name, data in (add or {}).items():
            new.writestr(name, data)
    return out.getvalue()


@pytest.fixture
def make_bundle(finished_project: Project, tmp_path: Path) -> Callable[..., str]:
    """Make a bundle of which members are changed or left out."""
    honest = (finished_project.out / "bundle/model-bundle.zip").read_bytes()

    def make(inner: dict[str, Any] | None = None, outer: dict[str, Any] | None = None) -> str:
        def change(changes: dict[str, Any], name: str, data: bytes) -> bytes | None:
            value = changes.get(name, data)
            return value(data) if callable(value) else value

        def change_outer(name: str, data: bytes) -> bytes | None:
            if name == INNER and inner is not None:
                add = {k: v for k, v in inner.items() if k.startswith("+")}
                data = changed(data, partial(change, inner), {k[1:]: v for k, v in add.items()})
            return change(outer or {}, name, data)

        path = tmp_path / "bundle.zip"
        path.write_bytes(changed(honest, change_outer))
        return str(path)

    return make


def predict(bundle: str, project: Project, tmp_path: Path) -> Path:
    out = tmp_path / "out"
    Predictor(bundle, str(tmp_path / "work")).predict(str(project.data / "two.tif"), str(out))
    return out


def check_refused(bundle: str, project: Project, tmp_path: Path, error: type[RasterVisionError], message: str) -> None:
    with pytest.raises(error, match=message) as info:
        predict(bundle, project, tmp_path)
    assert not (tmp_path / "out").exists()
    assert len(str(info.value).splitlines()) <= 3


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> Any:
        return (os.makedirs, (self.marker,))


def saved(content: Any, **kwargs: Any) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, **kwargs)
    return out.getvalue()


WEIGHTS: dict[str, Callable[[Hostile], bytes]] = {
    "of torch": lambda h: saved({"0.weight": h}),
    "of torch as it was": lambda h: saved({"0.weight": h}, _use_new_zipfile_serialization=False),
    "pickle": lambda h: pickle.dumps({"0.weight": h}),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_that_hold_code(
    kind: str,
    make_bundle: Callable[..., str],
    finished_project: Project,
    marker: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RASTERVISION_TRUST_EXTERNAL_CODE", "1")  # of the model; weights are never trusted
    hostile = WEIGHTS[kind](Hostile(marker))
    bundle = make_bundle(inner={"model.safetensors": None, "model.pth": hostile})

    check_refused(
        bundle, finished_project, tmp_path, NotReadableError, "cannot be read as weights.*file of tensors only"
    )


def test_code_of_the_model_that_was_changed(
    make_bundle: Callable[..., str], finished_project: Project, marker: Path, tmp_path: Path
) -> None:
    def hostile(code: bytes) -> bytes:
        return f"import os; os.makedirs({str(marker)!r})\n".encode() + code

    bundle = make_bundle(inner={"modules/tiny/hubconf.py": hostile})

    check_refused(bundle, finished_project, tmp_path, UntrustedCodeError, "RASTERVISION_TRUST_EXTERNAL_CODE=1")


def edit_json(change: Callable[[Any], None]) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        value = json.loads(content)
        change(value)
        return json.dumps(value).encode()

    return edit


def test_functions_of_transforms(
    make_bundle: Callable[..., str],
    finished_project: Project,
    marker: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("onnxruntime")
    path = "model-bundle/custom_albumentations_transforms/lambdas.py"

    def name_file(cfg: Any) -> None:
        cfg["data"]["base_transform"] = {
            "lambda_transforms_path": path,
            "transform": {"__class_fullname__": "Lambda", "__type__": "Lambda", "__name__": "evil", "p": 1.0},
        }

    code = f"import os; os.makedirs({str(marker)!r})\n".encode()
    member = "+custom_albumentations_transforms/lambdas.py"
    bundle = make_bundle(
        inner={"learner-config.json": edit_json(name_file), member: code, "modules/tiny/hubconf.py": None}
    )
    monkeypatch.setenv("RASTERVISION_USE_ONNX", "1")  # what else is in the bundle is no obstacle

    check_refused(bundle, finished_project, tmp_path, RasterVisionError, "Lambda|lambda_transforms_path")


def test_settings_that_name_code_or_hosts(
    make_bundle: Callable[..., str], marker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hostile_plugin.py").write_text(f"import os; os.makedirs({str(marker)!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = {
        "plugins_modules": "hostile_plugin",
        "rastervision_trust_external_code": "1",
        "rastervision_bundle_max_mib": "1000000",
        "aws_s3_endpoint_url": "http://127.0.0.1:1",
        "aws_s3_requester_pays": "True",
        "nested": {"a": 1},
    }
    bundle = make_bundle(outer={"pipeline-config.json": edit_json(lambda cfg: cfg.update(rv_config=settings))})

    load_bundle(bundle, str(tmp_path / "work"))

    def setting(section: str, key: str) -> Any:
        return rv_config_.get_namespace_option(section, key)

    assert setting("aws_s3", "requester_pays") == "True"
    assert setting("plugins", "modules") is None
    assert setting("rastervision", "trust_external_code") is None
    assert setting("rastervision", "bundle_max_mib") is None
    assert setting("aws_s3", "endpoint_url") is None


def test_names_of_classes_are_no_paths(
    make_bundle: Callable[..., str], finished_project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("RASTERVISION_USE_ONNX", "1")  # needs no code of the bundle

    def rename(cfg: Any) -> None:
        cfg["dataset"]["class_config"]["names"][:2] = ["/../../../evil", "..\\..\\evil"]

    out = predict(make_bundle(outer={"pipeline-config.json": edit_json(rename)}), finished_project, tmp_path)

    assert {p.parent for p in tmp_path.rglob("*evil*")} == {out / "vector_output"}


@pytest.mark.parametrize("which", ["outer", "inner"])
def test_members_that_lead_out(
    which: str, make_bundle: Callable[..., str], finished_project: Project, tmp_path: Path
) -> None:
    def add_evil(content: bytes) -> bytes:
        return changed(content, lambda name, data: data, {"../../evil.txt": b"evil"})

    bundle = make_bundle(outer={INNER: add_evil})
    if which == "outer":
        bundle = make_bundle()
        Path(bundle).write_bytes(add_evil(Path(bundle).read_bytes()))
    before = {p.name for p in tmp_path.rglob("evil*")}

    check_refused(bundle, finished_project, tmp_path, BundleError, r"leads out of its folder: '../../evil.txt'")

    assert {p.name for p in tmp_path.rglob("evil*")} == before == set()


@pytest.mark.parametrize("which", ["outer", "inner"])
def test_zip_bombs(which: str, make_bundle: Callable[..., str], finished_project: Project, tmp_path: Path) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.pth", bytes(1 << 20))
        archive.filelist[0].file_size = 100 << 30
    bundle = make_bundle(outer={INNER: out.getvalue()})
    if which == "outer":
        Path(bundle).write_bytes(out.getvalue())

    check_refused(bundle, finished_project, tmp_path, BundleError, "would unpack to 102,400 MiB")


DAMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "no json": ({"outer": {"pipeline-config.json": b"{"}}, "config in the bundle .* is damaged or not valid"),
    "deep json": (
        {"outer": {"pipeline-config.json": b"[" * 100_000}},
        "config in the bundle .* is damaged or not valid",
    ),
    "a list": ({"outer": {"pipeline-config.json": b"[]"}}, "config in the bundle .* is damaged or not valid"),
    "a module as type": (
        {"outer": {"pipeline-config.json": b'{"type_hint": "os:system", "plugin_versions": {"os": 0}}'}},
        "config in the bundle .* is damaged or not valid|os:system",
    ),
    "a learner's config": ({"inner": {"learner-config.json": b"{}"}}, "The config in the bundle"),
    "no weights": ({"inner": {"model.pth": None, "model.safetensors": None}}, "has no model.safetensors or model.pth"),
    "no learner": ({"outer": {INNER: None}}, "no model bundle at .*model-bundle.zip"),
    "another zip": ({"outer": {INNER: b"PK no zip"}}, "is not a model bundle, or is damaged"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damaged_bundles_are_named(
    how: str, make_bundle: Callable[..., str], finished_project: Project, tmp_path: Path
) -> None:
    changes, message = DAMAGE[how]

    check_refused(make_bundle(**changes), finished_project, tmp_path, RasterVisionError, message)


def test_bundles_of_another_kind_are_named(finished_project: Project, tmp_path: Path) -> None:
    whole, inner = finished_project.out / "bundle/model-bundle.zip", finished_project.out / "train/model-bundle.zip"

    with pytest.raises(BundleError, match="A pipeline's bundle has it inside"):
        SemanticSegmentationLearner.from_model_bundle(str(whole), str(tmp_path / "a"))
    with pytest.raises(BundleError, match=r"of a semantic_segmentation_learner, not of a classification_learner"):
        ClassificationLearner.from_model_bundle(str(inner), str(tmp_path / "b"))
    with pytest.raises(BundleError, match="not the one in the train folder"):
        Predictor(str(inner), str(tmp_path / "c"))


@pytest.mark.parametrize("use_onnx", ["0", "1"])
def test_the_learner_in_a_bundle_of_another_task(
    use_onnx: str,
    make_bundle: Callable[..., str],
    finished_project: Project,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RASTERVISION_USE_ONNX", use_onnx)
    if use_onnx == "1":
        pytest.importorskip("onnxscript")  # else the bundle has no exported model

    def classify(cfg: Any) -> None:
        cfg["type_hint"] = "classification_learner"
        cfg["data"]["type_hint"], cfg["model"]["type_hint"] = "classification_image_data", "classification_model"
        cfg["data"].pop("data_format")
        cfg["data"]["uri"] = None

    bundle = make_bundle(inner={"learner-config.json": edit_json(classify)})

    check_refused(bundle, finished_project, tmp_path, BundleError, "of a classification_learner, not of a semantic_seg")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def http_root(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and where it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_remote_bundles(
    finished_project: Project,
    http_root: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, url = http_root
    honest = (finished_project.out / "bundle/model-bundle.zip").read_bytes()
    (folder / "good.zip").write_bytes(honest)
    (folder / "cut.zip").write_bytes(honest[: len(honest) // 2])
    monkeypatch.setenv("RASTERVISION_TRUST_EXTERNAL_CODE", "1")

    out = predict(f"{url}/good.zip", finished_project, tmp_path)

    assert (out / "labels.tif").exists()
    with pytest.raises(BundleError, match=r"cut\.zip cannot be unpacked"):
        Predictor(f"{url}/cut.zip", str(tmp_path / "a"))
    with pytest.raises((NotReadableError, ConfigError), match=r"gone\.zip"):
        Predictor(f"{url}/gone.zip", str(tmp_path / "b"))
