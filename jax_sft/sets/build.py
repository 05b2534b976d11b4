"""The sets of the paper and of this program as tensorflow-datasets builders that write ArrayRecord files.

    <folder>/<set>/1.0.0/  dataset_info.json  features.json  <set>-train.array_record-00000-of-00002 …

A set is made from a source (a generator, or files such as `jax-sft data verify` writes) by its recipe. Read
one back with `tfds.data_source("math_cot", data_dir=folder, split="train")`, or name its version folder as
`data.source`. TensorFlow is never imported, neither to write nor to read.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from jax_sft.config import DataConfig, Option
from jax_sft.data.records import set_example, set_features
from jax_sft.data.sources import load_rows, source_files
from jax_sft.data.transforms import Knobs, one_per_query, query, transform
from jax_sft.errors import UsageError
from jax_sft.files import refuse_overwriting
from jax_sft.options import BuildOptions
from jax_sft.responses.thinking import traces
from jax_sft.tasks.rows import Row

PAPER_ROWS, PAPER_SMALL_ROWS = 20_480, 2_560
_ROWS_PER_SHARD = 4096
_UNLISTED: dict[str, Any] = {"skip_registration": True}
"""Of a class that is no set itself, in tensorflow-datasets' own words."""


class RowsBuilder(tfds.core.GeneratorBasedBuilder, **_UNLISTED):
    """A set of rows; a subclass gives its name, in snake case, and its docstring as the description."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release."}

    def __init__(
        self, *, rows: Sequence[Row] = (), origin: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Without rows the builder can only read what lies under `data_dir` already."""
        self._rows, self._origin = rows, dict(origin or {})
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=set_features(),
            metadata=tfds.core.MetadataDict(self._origin),
            # The order of the source is the order of training.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        if not self._rows:
            raise UsageError(f"set {self.name}: not made yet; make it with `jax-sft data build {self.name}`")
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return ((number, set_example(row)) for number, row in enumerate(self._rows))


class CountdownCot(RowsBuilder):
    """Countdown puzzles, made here, each solved by a search written out as a trace."""


class CountdownNocot(RowsBuilder):
    """The puzzles of countdown_cot with the answer alone."""


class Gsm8k(RowsBuilder):
    """Grade-school word problems with short human solutions (Cobbe et al. 2021)."""


class MathCot(RowsBuilder):
    """One verified long trace for each query, drawn by seed from a raw pool."""


class MathCotSmall(RowsBuilder):
    """A fixed subset of math_cot."""


class MathNocot(RowsBuilder):
    """The rows of math_cot with the trace removed: summary and answer are kept."""


class NuminaMath(RowsBuilder):
    """The queries of math_cot with short human solutions."""


class DeepseekR1(RowsBuilder):
    """The queries of math_cot with verified traces of another teacher."""


@dataclass(frozen=True)
class Recipe:
    """How the rows of a set come about."""

    builder: type[RowsBuilder]
    source: str = ""
    """Source where none is named."""
    options: Mapping[str, Option] = dataclasses.field(default_factory=dict)
    rows: int = 0
    """Rows drawn by seed where no number is given; 0: all."""
    generated: bool = False
    """The source makes as many rows as it is asked for."""
    one_per_query: bool = False
    no_trace: bool = False
    matched: bool = False
    """Needs `matching`: keeps the rows that answer a query of that set, in its order."""


RECIPES: dict[str, Recipe] = {
    "countdown_cot": Recipe(CountdownCot, "countdown", {"traces": True}, PAPER_ROWS, generated=True),
    "countdown_nocot": Recipe(CountdownNocot, "countdown", {"traces": False}, PAPER_ROWS, generated=True),
    "gsm8k": Recipe(Gsm8k, "reasoning_sft/gsm8k_train.jsonl", {"format": "gsm8k"}),
    "math_cot": Recipe(MathCot, rows=PAPER_ROWS, one_per_query=True),
    "math_cot_small": Recipe(MathCotSmall, rows=PAPER_SMALL_ROWS, one_per_query=True),
    "math_nocot": Recipe(MathNocot, rows=PAPER_ROWS, one_per_query=True, no_trace=True),
    "numina_math": Recipe(NuminaMath, one_per_query=True, matched=True),
    "deepseek_r1": Recipe(DeepseekR1, one_per_query=True, matched=True),
}


def build(name: str, folder: epath.PathLike, options: BuildOptions) -> epath.Path:
    """Make the set `name`, one of `RECIPES`, under `folder` and return its version folder.

    Raises UsageError for an unknown set, a missing source, too few rows, or a set that exists already.
    """
    if name not in RECIPES:
        raise UsageError(f"set {name!r} is not one of {', '.join(RECIPES)}")
    recipe, seed = RECIPES[name], options.seed
    source = options.source or recipe.source
    if not source:
        raise UsageError(f"set {name} is made from a file: name it as the source")
    if recipe.matched and not options.matching:
        raise UsageError(f"set {name} holds the queries of another set: name that set as matching")
    target = epath.Path(folder) / name / str(recipe.builder.VERSION)
    if target.exists():
        raise UsageError(f"{target}: exists already; remove it to build the set again")
    count = recipe.rows if options.rows < 0 else options.rows
    config = DataConfig(
        source=source,
        options=dict(recipe.options) | options.options,
        rows=count if recipe.generated else 0,
    )
    sources = [config, *([DataConfig(source=options.matching)] if options.matching else [])]
    read = [path for each in sources for path in source_files(each, options.data_root)]
    refuse_overwriting([folder, target.parent, target], read)
    kept = _rows_of(recipe, load_rows(config, seed, options.data_root), options)
    if count and not recipe.generated:
        kept = transform(kept, Knobs(subset=count), seed)
    statistics = row_statistics(kept)
    origin = {"source": source, "seed": seed, "matching": options.matching, "statistics": statistics}
    builder = recipe.builder(rows=kept, origin=origin, data_dir=str(folder))
    shards = tfds.download.DownloadConfig(num_shards=-(-len(kept) // _ROWS_PER_SHARD))
    builder.download_and_prepare(download_config=shards)
    return target


def _rows_of(recipe: Recipe, rows: list[Row], options: BuildOptions) -> list[Row]:
    """The rows a recipe keeps, before a number of them is drawn."""
    seed, matching = options.seed, options.matching
    if recipe.one_per_query:
        right = [row for row in rows if row.correct is not False]
        if not right:
            raise UsageError("no row of the source is right: every one is marked correct false")
        rows = one_per_query(right, seed)
    if matching:
        by_query = {query(row): row for row in rows}
        wanted = [query(row) for row in load_rows(DataConfig(source=matching), seed, options.data_root)]
        rows = [by_query[text] for text in wanted if text in by_query]
        if not rows:
            raise UsageError(
                f"no row answers a query of {matching}: prompts must be equal, instructions included"
            )
    if recipe.no_trace:
        rows = transform(rows, Knobs(trace="remove"), seed)
    return rows


def row_statistics(rows: Sequence[Row]) -> dict[str, float]:
    """Counts that need no tokenizer: rows, queries, characters of responses, share of rows with a trace."""
    prompts = [len(query(row)) for row in rows]
    responses = [len(row.response) for row in rows]
    return {
        "rows": len(rows),
        "queries": len({query(row) for row in rows}),
        "mean_prompt_characters": round(float(np.mean(prompts)), 1),
        "mean_response_characters": round(float(np.mean(responses)), 1),
        "longest_response_characters": max(responses),
        "with_trace": round(float(np.mean([bool(traces(row.response)) for row in rows])), 4),
    }
