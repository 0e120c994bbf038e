"""The policy: pydantic models of the YAML, and the rules they plan.

Pure: models and derived values only.  Files and lines live in `policy_file`, contradictions in `policy_problems`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, WithJsonSchema, model_validator

from gate import units
from gate.engines import Engines
from gate.policy_profile import ProfileStage as ProfileStage
from gate.policy_rule import RuleSettings, StageSettings, Strict
from gate.policy_values import (
    Duration,
    Lost,
    Name,
    Number,
    Percent,
    Positive,
    PositiveNumber,
    Sample,
    Size,
    Template,
    Text,
    Version,
)
from gate.records import Role, Rule

TextMetric = Literal["macro_f1", "rouge_l", "bleu", "chrf", "invalid_json_rate"]
TEXT_METRICS: tuple[str, ...] = get_args(TextMetric)


class Corpus(Strict):
    """Text to score: a local file (`path`) or a corpus known by name (wikitext2, c4)."""

    name: Name
    path: Text | None = Field(None, description=".txt (documents separated by blank lines), .jsonl or .parquet")
    text_field: str = "text"
    window: Annotated[int, Field(ge=2)] = 2048
    stride: Positive = 512
    max_tokens: Positive | None = Field(
        None, description="spread over the documents: the first max_tokens/documents tokens of each"
    )
    looks: Annotated[list[Positive], Field(min_length=1, max_length=8)] | None = Field(
        None, description="planned sizes in tokens, spread like max_tokens: scoring stops at the first that decides"
    )
    documents: Positive | None = Field(None, description="use this many documents, drawn by the seed")
    cluster: Literal["document", "block"] = "document"
    block_tokens: Positive = 512

    @model_validator(mode="after")
    def _stride_fits(self) -> Corpus:
        if self.stride > self.window:
            raise ValueError(f"stride {self.stride} is larger than window {self.window}: tokens would go unscored")
        return self

    @model_validator(mode="after")
    def _looks_grow(self) -> Corpus:
        if self.looks is None:
            return self
        if any(later <= earlier for earlier, later in pairwise(self.looks)):
            raise ValueError(f"looks {self.looks} do not grow, expected each larger than the one before")
        if self.max_tokens is not None:
            raise ValueError("found looks and max_tokens, expected one of them: the last look is the most tokens")
        if self.cluster == "block":
            raise ValueError("looks do not go with cluster: block: the unit of a look is the start of a document")
        return self


class PerplexityStage(StageSettings):
    """Sliding-window perplexity and, where logits are available, divergence from the baseline."""

    kind: Literal["perplexity"]
    corpora: Annotated[list[Corpus], Field(min_length=1)]
    top_k: Annotated[int, Field(ge=0, le=4096)] = Field(256, description="log-probabilities kept per token; 0: none")
    max_store: Size | None = Field(
        None, description="largest size of the baseline's distributions on disk, such as 256MiB: keeps fewer than top_k"
    )
    rules: Annotated[list[RuleSettings], Field(min_length=1)]


class Epochs(Strict):
    """How often each role answers every item; written as one count for both or one each."""

    baseline: Positive
    candidate: Positive

    @model_validator(mode="before")
    @classmethod
    def _one_count_for_both(cls, value: Any) -> Any:
        if isinstance(value, Epochs):
            return value
        counts = value if isinstance(value, dict) else {"baseline": value, "candidate": value}
        if counts.keys() != {"baseline", "candidate"} or any(type(n) is not int or n < 1 for n in counts.values()):
            raise ValueError(f"found {value!r}, expected a count from 1, or {{baseline: count, candidate: count}}")
        return counts

    def of(self, role: Role) -> int:
        return self.baseline if role is Role.BASELINE else self.candidate

    @property
    def fewest(self) -> int:
        return min(self.baseline, self.candidate)


_COUNT = {"type": "integer", "minimum": 1}
_EPOCHS_SCHEMA = {
    "anyOf": [
        _COUNT,
        {
            "type": "object",
            "properties": {"baseline": _COUNT, "candidate": _COUNT},
            "required": ["baseline", "candidate"],
            "additionalProperties": False,
        },
    ]
}


class Decoding(Strict):
    """How answers are written, and how often."""

    temperature: Annotated[float, Field(ge=0)] = Field(
        0.0, description="above 0: sample the answers; 0: greedy, or as an lm-eval task itself defines"
    )
    epochs: Annotated[Epochs, WithJsonSchema(_EPOCHS_SCHEMA)] = Field(
        Epochs(baseline=1, candidate=1),
        description="answers to every item, each with a seed of its own; an item's score is their mean",
    )
    pass_at: Positive | None = Field(
        None, description="also measure pass_at_k, the chance that one of this many answers is right"
    )


class Task(Decoding):
    """One lm-eval task or group."""

    task: Text
    fewshot: Annotated[int, Field(ge=0)] | None = Field(None, description="examples in the prompt; default: the task's")
    fewshot_sampler: Literal["per_document", "first_n"] = "per_document"
    sample: Sample | None = Field(None, description="seeded random sample: 20% or a count")
    chat: bool = Field(False, description="apply the chat template")
    max_new_tokens: Positive | None = None
    unsafe_code: bool = Field(
        False, description="allow a task that executes what the model wrote, each answer in a sandbox of its own"
    )
    max_truncated: Lost = Field(
        0, description="items whose prompt may be cut to fit the context: a count or a percentage; more is an ERROR"
    )
    rules: Annotated[list[RuleSettings], Field(min_length=1)]


class LmEvalStage(StageSettings):
    """lm-eval tasks; lm-eval defines prompts and scores, the gate owns the schedule."""

    kind: Literal["lm_eval"]
    include_path: Text | None = Field(None, description="folder with local task YAML")
    tasks: Annotated[list[Task], Field(min_length=1)]


class Judge(Strict):
    """An OpenAI-compatible endpoint that scores answers against a rubric; advisory."""

    url: Text
    model: Text
    rubric: Text
    api_key_env: str | None = Field(None, description="name of the environment variable that holds the key")


class DomainStage(StageSettings, Decoding):
    """The team's own held-out set: JSON Lines of {id, input, expected, category, choices?}."""

    kind: Literal["domain"]
    data: Text
    template: Template = Field("{input}", description="plain text with {input}, {id}, {category}; {{ and }} for braces")
    chat: bool = False
    match: Literal["exact", "contains", "regex", "numeric", "choice", "json"]
    tolerance: Annotated[float, Field(ge=0)] = Field(0.0, description="numeric: largest absolute difference")
    json_fields: list[str] | None = Field(None, description="json: fields that must be equal; default: all expected")
    sample: Sample | None = Field(None, description="seeded random sample: 20% or a count")
    max_new_tokens: Positive = 64
    stop: list[str] = Field(default_factory=list)
    text_metrics: list[TextMetric] = Field(
        default_factory=list, description="reported besides accuracy; those that rules name are added by themselves"
    )
    judge: Judge | None = None
    rules: Annotated[list[RuleSettings], Field(min_length=1)]

    @model_validator(mode="before")
    @classmethod
    def _measure_what_rules_ask(cls, data: Any) -> Any:
        """Adds the text metrics that rules name: what is measured, and stored, must not hide in the rules."""
        if not isinstance(data, dict) or not isinstance(data.get("rules"), list):
            return data
        listed = data.get("text_metrics", [])
        asked = [r.get("metric") if isinstance(r, dict) else getattr(r, "metric", None) for r in data["rules"]]
        if not isinstance(listed, list):
            return data
        missing = [m for m in TEXT_METRICS if m in asked and m not in listed]
        return {**data, "text_metrics": [*listed, *missing]} if missing else data

    @property
    def wanted_text_metrics(self) -> tuple[str, ...]:
        """Text metrics to compute: those listed and those that a rule names."""
        return tuple(dict.fromkeys(self.text_metrics))


