"""A study of seconds for the bucket: one run with four snapshots, two benchmarks."""

from jax_sft.config import Sampling, SnapshotConfig, Study, replace
from tests.evaluation.tiny import BENCHMARKS, EVALUATION, FIRST

RUN = replace(
    FIRST,
    name="run",
    data=replace(FIRST.data, rows=160),
    snapshots=SnapshotConfig(schedule="0, every 8, last", state_every=6),
)


def study() -> Study:
    reasoning, refusals, _ = BENCHMARKS
    refusals = replace(refusals, samples=2, sampling=Sampling(1.0, top_p=0.95))
    return Study("tiny", (RUN,), (reasoning, refusals), EVALUATION)
