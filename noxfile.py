"""Automation. `nox` runs what CI runs; `nox -l` lists all sessions.

Sessions that need everything share one environment, `.nox/dev`: PyTorch is several gigabytes. It is made again when a
`pyproject.toml` or `constraints.txt` changes. uv is used where it is installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "imports", "types", "tests", "client"]

ROOT = Path(__file__).parent
DEV = ROOT / ".nox" / "dev"
CONSTRAINTS = str(ROOT / "constraints.txt")
PACKAGES = sorted(p.parent.name for p in ROOT.glob("packages/*/pyproject.toml"))
CODE = [name for name in PACKAGES if (ROOT / "packages" / name / "src").exists()]
TEST_TOOLS = ["pytest", "pytest-cov", "hypothesis", "jsonschema", "dask[array]", "netCDF4", "zarr"]
ONNX_TOOLS = ["onnx", "onnxscript", "onnxruntime"]
CLOUD_TOOLS = ["moto[server]", "cfn-lint"]
DEV_TOOLS = [*TEST_TOOLS, *ONNX_TOOLS, *CLOUD_TOOLS, "ruff", "mypy", "import-linter", "types-PyYAML"]
# what runs without PyTorch, in order of dependence
TORCH_FREE = ["rastervision_pipeline", "rastervision_core", "rastervision_pytorch_backend"]


def editable(names: list[str]) -> list[str]:
    return [arg for name in names for arg in ("-e", str(ROOT / "packages" / name))]


def dev(session: nox.Session) -> Path:
    """Make the shared environment if it is missing or stale, and return its folder of programs."""
    session.env["COVERAGE_CORE"] = "sysmon" if sys.version_info >= (3, 12) else "ctrace"
    programs = DEV / ("Scripts" if os.name == "nt" else "bin")
    digest = hashlib.sha256(str(DEV_TOOLS).encode())
    for path in [Path(CONSTRAINTS), *sorted(ROOT.glob("packages/*/pyproject.toml"))]:
        digest.update(path.read_bytes())
    stamp = DEV / "installed.sha256"
    if not stamp.exists() or stamp.read_text() != digest.hexdigest():
        args = ["-c", CONSTRAINTS, *editable(PACKAGES), *DEV_TOOLS]
        if shutil.which("uv"):
            session.run("uv", "venv", "--allow-existing", "--python", sys.executable, str(DEV), external=True)
            session.run("uv", "pip", "install", "--python", str(DEV), *args, external=True)
        else:
            session.run(sys.executable, "-m", "venv", str(DEV), external=True)
            session.run(str(programs / "python"), "-m", "pip", "install", "-q", "-U", "pip", external=True)
            session.run(str(programs / "python"), "-m", "pip", "install", "-q", *args, external=True)
        stamp.write_text(digest.hexdigest())
    session.env["PATH"] = os.pathsep.join([str(programs), os.environ["PATH"]])
    return programs


def run(session: nox.Session, program: str, *args: str) -> None:
    session.run(str(dev(session) / program), *args, external=True)


@nox.session(venv_backend="none")
def demo(session: nox.Session) -> None:
    """Run the main job on the imagery that ships with the repository: `nox -s demo [-- ROOT_URI]`."""
    out = session.posargs[0] if session.posargs else "out/tree_cover"
    run(session, "rastervision", "run", "local", "examples/tree_cover.py", "-a", "root_uri", out)
    bundle, image = f"{out}/bundle/model-bundle.zip", "examples/data/tree_cover/osbs_east.tif"
    run(session, "rastervision", "predict", bundle, image, f"{out}/new")


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Check style and formatting, and that generated files and entry points are up to date."""
    run(session, "ruff", "check", ".")
    run(session, "ruff", "format", "--check", ".")
    run(session, "python", "scripts/sync_entry_points.py", "--check")
    run(session, "python", "scripts/generate_api.py", "--check")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Check types, strictly."""
    run(session, "mypy", *[f"packages/{name}/src" for name in CODE], *session.posargs)


@nox.session(venv_backend="none")
def imports(session: nox.Session) -> None:
    """Check the boundaries between packages."""
    run(session, "lint-imports")


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run all tests, of each package and across packages, with coverage."""
    programs = dev(session)
    session.run(str(programs / "coverage"), "erase", external=True)
    args = session.posargs or ["packages", "tests"]
    run(session, "pytest", "--cov", "--cov-report=term:skip-covered", "--cov-fail-under=85", *args)


@nox.session(venv_backend="none")
def memory(session: nox.Session) -> None:
    """Run the tests of core and of prediction, those on large scenes too; none may take more than 2 GiB. Nightly."""
    tests = ["rastervision_core", "rastervision_pytorch_backend", "rastervision_pytorch_learner/tests/test_learner.py"]
    run(session, "pytest", "--max-rss=2GiB", *(session.posargs or [f"packages/{name}" for name in tests]))


@nox.session(venv_backend="none")
def cluster(session: nox.Session) -> None:
    """Run the example of buildings on two Ray nodes that share an S3 bucket, and kill one. Nightly."""
    test = "tests/test_ray_end_to_end.py"
    session.run(str(dev(session) / "pytest"), "-s", test, *session.posargs, env={"RV_TEST_NIGHTLY": "1"}, external=True)


@nox.session(python=False)
@nox.parametrize("package", CODE)
def package_tests(session: nox.Session, package: str) -> None:
    """Run the tests of one package in the shared environment: `nox -s "package_tests(rastervision_core)"`."""
    run(session, "pytest", f"packages/{package}/tests", *session.posargs)


@nox.session
@nox.parametrize("package", TORCH_FREE)
def isolated(session: nox.Session, package: str) -> None:
    """Run the tests of a package without the packages above it; the test kit needs core."""
    below = TORCH_FREE[: max(TORCH_FREE.index(package), 1) + 1]
    session.install("-c", CONSTRAINTS, *editable([*below, "rastervision_testing"]), *TEST_TOOLS)
    session.run("pytest", f"packages/{package}/tests", *session.posargs)


@nox.session
def client(session: nox.Session) -> None:
    """Plan, validate, save and predict where PyTorch is not installed."""
    session.install("-c", CONSTRAINTS, *editable(TORCH_FREE), "pytest", "onnxruntime")
    session.run("pytest", "tests/client", *session.posargs, env={"RV_TEST_NO_TORCH": "1"})


@nox.session
def wheels(session: nox.Session) -> None:
    """Build all wheels, install them into an empty environment, and run the command line."""
    dist = Path(session.create_tmp()) / "dist"
    session.install("build")
    for name in PACKAGES:
        session.run("python", "-m", "build", "-q", "--wheel", "-o", str(dist), f"packages/{name}")
    session.run("python", "-m", "venv", str(dist / "env"))
    python = str(dist / "env" / "bin" / "python")
    found = [str(p) for p in sorted(dist.glob("*.whl"))]
    session.run(python, "-m", "pip", "install", "-q", "-c", CONSTRAINTS, *found, external=True)
    session.run(python, "-m", "rastervision.pipeline.cli", "plugins", external=True)


@nox.session(venv_backend="none")
def bench(session: nox.Session) -> None:
    """Run the benchmarks: `nox -s bench -- predict`."""
    names = ["startup", "predict", "config", "data", "learner", "learner_predict", "runners", "s3", "ray"]
    for name in session.posargs or names:
        run(session, "python", f"benchmarks/bench_{name}.py")


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Check that links between the pages of the documentation lead somewhere."""
    run(session, "pytest", "-q", "tests/test_docs.py")
