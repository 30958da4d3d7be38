"""A pipeline on a Ray cluster of two nodes that share an S3 bucket, submitted from where PyTorch is not installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import rasterio

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Project

NEEDED = ("ray", "boto3", "moto", "rastervision.ray", "rastervision.aws_s3")
HANDED_ON = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "OMP_NUM_THREADS": "1"}
SPLITS = 3
WAIT_S = 240.0


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


def test_a_run_on_two_nodes_one_of_which_is_lost_gives_the_same_as_inprocess(
    project: Project, scene_writer: Any, cluster: Any, bucket: str, tmp_path: Path
) -> None:
    from rastervision.pipeline.file_system.utils import file_exists, file_to_json, list_paths

    scene_writer(project.data, "two", 2, size=600)
    project.make_config_torch_free()
    args = {"smooth": True, "num_epochs": 10}
    done = project.cli(*project.run_args("inprocess", **args))
    assert done.returncode == 0, done.stderr

    env = {**project.env(), **HANDED_ON, "RAY_ADDRESS": cluster.address, "RAY_ENV": ", ".join(HANDED_ON)}
    command = [*project.run_args("ray", **{**args, "root_uri": bucket}), "--splits", str(SPLITS)]
    output = tmp_path / "output.txt"
    with output.open("wb") as out:
        run = subprocess.Popen(project.command_without_torch(*command), env=env, stdout=out, stderr=out)
        try:
            records = [f"{bucket}/.rv/predict-{i}-of-{SPLITS}.json" for i in range(SPLITS)]
            wait_for(lambda: all(file_exists(uri, include_dir=False) for uri in records), run)
            cluster.remove_node(cluster.nodes[0], allow_graceful=False)
            assert run.wait(timeout=WAIT_S) == 0, output.read_text()
        finally:
            run.kill()
            run.wait()

    assert "starting it again" in output.read_text()
    wanted = json.loads((project.out / "eval/validation_scenes/eval.json").read_text())
    assert file_to_json(f"{bucket}/eval/validation_scenes/eval.json") == wanted
    for name in ("predict/two/labels.tif", "predict/two/scores.tif"):
        np.testing.assert_array_equal(_pixels(f"{bucket}/{name}"), _pixels(str(project.out / name)))
    assert list_paths(f"{bucket}/predict/.parts") == []
    assert "Traceback" not in output.read_text()


def _pixels(uri: str) -> Any:
    from rastervision.pipeline.file_system.utils import download_if_needed

    with rasterio.open(download_if_needed(uri)) as src:
        return src.read()
