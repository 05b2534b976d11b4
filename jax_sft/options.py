"""What commands are told besides a study, and how the values of options are read; light to import."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jax_sft.config import JudgeConfig, Option, Protocol
from jax_sft.errors import UsageError
from jax_sft.judge_config import Part

_TRUTHS = dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)


def truth(value: Option) -> bool | None:
    """What True, `yes`, `on` and 1 say, or False, `no`, `off` and 0, in any case; None for all else."""
    return _TRUTHS.get(str(value).strip().lower())


def fitting(value: Option, kind: type) -> Option | None:
    """An option's value as the kind that is expected (bool, int, float or str); None when it is not one."""
    if kind is bool:
        return truth(value)
    fits = isinstance(value, int | float if kind is float else kind) and not isinstance(value, bool)
    return kind(value) if fits else None


@dataclass(frozen=True)
class BuildOptions:
    """What `jax-sft data build` is told: what a set is made from."""

    source: str = ""
    """A .jsonl or .parquet file, a set built before, or a generator; some sets have one of their own."""
    options: dict[str, Option] = field(default_factory=dict)
    """Options of the source, over those of the set, for example `depth 2`."""
    rows: int = -1
    """How many rows to draw by seed: 0 all, -1 the set's own number."""
    seed: int = 0
    """Draws rows, and one response of each query."""
    matching: str = ""
    """The set whose queries the rows must answer, for those that are matched to another."""
    data_root: str = ""
    """Look up relative sources in this folder."""


