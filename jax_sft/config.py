"""The words of a study as frozen dataclasses: Study, Run and what they hold.

A study is a Python file in `configs/` whose function `study()` returns a `Study`. Every field here is
also a flag (`--optimizer.learning-rate 1e-4`), and every docstring under a field is that flag's help.
"""

from dataclasses import dataclass, field
from dataclasses import replace as replace
from typing import Literal

from jax_sft.judge_config import JudgeConfig as JudgeConfig
from jax_sft.model_config import ModelConfig as ModelConfig
from jax_sft.model_config import RopeScaling as RopeScaling

Option = bool | int | float | str
Remat = Literal["none", "minimal", "save_qkv", "save_attention", "offload", "full"]
OptimizerMemory = Literal["device", "host"]
ParamDtype = Literal["float32", "bfloat16"]
Protocol = Literal["standard", "paper"]
Group = Literal["in_domain", "reasoning", "general", "safety"]
GROUPS: tuple[Group, ...] = ("in_domain", "reasoning", "general", "safety")


@dataclass(frozen=True)
class TokensConfig:
    """Which tokenizer reads the text, and how a conversation becomes text."""

    tokenizer: str = "miniature"
    """`miniature` (built in), `smollm2` (from its package), a folder with tokenizer.json, or a hub id."""
    template: str = "auto"
    """`auto` (the tokenizer's own), `chatml`, `question_answer`, `internlm2`, or a jinja file."""
    template_options: dict[str, Option] = field(default_factory=dict)
    """Variables of the template, for example `enable_thinking False` for Qwen3."""
    end: Literal["end_of_text", "end_of_turn"] = "end_of_turn"
    """What closes a response: the tokenizer's end of text (as in the paper) or the template's end of turn."""


@dataclass(frozen=True)
class DataConfig:
    """Where rows come from and how they become packed batches."""

    source: str = "countdown"
    """A generator, a .jsonl, .json or .parquet file (also gs://), a built set, `hub:OWNER/NAME` or `mix`."""
    options: dict[str, Option] = field(default_factory=dict)
    """Options of a generator, such as `depth 2 traces no`, or of a file: `prompt question response text`."""
    knobs: dict[str, Option] = field(default_factory=dict)
    """Changes to the rows before use: `trace remove`, `wrong 0.25`, … (data/transforms.py lists them)."""
    rows: int = 0
    """Use only the first rows of the source; 0 means all. Generators make this many."""
    batch_size: int = 32
    """Rows in one optimizer update; an incomplete last batch of an epoch is dropped."""
    row_length: int = 512
    """Tokens in one packed row, and the longest row kept whole."""
    row_lengths: tuple[int, ...] = ()
    """Lengths of packed rows (a program each) of which a step takes the best; empty: row_length alone."""
    rows_per_micro_batch: int = 8
    """Packed rows computed at once, over all devices; a step scans over as many micro-batches as it needs."""
    too_long: Literal["drop", "truncate"] = "drop"
    """Rows longer than row_length: leave them out, or cut their right end (and lose the end token)."""
    shuffle: bool = False
    """A new seeded order each epoch; off is the order of the source, as in the paper."""
    weighting: Literal["token_mean", "sequence_mean", "original"] = "token_mean"
    """Weight of a target token in the loss: equal over the batch, equal per row, or as in the paper."""
    original_ranks: int = 8
    """GPUs whose loss averaging `weighting original` reproduces."""
    original_micro_batch: int = 4
    """Rows in one micro-batch of such a GPU (2 for the paper's 20B model)."""


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with warm-up, a schedule and clipping by global norm."""

    learning_rate: float = 5e-5
    """Peak learning rate."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """After warm-up: cosine to zero at the last step, or constant."""
    warmup_fraction: float = 0.1
    """Share of all steps spent in linear warm-up from zero."""
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    """Decoupled, on every parameter, as in the paper."""
    first_moment: Literal["as_weights", "bfloat16"] = "as_weights"
    """Type of Adam's first moment; bfloat16 saves 2 bytes a weight beside float32 weights."""
    clip_norm: float = 1.0
    """Global gradient norm above which gradients are scaled down; 0 turns clipping off."""


