"""A compiler that answers at once, from arithmetic: for tests of what is made of its answers."""

from pathlib import Path

from jax_sft.config import (
    BenchmarkConfig,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    Run,
    Sampling,
    SnapshotConfig,
    Study,
)
from jax_sft.planning.compiling import Facts
from jax_sft.planning.hlo.cost import Cost, Loop, Traffic
from jax_sft.planning.programs import Program
from jax_sft.planning.search import KEEPS

GIB = 2**30
MODEL = ModelConfig(
    vocab_size=1024, hidden_size=512, num_layers=2, num_heads=8, num_kv_heads=4, head_dim=64, mlp_size=1024
)
DATA = DataConfig(source="nowhere.jsonl", rows=128, batch_size=32, row_length=1024, rows_per_micro_batch=8)
RUN = Run(name="long", epochs=2, remat="full", model=MODEL, data=DATA, snapshots=SnapshotConfig("0, last"))
BENCHMARK = BenchmarkConfig(
    "game", "gsm8k", "in_domain", limit=10, samples=2, max_new_tokens=64, sampling=Sampling(1.0)
)


def study(root: Path | str, *runs: Run) -> Study:
    """A study of runs whose data is not at hand."""
    evaluation = EvaluationConfig(slots=8, context=256, chunk=4)
    return Study("planned", runs or (RUN,), (BENCHMARK,), evaluation, root=str(root))


class FakeCompiler:
    """Stands in for `compile_facts`; notes what it was asked."""

    def __init__(self, gib_of: dict[str, float] | None = None) -> None:
        """`gib_of` gives the peak by rematerialisation policy, 4 GiB where it does not."""
        self.gib_of = gib_of or {}
        self.gib_of_length: dict[int, float] = {}
        self.asked: list[Program] = []

    def __call__(self, program: Program, cache: Path | None, timeout: float) -> Facts:
        """Facts of a program with one micro-batch loop, quicker the less is recomputed."""
        self.asked.append(program)
        state = {"parameters": GIB, "optimizer": 2.0 * GIB}
        peak = (self.gib_of.get(program.run.remat, 4.0) if program.kind == "train" else 4.0) * GIB
        peak = self.gib_of_length.get(program.run.data.row_length, peak / GIB) * GIB
        if peak > program.topology.hbm_bytes:
            return Facts(False, {**state, "needed": peak, "available": 0.0}, None, 1.0, False)
        again = 6.0 - KEEPS.index(program.run.remat)
        body = Cost(flops=1e12 * (10 + again), hbm_bytes=1e9)
        body.collectives[Traffic("all-gather", program.topology.devices, False)] = (2.0, 1e9)
        loops = [Loop("micro_batches", None, body)]
        return Facts(True, {**state, "peak": peak, "temporaries": GIB}, Cost(loops=loops), 1.0, False)