@dataclass(frozen=True)
class VerifyOptions:
    """What `jax-sft data verify` is told."""

    prompt: str = "question"
    """Column of the query."""
    response: str = "response"
    """Column of the response: text, or a list of texts (many responses to one query in one row)."""
    answer: str = "answer"
    """Column of the right answer, with or without $ or \\boxed{}; after #### where there is one."""
    instruction: str = ""
    """Line added to the end of every prompt that is kept."""
    keep: str = "one"
    """`one` right response a query, drawn by seed; `all` responses judged, marked in the column `correct`."""
    max_characters: int = 0
    """Responses longer than this are left out (0: no bound)."""
    seed: int = 0
    ngram: int = 8
    """Words in a row that a query may not share with a benchmark item."""
    workers: int = 2
    seconds: float = 10.0
    """Time limit for one response."""
    memory: float = 4.0
    """GB of address space of a process that judges; a response that needs more is unparsable."""

    def check(self) -> None:
        """UsageError naming a flag that is out of range."""
        if self.keep not in ("one", "all"):
            raise UsageError(f"--keep {self.keep}: is neither one nor all")
        for name, least in (("ngram", 1), ("workers", 1), ("max_characters", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{_flag(name)} {getattr(self, name)}: is not at least {least}")
        _check_limits(self.seconds, self.memory)


@dataclass(frozen=True)
class JudgeOptions:
    """What `jax-sft judge` is told."""

    workers: int = 2
    """Processes that judge."""
    seconds: float = 5.0
    """Time for one verdict; one that takes longer is missing."""
    memory: float = 4.0
    """GB of address space of a process that judges; a verdict that needs more is missing."""
    protocol: Protocol = "standard"
    """By which rules to read; `paper` reads as the code of arXiv 2604.06628 does, quirks included."""
    traps: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print also what the paper's protocol, and each of its traps alone, change."""
    page: str = ""
    """Let a model judge, by this page (qwen3guard, harmbench, …; docs/judges.md); empty: the rules judge."""
    model: str = ""
    """The model that judges: a folder or a hub id; empty means that of the page."""
    endpoint: str = ""
    """An OpenAI-compatible server that answers for the model (`http://host/v1`)."""
    tokenizer: str = ""
    """Of the model; empty means its own."""
    part: Part = "answer"
    """What of a completion the model judges."""
    context: int = 0
    """Longest prompt plus answer of the model, in tokens; 0: 4096, or what it can."""
    max_new_tokens: int = 0
    """Longest answer of the model, in tokens; 0 means as the page says."""
    slots: int = 32
    """Completions that the model judges at once."""

    def check(self) -> None:
        """UsageError naming a flag that is out of range."""
        if self.workers < 1:
            raise UsageError(f"--workers {self.workers}: is not at least 1")
        if self.slots < 1:
            raise UsageError(f"--slots {self.slots}: is not at least 1")
        _check_limits(self.seconds, self.memory)

    @property
    def judge_config(self) -> JudgeConfig:
        """The model that judges, as a study has it."""
        return JudgeConfig(
            self.page,
            model=self.model,
            endpoint=self.endpoint,
            tokenizer=self.tokenizer,
            context=self.context,
            max_new_tokens=self.max_new_tokens,
        )


@dataclass(frozen=True)
class SweepOptions:
    """How `jax-sft sweep` goes about it."""

    worker: str = ""
    """Do one share of the units, `0/3` to `2/3` for three workers; `auto/3` takes the index from the job."""
    follow: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on with the snapshots that training has yet to write, until the runs have ended."""
    judges: str = ""
    """Only these judges judge, comma-separated; `none`: none now, `jax-sft score` has them judge later."""
    follow_timeout: float = 0.0
    """Minutes without a new snapshot after which a sweep that follows gives up; 0 waits for ever."""
    endpoint: str = ""
    """Draw from the OpenAI-compatible server at this URL (http://localhost:8000/v1), which serves the export
    of the one snapshot that --runs and --steps name."""
    check_backend: str = ""
    """Draw nothing; compare our engine and the server at this URL greedily, on prompts of the benchmarks."""
    check_prompts: int = 50
    """Prompts of --check-backend."""
    check_tokens: int = 64
    """New tokens for each of them."""
    model: str = ""
    """The name under which the server of --endpoint or --check-backend has the snapshot."""
    requests: int = 32
    """Requests that the server is asked at once."""
    request_timeout: float = 3600.0
    """Seconds that the server may take for one answer."""

    def check(self) -> None:
        """UsageError naming a flag that is out of range."""
        if self.follow_timeout < 0:
            raise UsageError(f"--follow-timeout {self.follow_timeout}: is below 0")
        if bool(self.endpoint or self.check_backend) != bool(self.model):
            raise UsageError(
                "--model names what the server of --endpoint or --check-backend serves: give both"
            )
        if self.endpoint and (self.follow or self.check_backend):
            other = "--follow" if self.follow else "--check-backend"
            raise UsageError(f"--endpoint: a server has one snapshot; leave out {other}")
        for name in ("requests", "check_prompts", "check_tokens"):
            if getattr(self, name) < 1:
                raise UsageError(f"{_flag(name)} {getattr(self, name)}: is not at least 1")
        if not self.request_timeout > 0:
            raise UsageError(f"--request-timeout {self.request_timeout}: is not above 0")


@dataclass(frozen=True)
class ChatOptions:
    """How `jax-sft chat` answers."""

    beside: tuple[str, ...] = ()
    """RUN_FOLDER STEP of a second snapshot, which hears the same and answers beside the first."""
    system: str = ""
    """The message that the conversation begins with."""
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    max_new_tokens: int = 512
    """Longest answer."""
    context: int = 4096
    """Tokens that the conversation may have."""
    seed: int = 0

    def check(self) -> None:
        """UsageError naming a flag that is out of range."""
        if len(self.beside) not in (0, 2):
            raise UsageError("--beside: write RUN_FOLDER STEP")
        for name in ("max_new_tokens", "context"):
            if getattr(self, name) < 1:
                raise UsageError(f"{_flag(name)} {getattr(self, name)}: is not at least 1")


HBM_SHARE = 0.92
"""The runtime and fragmentation want the rest."""
TIMEOUT = 1800.0


@dataclass(frozen=True)
class PlanOptions:
    """On which TPUs to plan, and how."""

    chips: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A TPU slice, `v5p:64` for 64 chips or `v5p:2x64` for two slices of 64; repeat it to compare several."""
    search: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Look for the fastest remat, rows of a micro-batch and parallelism that fit."""
    most_compiled: int = 6
    """Settings that a search compiles at most, for each run and slice."""
    hbm_share: float = HBM_SHARE
    """Share of a device's usable memory that a program may fill."""
    prices: str = ""
    """A TOML file with dollars per chip-hour instead of the built-in table."""
    rows: int = 0
    """Rows of the data sets, where they are not at hand."""
    row_tokens: int = 0
    """Mean tokens of a row, where the data set is not at hand; 0 means as many as fit."""
    target_share: float = 1.0
    """Share of tokens that carry loss, where the data set is not at hand."""
    completion_share: float = 1.0
    """Mean tokens of a completion / max_new_tokens of its benchmark."""
    cache: str = ""
    """Folder of earlier compilations; empty means $XDG_CACHE_HOME/jax_sft/plans."""
    timeout: float = TIMEOUT
    """Seconds that one compilation may take."""

    def check(self) -> None:
        """UsageError naming a flag that is out of range."""
        for name in ("hbm_share", "target_share", "completion_share"):
            if not 0 < getattr(self, name) <= 1:
                raise UsageError(f"{_flag(name)} {getattr(self, name)}: is not above 0 and at most 1")
        for name in ("rows", "row_tokens"):
            if getattr(self, name) < 0:
                raise UsageError(f"{_flag(name)} {getattr(self, name)}: is below 0")
        for name in ("most_compiled", "timeout"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{_flag(name)} {getattr(self, name)}: is not above 0")

    @property
    def cache_folder(self) -> Path | None:
        """The folder that `cache` names, or None for the usual one."""
        return Path(self.cache).expanduser() if self.cache else None


def _check_limits(seconds: float, memory: float) -> None:
    for flag, value in (("--seconds", seconds), ("--memory", memory)):
        if not value > 0:
            raise UsageError(f"{flag} {value}: is not above 0")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