Stage = PerplexityStage | LmEvalStage | DomainStage | ProfileStage


class CheckpointSettings(Strict):
    """A named checkpoint for --baseline and --candidate, with how to load it."""

    path: Text
    load: dict[str, Any] = Field(default_factory=dict)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    tokenizer: str | None = None
    engines: Engines = Field(Engines(), description="settings of the backends for this checkpoint alone")
    trust_remote_code: bool = Field(
        False, description="run the checkpoint's own Python files when it is loaded; every report says so"
    )


class QuantizationCost(Strict):
    """What making the checkpoint cost once, spread over the tokens that it is expected to write."""

    amount: Number = Field(description="in the currency of price_per_hour")
    output_tokens: PositiveNumber = Field(description="tokens that the checkpoint is expected to write in its life")


class OutputLength(Strict):
    """Tokens of the candidate's answers over the baseline's; outside of these the report says so.  Blocks nothing."""

    min: Percent = "90%"
    max: Percent = "110%"


class Publish(Strict):
    """How a verdict appears on GitHub."""

    inconclusive: Literal["failure", "action_required", "neutral"] = Field(
        "failure",
        description="conclusion of an inconclusive check; neutral lets a required check pass: it unblocks merging",
    )
    comment: Literal["on_failure", "always", "never"] = Field(
        "on_failure",
        description="on_failure: a comment is created once a run does not pass, and kept up to date from then on",
    )


