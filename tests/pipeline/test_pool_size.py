"""How many workers a Ray cluster gets: what it holds now, and what its autoscaler may bring."""

from typing import Any

import pytest

from pipeline.config import load_config
from pipeline.errors import ConfigurationError
from pipeline.pool import PoolSize
from pipeline.ray_pool import _pool_size

GIB = 1024.0**3
HEAD = {"memory": 4 * GIB}
"""Of a cluster without any node for work."""
NODE = {"CPU": 8.0, "GPU": 1.0, "memory": 32 * GIB}


def size_of(
    resources: dict[str, Any], most: dict[str, float] | None = None, **operation: Any
) -> PoolSize:
    settings = {"worker_memory_gb": 8, **operation}
    config = load_config("balanced", overrides=["threads=4"], operation=settings)
    return _pool_size(config, 1000, resources, can_grow=True, most=most)


def test_a_cluster_without_nodes_begins_where_its_autoscaler_can_bring_some() -> None:
    most = {name: 4 * number for name, number in NODE.items()}
    size = size_of(HEAD, most)
    assert (size.workers, size.most_workers, size.gpus_per_worker) == (1, 4, 1.0)
    assert size_of(HEAD, most, workers=2).most_workers == 2
    assert size_of(HEAD, most, workers=1).most_workers is None
    assert size_of(NODE, most).workers == 1


def test_without_an_autoscaler_such_a_cluster_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the cluster has 0"):
        size_of(HEAD, workers=2, gpus_per_worker=1)
    with pytest.raises(ConfigurationError, match="lower --workers"):
        size_of(HEAD, workers=2)


def test_a_cluster_that_lost_a_node_begins_with_what_fits() -> None:
    size = size_of(NODE, workers=3)
    assert (size.workers, size.most_workers) == (1, 3)
    assert size_of({name: 3 * number for name, number in NODE.items()}).workers == 3
