"""The compiler for TPUs, as tests ask for it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jax.experimental import topologies

from jax_sft.planning.topologies import Topology


@pytest.fixture(scope="session")
def libtpu() -> Iterator[Callable[[Topology], list[Any]]]:
    """Gives the devices of a slice that is not there; a test that asks is collected only where libtpu is."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TPU_SKIP_MDS_QUERY", "ALLOW_MULTIPLE_LIBTPU_LOAD"):
            patch.setenv(name, "1")
        yield lambda topology: list(topologies.get_topology_desc(**topology.description).devices)
