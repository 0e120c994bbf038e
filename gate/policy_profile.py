"""The profile stage as it is written in the policy: batch sizes and lengths, serving loads, memory to fit into.

Pure: models and derived values only.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from gate import units
from gate.policy_rule import RuleSettings, StageSettings, Strict
from gate.policy_values import Duration, Lengths, Positive, PositiveNumber, Size

MIN_RUNS = 20
"""Measured batches of each shape, over all blocks: fewer say too little of what a block's median hides."""

_MIN_RUNS_A_BLOCK = 4


class Shape(NamedTuple):
    """A batch as it is timed: sequences, tokens of each prompt, tokens written for each."""

    batch_size: int
    prompt_tokens: int
    new_tokens: int

    @property
    def lengths(self) -> str:
        """`1024+64`, as a rule names it."""
        return f"{self.prompt_tokens}+{self.new_tokens}"


class Load(Strict):
    """Requests that come by themselves: `concurrency` always under way (closed), or `rate` a second (open, Poisson)."""

    concurrency: Positive | None = Field(None, description="closed loop: so many requests are always under way")
    rate: PositiveNumber | None = Field(None, description="open loop: requests a second, at seeded Poisson times")
    requests: Annotated[int, Field(ge=8)] = Field(32, description="requests of one timing block")

    @model_validator(mode="after")
    def _one_kind(self) -> Load:
        if (self.concurrency is None) == (self.rate is None):
            raise ValueError("found concurrency and rate, or neither, expected exactly one of them")
        return self

    @property
    def name(self) -> str:
        """`closed:8` or `open:4`, as a rule names it."""
        return f"closed:{self.concurrency}" if self.rate is None else f"open:{self.rate:g}"


class Serving(Strict):
    """Load as a server has it; only engines that serve (vllm) can be measured under it."""

    loads: Annotated[list[Load], Field(min_length=1)]
    mix: Annotated[list[Lengths], Field(min_length=1)] = Field(
        ["32+16", "128+32", "256+16"], description="prompt and output lengths, drawn for each request by the seed"
    )
    max_ttft: Duration = Field("1s", description="objective: a request counts as good with its first token by then")
    max_tpot: Duration = Field("100ms", description="objective: … and with this much time per later token, on average")


class ProfileStage(StageSettings):
    """Memory, load time, latency and throughput, both checkpoints side by side."""

    kind: Literal["profile"]
    batch_sizes: list[Positive] = Field([1, 8], min_length=1)
    prompt_tokens: Positive = 128
    new_tokens: Annotated[int, Field(ge=2)] = 32
    lengths: Annotated[list[Lengths], Field(min_length=1)] | None = Field(
        None, description="several pairs of prompt and new tokens, such as 1024+64, in place of the two above"
    )
    blocks: Annotated[int, Field(ge=3)] = Field(8, description="interleaved pairs of timing blocks")
    looks: Annotated[list[Annotated[int, Field(ge=3)]], Field(min_length=2, max_length=4)] | None = Field(
        None, description="planned numbers of pairs in place of blocks: timing stops at the first that decides"
    )
    context_tokens: Positive | None = Field(
        None, description="context for which the key/value cache is sized; default: the longest of the lengths"
    )
    memory_budget: Size | None = Field(
        None, description="memory that a deployment has; default: that of the device. For max_batch_at_context"
    )
    serving: Serving | None = None
    rules: Annotated[list[RuleSettings], Field(min_length=1)]

    @model_validator(mode="after")
    def _looks_grow(self) -> ProfileStage:
        if self.looks is not None and any(later <= earlier for earlier, later in pairwise(self.looks)):
            raise ValueError(f"looks {self.looks} do not grow, expected each larger than the one before")
        if self.looks is not None and "blocks" in self.model_fields_set:
            raise ValueError("found looks and blocks, expected one of them: the last look is the most blocks")
        return self

    @model_validator(mode="after")
    def _lengths_once(self) -> ProfileStage:
        if self.lengths is not None and self.model_fields_set & {"prompt_tokens", "new_tokens"}:
            raise ValueError("found lengths and prompt_tokens or new_tokens, expected one of them")
        return self

    @model_serializer(mode="wrap")
    def _what_applies(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Plain data that can be read back: without the settings that others took the place of."""
        data: dict[str, Any] = written(self)
        replaced = ([] if self.looks is None else ["blocks"]) + (
            [] if self.lengths is None else ["prompt_tokens", "new_tokens"]
        )
        return {key: value for key, value in data.items() if key not in replaced}

    @property
    def planned_pairs(self) -> tuple[int, ...]:
        """Numbers of pairs of blocks at which timing is judged; the last is the most."""
        return tuple(self.looks) if self.looks is not None else (self.blocks,)

    @property
    def runs_a_block(self) -> int:
        """Measured batches of one shape in one block: `MIN_RUNS` at the first look, or more."""
        return max(_MIN_RUNS_A_BLOCK, -(-MIN_RUNS // self.planned_pairs[0]))

    @property
    def length_pairs(self) -> tuple[tuple[int, int], ...]:
        """(prompt tokens, new tokens), each once."""
        if self.lengths is None:
            return ((self.prompt_tokens, self.new_tokens),)
        return tuple(dict.fromkeys(units.lengths(text) for text in self.lengths))

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple(Shape(b, p, n) for p, n in self.length_pairs for b in dict.fromkeys(self.batch_sizes))

    @property
    def longest_tokens(self) -> int:
        """Most tokens of a sequence in any shape or load."""
        mix = () if self.serving is None else tuple(units.lengths(text) for text in self.serving.mix)
        return max(p + n for p, n in (*self.length_pairs, *mix))

    def group(self, shape: Shape) -> str:
        """What observations of a shape are grouped by: `batch=8`, or `batch=8,1024+64` where lengths differ."""
        return f"batch={shape.batch_size}" + ("" if len(self.length_pairs) == 1 else f",{shape.lengths}")

    @property
    def objectives(self) -> tuple[float, float]:
        """Seconds to the first token, and for each later one, of a good request.  Only where loads are served."""
        assert self.serving is not None
        return units.duration_seconds(self.serving.max_ttft), units.duration_seconds(self.serving.max_tpot)
