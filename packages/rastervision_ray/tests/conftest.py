from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

ray = pytest.importorskip("ray")

from rastervision.pipeline import rv_config_  # noqa: E402
from rastervision.ray.cluster import connected  # noqa: E402
from rastervision.ray.settings import RaySettings  # noqa: E402

OBJECT_STORE_BYTES = 80 << 20


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """Two nodes on this machine, each with its own processes, and this process connected to them."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with warnings.catch_warnings():
        # sockets and files that Ray leaves to the garbage collector
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        node = {"num_cpus": 2, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        cluster.add_node(num_cpus=2, object_store_memory=OBJECT_STORE_BYTES)
        cluster.wait_for_nodes()
    with connected(RaySettings(address=cluster.address)):
        yield cluster
    cluster.shutdown()


@pytest.fixture(autouse=True)
def settings_of_tests() -> Iterator[None]:
    yield
    rv_config_.set_everett_config()
