"""Settings every test runs under, and the fixtures shared by all rooms."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jax_sft.errors import JaxSftError
from jax_sft.responses.sandbox import require
from tests.buckets.server import BucketServer

REPOSITORY = Path(__file__).resolve().parent.parent

# Before JAX starts: eight CPU devices, so that sharded code runs sharded; implicit rank promotion is an
# error; compiled programs are kept between sessions, so that a second run spends its time on testing.
os.environ["JAX_PLATFORMS"] = "cpu"
# Nor is a tiny program worth the compiler's pains: a quarter of the time of a first run.
FLAGS = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
)
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS]).strip()
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPOSITORY / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# A test that means a bucket means the server of the fixture `bucket`; these are read when gcsfs is imported.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
os.environ["FSSPEC_GCS_TOKEN"] = "anon"

# Tests against the oracle exist only where the oracle is installed (`make oracle`).
collect_ignore = [] if importlib.util.find_spec("torch") else ["oracle"]

SHORT_ROOMS = ("checkpoints", "data", "models", "responses", "sets", "study", "tasks", "tokens")
"""Rooms whose tests all belong to the short set of Python 3.11, where JAX and Flax are older."""
NOT_SHORT = ("test_sandbox.py",)
"""Files of these that are about the operating system, whatever the Python."""


def shared_data_folder() -> Path | None:
    """Folder of real data sets, $JAX_SFT_SHARED_DATA or else ../shared/data; None if there is none."""
    named = os.environ.get("JAX_SFT_SHARED_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def sandbox_missing() -> bool:
    """Whether programs cannot be run in a sandbox on this machine."""
    try:
        require()
    except JaxSftError:
        return True
    return False


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--renew-golden` lets oracle tests rewrite the numbers under tests/golden/."""
    parser.addoption(
        "--renew-golden",
        action="store_true",
        help="write the numbers of this run to tests/golden/ instead of comparing with them",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Fill the short set; leave out, without calling it skipped, what needs something that is not here."""
    for item in items:
        room = item.path.relative_to(REPOSITORY / "tests").parts[0]
        short = room in SHORT_ROOMS and item.path.name not in NOT_SHORT
        if short and not item.get_closest_marker("slow"):
            item.add_marker("short")
    # libtpu, the compiler for TPUs, is made for Linux on x86-64 alone; a sandbox needs namespaces.
    here = {
        "shared_data": shared_data_folder() is not None,
        "libtpu": importlib.util.find_spec("libtpu") is not None,
        "sandbox": not sandbox_missing(),
    }
    absent = {name for name, is_here in here.items() if not is_here}
    left_out = [item for item in items if absent.intersection(getattr(item, "fixturenames", ()))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; a test that asks for it is collected only where there is one."""
    folder = shared_data_folder()
    assert folder is not None
    return folder


@pytest.fixture(scope="session")
def bucket_server() -> Iterator[BucketServer]:
    """A server that this process, and those that it starts, take for Google's."""
    with BucketServer() as server:
        os.environ.update(server.environment())
        yield server


@pytest.fixture
def bucket(bucket_server: BucketServer) -> BucketServer:
    """The server with nothing in its buckets, nothing asked of it and nothing wrong with it."""
    bucket_server.heal()
    bucket_server.buckets.blobs.clear()
    bucket_server.take_traffic()
    return bucket_server


@pytest.fixture(scope="session")
def sandbox() -> None:
    """A sandbox for code; a test that asks for it is collected only where one can be had."""


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of stored numbers."""
    return REPOSITORY / "tests" / "golden"


@pytest.fixture
def renew_golden(request: pytest.FixtureRequest) -> bool:
    """Whether this run rewrites the stored numbers."""
    return bool(request.config.getoption("--renew-golden"))