class Policy(Strict):
    """What a candidate must keep.  Only `version` and `stages` are required."""

    version: Version
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = Field(0.95, description="one-sided, per side and rule")
    seed: int = 0
    on_inconclusive: Literal["fail", "warn"] = "fail"
    share_examples: Literal["none", "ids", "full"] = "none"
    budget: Duration | None = None
    stop_early: bool = Field(
        True, description="stop measuring a task once its blocking rules are settled; false: measure all of it"
    )
    publish: Publish = Field(Publish(), description="how a verdict appears on GitHub (docs/github.md)")
    price_per_hour: PositiveNumber | None = Field(
        None, description="of the machine that serves the model, in any currency: for the cost of a million tokens"
    )
    quantization_cost: QuantizationCost | None = None
    output_length: OutputLength = Field(
        OutputLength(), description="answers of another length than the baseline's are named in the report"
    )
    engines: Engines = Field(Engines(), description="how the backends run a model; a checkpoint may override it")
    checkpoints: dict[Name, CheckpointSettings] = Field(default_factory=dict)
    stages: Annotated[list[Annotated[Stage, Field(discriminator="kind")]], Field(min_length=1)]


def split(stage: Stage) -> tuple[tuple[str, Stage], ...]:
    """The stage cut into its sources: (source, the same stage with that source alone).

    A source is what is measured, stored and paired as one: a corpus, a task, a data set, a profile.
    """
    match stage:
        case PerplexityStage():
            return tuple((c.name, stage.model_copy(update={"corpora": [c]})) for c in stage.corpora)
        case LmEvalStage():
            return tuple((t.task, stage.model_copy(update={"tasks": [t]})) for t in stage.tasks)
        case DomainStage() | ProfileStage():
            return ((stage.name, stage),)


def secrets_needed(policy: Policy) -> tuple[str, ...]:
    """Names of the environment variables that hold keys: the only secrets that a worker gets to see."""
    judges = [s.judge.api_key_env for s in policy.stages if isinstance(s, DomainStage) and s.judge]
    servers = [e.openai.api_key_env for e in (policy.engines, *(c.engines for c in policy.checkpoints.values()))]
    return tuple(dict.fromkeys(name for name in (*judges, *servers) if name))


def sample_size(sample: int | str | None, available: int) -> int:
    """Number of items that `sample` takes from `available`: all of them, a share (rounded), or a count."""
    if sample is None:
        return available
    wanted = sample if isinstance(sample, int) else round(units.percent(sample) * available)
    return min(wanted, available)


Location = tuple[str | int, ...]
"""Path of a value in the YAML document, as pydantic reports it."""


def rule_settings(policy: Policy) -> Iterator[tuple[Stage, str, RuleSettings, Location]]:
    """Every (stage, source, rule, location).  A perplexity rule without `corpus` covers each corpus."""
    for s, stage in enumerate(policy.stages):
        if isinstance(stage, LmEvalStage):
            for t, task in enumerate(stage.tasks):
                for r, rule in enumerate(task.rules):
                    yield stage, task.task, rule, ("stages", s, "tasks", t, "rules", r)
        elif isinstance(stage, PerplexityStage):
            for r, rule in enumerate(stage.rules):
                for corpus in stage.corpora:
                    if rule.corpus in (None, corpus.name):
                        yield stage, corpus.name, rule, ("stages", s, "rules", r)
        else:
            for r, rule in enumerate(stage.rules):
                yield stage, stage.name, rule, ("stages", s, "rules", r)


def planned_rules(policy: Policy, lines: dict[Location, int]) -> tuple[Rule, ...]:
    """The rules a run must answer, in order; `lines` maps locations to 1-based lines."""
    planned = []
    for stage, source, settings, location in rule_settings(policy):
        bound = settings.bound()
        parts = [stage.name]
        if source != stage.name and not (isinstance(stage, PerplexityStage) and len(stage.corpora) == 1):
            parts.append(source)
        parts += [settings.metric, bound.kind.value]
        parts += [f"by_{settings.by}"] if settings.by else []
        parts += [f"batch{settings.batch}"] if settings.batch else []
        parts += [text.replace("+", "-").replace(":", "-") for text in (settings.lengths, settings.load) if text]
        identifier = settings.id or ".".join(parts)
        if settings.id and settings.corpus is None and isinstance(stage, PerplexityStage) and len(stage.corpora) > 1:
            identifier = f"{settings.id}.{source}"
        planned.append(
            Rule(
                id=identifier,
                stage=stage.name,
                source=source,
                metric=settings.metric,
                bound=bound,
                by=settings.by,
                batch=settings.batch,
                lengths=settings.lengths,
                load=settings.load,
                severity=settings.effective_severity(),
                scope=settings.scope,
                max_items=settings.max_items,
                max_lost=settings.lost(),
                line=lines.get(location),
            )
        )
    return tuple(planned)
