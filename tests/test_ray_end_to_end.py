"""A pipeline on a Ray cluster of two nodes that share an S3 bucket, submitted from where PyTorch is not installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio

if TYPE_CHECKING:
    from conftest import Project

NEEDED = ("ray", "boto3", "moto", "rastervision.ray", "rastervision.aws_s3")
BUILDINGS = Path(__file__).parent.parent.parent / "shared" / "data" / "zanzibar_buildings"
HANDED_ON = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
SPLITS = 3
WAIT_S = 240.0 if "RV_TEST_NIGHTLY" not in os.environ else 3600.0


def _has(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


pytestmark = pytest.mark.skipif(not all(map(_has, NEEDED)), reason=f"needs {', '.join(NEEDED)}")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster whose head runs no commands, and two nodes that do."""
    from ray.cluster_utils import Cluster

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    store = {"object_store_memory": 80 << 20}
    with warnings.catch_warnings():
        # sockets and files that Ray leaves to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store})
        cluster.nodes = [cluster.add_node(num_cpus=2, **store) for _ in range(2)]
        yield cluster
        cluster.shutdown()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert process.poll() is None, "the run has ended"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def run_and_lose_a_node(command: list[str], env: dict[str, str], cluster: Any, root_uri: str, log: Path) -> str:
    """Run a command line, and kill a node once all parts of the prediction have begun; return what was printed."""
    from rastervision.pipeline.file_system.utils import file_exists

    env = {**env, **HANDED_ON, "RAY_ADDRESS": cluster.address, "RAY_ENV": ", ".join([*HANDED_ON, "OMP_NUM_THREADS"])}
    with log.open("wb") as out:
        run = subprocess.Popen([*command, "--splits", str(SPLITS)], env=env, stdout=out, stderr=out)
        try:
            records = [f"{root_uri}/.rv/predict-{i}-of-{SPLITS}.json" for i in range(SPLITS)]
            wait_for(lambda: all(file_exists(uri, include_dir=False) for uri in records), run)
            cluster.remove_node(cluster.nodes[0], allow_graceful=False)
            assert run.wait(timeout=WAIT_S) == 0, log.read_text()
        finally:
            run.kill()
            run.wait()
    output = log.read_text()
    assert "starting it again" in output
    assert "Traceback" not in output
    return output


def assert_same_outputs(root_uri: str, wanted: Path, scene_id: str) -> None:
    from rastervision.pipeline.file_system.utils import file_to_json, list_paths

    evaluation = "eval/validation_scenes/eval.json"
    assert file_to_json(f"{root_uri}/{evaluation}") == json.loads((wanted / evaluation).read_text())
    for name in (f"predict/{scene_id}/labels.tif", f"predict/{scene_id}/scores.tif"):
        np.testing.assert_array_equal(_pixels(f"{root_uri}/{name}"), _pixels(str(wanted / name)))
    assert list_paths(f"{root_uri}/predict/.parts") == []


def test_a_run_on_two_nodes_one_of_which_is_lost_gives_the_same_as_inprocess(
    project: Project, scene_writer: Any, cluster: Any, bucket: str, tmp_path: Path
) -> None:
    scene_writer(project.data, "two", 2, size=600)
    project.make_config_torch_free()
    args = {"smooth": True, "num_epochs": 10}
    done = project.cli(*project.run_args("inprocess", **args))
    assert done.returncode == 0, done.stderr

    command = project.command_without_torch(*project.run_args("ray", **{**args, "root_uri": bucket}))
    run_and_lose_a_node(command, project.env(), cluster, bucket, tmp_path / "output.txt")

    assert_same_outputs(bucket, project.out, "two")


def test_training_on_two_nodes_gives_the_weights_of_torchrun(project: Project, cluster: Any, bucket: str) -> None:
    import torch

    from rastervision.pipeline.file_system.utils import download_if_needed, file_to_str

    project.make_config_torch_free()
    commands = ("analyze", "chip", "train")
    nodes = {"RAY_ADDRESS": cluster.address, "RAY_TRAIN_WORKERS": "2", "RAY_TRAIN_NUM_CPUS": "2"}  # all of a node
    env = {**project.env(), **HANDED_ON, **nodes, "RAY_ENV": ", ".join([*HANDED_ON, "OMP_NUM_THREADS"])}
    args = project.run_args("ray", *commands, root_uri=bucket)
    subprocess.run(project.command_without_torch(*args), env=env, check=True)

    assert project.cli(*project.run_args("inprocess", *commands[:2])).returncode == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "rastervision.pipeline.cli"]
    train = ["run_command", str(project.out / "pipeline-config.json"), "train"]
    subprocess.run([*torchrun, *train], env=project.env(), check=True)

    found = torch.load(download_if_needed(f"{bucket}/train/last-model.pth"), weights_only=True)
    wanted = torch.load(project.out / "train/last-model.pth", weights_only=True)
    assert found.keys() == wanted.keys()
    for name, weights in wanted.items():
        torch.testing.assert_close(found[name], weights, rtol=0, atol=0)
    assert "ended with exit code 0" in file_to_str(f"{bucket}/.rv/logs/train-rank-1-of-2.log")
    assert "train_loss" in file_to_str(f"{bucket}/.rv/logs/train.log")


@pytest.mark.skipif("RV_TEST_NIGHTLY" not in os.environ, reason="takes some minutes: nox -s cluster")
@pytest.mark.skipif(not BUILDINGS.is_dir(), reason="needs real imagery in ../shared/data")
def test_the_buildings_example_on_two_nodes_gives_the_same_as_inprocess(
    project: Project, cluster: Any, bucket: str, tmp_path: Path
) -> None:
    from rastervision.pipeline.file_system.utils import sync_to_dir

    data_uri = f"{bucket}/data"
    sync_to_dir(str(BUILDINGS), data_uri)
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    example = str(Path(__file__).parent.parent / "examples/buildings.py")
    # fewer epochs than the example takes: what counts is that both ways do the same
    args = [example, "-a", "data_uri", data_uri, "-a", "num_epochs", "4", "-a", "root_uri"]
    # in as many parts: chips of each part are a file, and the order in which they are trained on is that of the files
    inprocess = project.command("run", "inprocess", *args, str(tmp_path / "inprocess"), "--splits", str(SPLITS))
    subprocess.run(inprocess, env=env, check=True)

    command = project.command_without_torch("run", "ray", *args, f"{bucket}/out")
    run_and_lose_a_node(command, env, cluster, f"{bucket}/out", tmp_path / "output.txt")

    for scene_id in ("znz_r0c3", "znz_r1c1"):
        assert_same_outputs(f"{bucket}/out", tmp_path / "inprocess", scene_id)


def _pixels(uri: str) -> Any:
    from rastervision.pipeline.file_system.utils import download_if_needed

    with rasterio.open(download_if_needed(uri)) as src:
        return src.read()