@dataclass(frozen=True)
class SnapshotConfig:
    """Which steps are kept for good, and how often the resumable state is saved."""

    schedule: str = "0, 10, 20, 40, 80, 160, 320, last"
    """Comma-separated: steps (`0`, `40`, `last`), `every N until M`, `every N`, `25%`, `1.5 epochs`."""
    export: str = ""
    """Which of these are also written as Hugging Face folders, in the same words: `last`, `160, last`."""
    state_every: int = 50
    """Steps between saves of the full training state (the last two are kept)."""
    state_minutes: float = 0.0
    """Above 0: about so many minutes between saves of the state; the first comes after state_every steps."""


@dataclass(frozen=True)
class ParallelismConfig:
    """Sizes of the mesh axes; their product is the number of devices. -1 takes what is left."""

    replica: int = 1
    """Copies of the parameters (across slices)."""
    fsdp: int = -1
    """Ways the parameters, optimizer and batch are sharded."""
    sequence: int = 1
    """Ways a row's tokens are sharded."""
    tensor: int = 1
    """Ways heads and MLP columns are sharded."""


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters in place of full fine-tuning; snapshots hold them folded into the weights."""

    rank: int = 0
    """0 trains all weights."""
    alpha: float = 32.0
    """The adapters' contribution is multiplied by alpha / rank."""
    targets: tuple[str, ...] = ("q", "k", "v", "o", "gate", "up", "down")
    """Projections that get an adapter; all other weights are frozen."""


