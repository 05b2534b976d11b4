"""The loss of given rows: a validation curve, of rows held out or of the training's own."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from jax_sft.config import BenchmarkConfig, DataConfig, Group, replace
from jax_sft.errors import UsageError
from jax_sft.statistics.intervals import Estimate
from jax_sft.study.likelihoods import Likelihood
from jax_sft.study.records import Item, Verdict
from jax_sft.tasks.likelihood import LikelihoodTask
from jax_sft.tasks.rows import Row
from jax_sft.tasks.task import register

BITS = 1 / math.log(2)


@register("rows")
class GivenRows(LikelihoodTask):
    """What the model makes of responses that are given: prompts and responses, as training reads them.

    `nll` is the mean negative log-likelihood of a target token in nats, each token alike: the trainer's own
    loss of these rows (`weighting token_mean`). `perplexity` is its exponential. `nll_of_row` counts each row
    alike, `bits_per_byte` each byte of the responses, whatever the tokenizer.

    `path` names the rows in the words of `data.source`: a file, a built set, `hub:OWNER/NAME`, `mix` or a
    generator. Options: `rows` (the first so many; a generator makes that many), `seed` (of a generator), and
    those of the source (`prompt`, `response`, `format`, `depth`, …).
    """

    group: ClassVar[Group] = "in_domain"
    headline: ClassVar[str] = "nll"
    higher_is_better: ClassVar[bool] = False
    shares: ClassVar[bool] = False
    closed: ClassVar[bool] = True
    defaults: ClassVar = {"rows": 0, "seed": 0}
    free_options: ClassVar = True

    def source(self, config: BenchmarkConfig) -> tuple[DataConfig, int]:
        """Where the rows come from, and the seed of a generator; UsageError when the benchmark names none."""
        if not config.path:
            raise UsageError(
                f"benchmark {config.name}: path names no rows; it takes what data.source takes, a file for "
                "example"
            )
        options = self.options(config)
        rows, seed = options.pop("rows"), options.pop("seed")
        return DataConfig(source=config.path, rows=rows, options=options), seed

    def item_of(self, row: Row) -> Item:
        """A row as an item."""
        # Through JSON, in which it is stored: rows hold mappings of other kinds too.
        turns, answer, tools = json.loads(json.dumps([row.messages, row.answer, row.tools], default=dict))
        return Item(row.id, tuple(turns), {"choices": [answer], "tools": tools})

    def items(self, config: BenchmarkConfig, data_root: str) -> list[Item]:
        """UsageError: rows are read as training reads them, by `evaluation.items`."""
        raise UsageError(f"benchmark {config.name}: its rows are read by a sweep")

    def weigh(self, item: Item, found: Sequence[Likelihood]) -> Verdict:
        """Negative log-likelihoods of the row's response."""
        [response] = found
        per_token = -response.logprob / response.tokens
        metrics = {
            "nll": per_token,
            "nll_of_row": per_token,
            "bits_per_byte": -response.logprob * BITS / _bytes(item),
        }
        return Verdict(metrics, answered=True)

    def weight(self, item: Item, metric: str) -> float:
        """Tokens of the response, or its bytes, where each of these counts alike."""
        match metric:
            case "nll":
                return float(item.reference["tokens"])
            case "bits_per_byte":
                return float(_bytes(item))
        return 1.0

    def derived(self, metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
        """Perplexity."""
        nll = metrics["nll"]
        mean, low, high = (math.exp(min(value, 700.0)) for value in (nll.mean, nll.low, nll.high))
        return {"perplexity": Estimate(mean, low, high, nll.n)}


@register("drift")
class Drift(GivenRows):
    """How far a snapshot has come from the run's base on given rows, whatever it would write itself.

    `kl` is KL(base || snapshot) of the next-token distributions, the whole vocabulary, in nats and a mean
    over the target tokens; `reverse_kl` is KL(snapshot || base). At the base both are 0. Rows that the base
    wrote show what was forgotten, rows of the training data what was learnt.

    Options: those of `rows`, and `from_step`, the base, a snapshot of the same run.
    """

    group: ClassVar[Group] = "general"
    headline: ClassVar[str] = "kl"
    defaults: ClassVar = {"rows": 0, "seed": 0, "from_step": 0}

    def source(self, config: BenchmarkConfig) -> tuple[DataConfig, int]:
        """As of `rows`."""
        source, seed = super().source(config)
        options = {name: value for name, value in source.options.items() if name != "from_step"}
        return replace(source, options=options), seed

    def base(self, config: BenchmarkConfig) -> int:
        """The step that snapshots are compared with."""
        return int(self.options(config)["from_step"])

    def weigh(self, item: Item, found: Sequence[Likelihood]) -> Verdict:
        """UsageError: a snapshot is compared, its likelihoods are not asked."""
        raise UsageError(f"item {item.id}: is judged by divergences, not by likelihoods")

    def compared(self, divergence: Sequence[float], tokens: int) -> Verdict:
        """The divergences of an item, a token."""
        forward, reverse = divergence
        return Verdict({"kl": forward / tokens, "reverse_kl": reverse / tokens}, answered=True)

    def weight(self, item: Item, metric: str) -> float:
        """Tokens of the response: each of them counts alike."""
        return float(item.reference["tokens"])

    def derived(self, metrics: Mapping[str, Estimate]) -> dict[str, Estimate]:
        """Nothing follows."""
        return {}


def _bytes(item: Item) -> int:
    [answer] = item.reference["choices"]
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    return max(1, len(text.encode()))
