"""How each backend runs a model: the policy's `engines:` settings, for all checkpoints or for one.

Pure: models and derived values.  What a checkpoint is lives in `checkpoint`, what is asked of it in `policy`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from gate.policy_rule import Strict
from gate.policy_values import Positive, Size, Text


class Engine(Strict):
    """Settings of one backend.  `OPERATIONAL` ones change how fast it answers, never what."""

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset()

    def given(self) -> dict[str, Any]:
        """The settings that were written, as plain data."""
        return self.model_dump(mode="json", exclude_none=True)

    def scoring(self) -> dict[str, Any]:
        """Those of them that can change a score: part of a checkpoint's effective digest."""
        return {name: value for name, value in self.given().items() if name not in self.OPERATIONAL}


class HfEngine(Engine):
    """transformers."""

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset({"batch_size", "device_map", "prefix_cache"})

    attention: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] | None = Field(
        None, description="attention implementation; default: what transformers chooses"
    )
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = Field(
        None, description="spread a model that is larger than one GPU; default: all of it on one device"
    )
    batch_size: Positive | None = Field(None, description="sequences run at once; default: as many as fit")
    prefix_cache: Size | None = Field(
        None, description="memory for keys and values of shared prompt prefixes, such as 2GiB; 0B switches it off"
    )


class VllmEngine(Engine):
    """vLLM; names are vLLM's own."""

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset(
        {
            "tensor_parallel_size",
            "gpu_memory_utilization",
            "enforce_eager",
            "max_num_seqs",
            "prefix_caching",
            "cpu_kv_cache",
        }
    )

    tensor_parallel_size: Positive | None = None
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    max_model_len: Positive | None = None
    kv_cache_dtype: Text | None = Field(None, description="such as fp8; default: the model's own precision")
    quantization: Text | None = Field(None, description="default: what the checkpoint declares")
    enforce_eager: bool | None = None
    max_num_seqs: Positive | None = None
    prefix_caching: bool | None = Field(None, description="default: true")
    cpu_kv_cache: Size | None = Field(None, description="memory for keys and values on a CPU, such as 2GiB")


class OpenaiEngine(Engine):
    """An OpenAI-compatible server that is already running; `path` still names the checkpoint that it serves."""

    OPERATIONAL: ClassVar[frozenset[str]] = frozenset(
        {"url", "api_key_env", "concurrency", "timeout_seconds", "retries"}
    )

    url: Text | None = Field(None, description="base URL, such as http://localhost:8000/v1")
    model: Text | None = Field(None, description="name that the server knows it by; default: the only one it lists")
    api_key_env: Text | None = Field(None, description="environment variable that holds the key")
    concurrency: Positive | None = Field(None, description="requests under way at once; default: 8")
    timeout_seconds: Positive | None = Field(None, description="of one request; default: 120")
    retries: Annotated[int, Field(ge=0)] | None = Field(None, description="of a failed request; default: 4")


class Engines(Strict):
    """The policy's `engines:` table."""

    hf: HfEngine = HfEngine()
    vllm: VllmEngine = VllmEngine()
    openai: OpenaiEngine = OpenaiEngine()

    def of(self, backend: str, checkpoint: Engines) -> Engine:
        """What `backend` is run with: these settings, and above them those of one checkpoint."""
        match backend:
            case "hf":
                return self.hf.model_copy(update=checkpoint.hf.model_dump(exclude_none=True))
            case "vllm":
                return self.vllm.model_copy(update=checkpoint.vllm.model_dump(exclude_none=True))
            case "openai":
                return self.openai.model_copy(update=checkpoint.openai.model_dump(exclude_none=True))
            case _:
                return Engine()