@dataclass(frozen=True)
class Run:
    """One model trained on one data set with one schedule."""

    name: str = "run"
    init: str = "random"
    """Start weights: `random`, `smollm2`, `run:NAME` (the last snapshot), `run:NAME@STEP`, a model folder."""
    init_ignore: tuple[str, ...] = ()
    """Fields of the start weights' config.json to pass over, where the model computes the same without."""
    epochs: float = 1.0
    """Passes over the data."""
    seed: int = 0
    """Seeds initial weights, generated data and shuffling."""
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of activations and matrix products; softmax, norms, rope and loss are in float32 always."""
    param_dtype: ParamDtype = "float32"
    """Type of the weights and of Adam's moments; bfloat16 is how the paper trained."""
    loss: Literal["nll", "dft"] = "nll"
    """Negative log-likelihood of targets, or that times their probability (DFT, arXiv 2508.05629)."""
    remat: Remat = "none"
    """What the backward pass recomputes of a layer, from nothing to all (models/remat.py)."""
    optimizer_memory: OptimizerMemory = "device"
    """Where Adam's moments lie between updates; `host` frees device memory for two copies a step."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Left out of a run that starts from weights, it is the model of these."""
    tokens: TokensConfig = field(default_factory=TokensConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    snapshots: SnapshotConfig = field(default_factory=SnapshotConfig)
    trace: tuple[int, ...] = ()
    """First and last step of which the profiler makes a trace, below the run's folder: `--trace 20 22`."""
    show_first_row: bool = True
    """Print the first row as the model sees it, its learnt part marked, before training begins."""
    parallelism: ParallelismConfig = field(default_factory=ParallelismConfig)


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn."""

    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    """Only the likeliest tokens that together reach this probability; 1 keeps all."""
    top_k: int = 0
    """Only so many of the likeliest tokens; 0 keeps all."""
    min_p: float = 0.0
    """Only tokens at least so many times as likely as the likeliest; 0 keeps all."""
    presence_penalty: float = 0.0
    """Taken off the logit of every token that the completion holds already; -2 to 2. Greedy tokens too."""
    frequency_penalty: float = 0.0
    """Taken off the logit of a token for each time that the completion holds it; -2 to 2."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion, which holds what stands before the first of them."""


@dataclass(frozen=True)
class BenchmarkConfig:
    """A task as a study uses it."""

    name: str
    """Unique in the study; names the folder of its units."""
    task: str = ""
    """countdown, reasoning_gym, gsm8k, math500, commonsenseqa, xstest, …; empty: the one of that name."""
    group: Group | None = None
    """Counts it in another group than the task's own."""
    path: str = ""
    """File with the items, for tasks that read one."""
    limit: int = 0
    """Use a fixed subset of this many items; 0 means all."""
    limit_seed: int = 0
    """Another subset of as many items for each number."""
    samples: int = 1
    """Completions drawn for each item."""
    max_new_tokens: int = 256
    """Longest completion, in tokens."""
    sampling: Sampling = field(default_factory=Sampling)
    options: dict[str, Option] = field(default_factory=dict)
    """Options of the task, for example the generator of reasoning_gym."""
    logprobs: bool = False
    """Keep with each completion the log-probability of each of its tokens; only our own engine has them."""
    protocol: Protocol = "standard"
    """How it is asked and read: by our rules, or as the code of arXiv 2604.06628 does it, quirks included."""
    judges: tuple[str, ...] = ()
    """Models that judge its completions: names of the study's judges, or of pages as they are."""
    headline: str = ""
    """The metric that stands for it; empty: the task's own, or that of the judge by which it is published."""

    def __post_init__(self) -> None:
        """A benchmark that names no task is the task of its name."""
        object.__setattr__(self, "task", self.task or self.name)


@dataclass(frozen=True)
class EvaluationConfig:
    """How a sweep generates: the shape of its one compiled decoder."""

    slots: int = 32
    """Sequences decoded at once; rounded up so that all devices have as many."""
    context: int = 512
    """Longest prompt plus completion, in tokens: the length of the key/value cache."""
    chunk: int = 32
    """Tokens decoded between two looks at which sequences have ended."""
    prefill_rows: int = 8
    """Prompts prefilled at once, a chunk of each; fewer on a CPU, which gains nothing by it."""
    prefill_chunk: int = 0
    """Tokens of a prompt prefilled at once, a multiple of `page_size`; 0: what suits the platform."""
    page_size: int = 0
    """Positions of a page of the key/value memory, a power of two; 0: what suits platform and context."""
    kv_dtype: Literal["same", "int8", "float8_e5m2", "float8_e4m3fn"] = "same"
    """Of keys and values in pages: as computed, or in 8 bits, twice as many sequences in half the bytes. int8
    has scales found from the weights; e5m2 is the fp8 of v6e, e4m3fn that of tpu7x."""
    weight_dtype: Literal["same", "int8"] = "same"
    """Of the weights while generating: int8 reads half the bytes, a scale for each output channel."""
    pages: int = 0
    """Pages of the key/value memory, all devices together; 0: as many as all slots need to be full."""
    tensor: int = 1
    """Ways heads and MLP columns are sharded; the other devices share the slots."""
    score_tokens: int = 8192
    """Tokens of given text read at once (likelihoods, rewards) by each of the devices that share them."""
    seed: int = 0
    """Seeds sampling; a completion depends on it, the snapshot, the item and the sample alone."""
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    loop_tokens: int = 512
    """End completions whose last tokens, so many at least, are one repetition (`finish` loop); 0: never."""
    penalties: bool = False
    """Count tokens on the device, as penalties of `sampling` need it: slots x vocabulary x 2 bytes."""
    workers: int = 2
    """Processes that judge completions."""
    scorer_seconds: float = 5.0
    """Time for one verdict in such a process; one that takes longer is missing, and the page says so."""
    scorer_memory: float = 4.0
    """GB of address space of such a process; a verdict that needs more is missing."""
    allow_unsandboxed_code: bool = False
    """Run what a model wrote (humaneval, mbpp, …) with this user's rights where no sandbox can be had."""


@dataclass(frozen=True)
class Study:
    """A named set of runs, and the benchmarks every snapshot of every run is swept over."""

    name: str
    runs: tuple[Run, ...]
    benchmarks: tuple[BenchmarkConfig, ...] = ()
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    judges: tuple[JudgeConfig, ...] = ()
    """Models that judge, for benchmarks that name them."""
    root: str = "runs"
    """Folder (local or gs://) under which everything of the study is written."""
    data_root: str = ""
    """Folder in which `data.source` and benchmark paths are looked up; empty is the current folder."""
    title: str = ""
    description: str = ""
    """A paragraph for the head of the report."""
    tables: dict[str, str] = field(default_factory=dict)
    """Runs that belong together, by names or patterns with commas between them: a plan sums them up."""
    row_tokens: dict[str, int] = field(default_factory=dict)
    """Mean tokens of a row by name or pattern of a run, for a plan where the data are not at hand."""
    completion_tokens: dict[str, int] = field(default_factory=dict)
    """Mean tokens of a completion by name or pattern of a benchmark, for a plan of what was never swept."""

    def run(self, name: str) -> Run:
        """The run of that name; KeyError when there is none."""
        return {run.name: run for run in self.runs}[name]
