"""The served checkpoint's own tokenizer and configuration, read from its folder.

Loads no weights and asks no server.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer

from gate.backends import Checkpoint
from gate.backends.tokenized import rendered
from gate.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Tokens:
    """Text to token ids as the other backends do it, so that prompts are the same everywhere."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Without special tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def prompt(self, text: str) -> list[int]:
        """With the tokenizer's own start token, unless a chat template has put it there already."""
        start = self.tokenizer.bos_token
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=not (start and text.startswith(start)))
        if not ids:
            raise ValueError(f"the prompt {text!r} has no tokens: there is nothing to continue")
        return ids

    def bos(self) -> int | None:
        start: int | None = self.tokenizer.bos_token_id
        return start

    def prefix(self) -> int | None:
        """What stands before a text that has no context: the start token, or the end token where there is none."""
        end: int | None = self.tokenizer.eos_token_id
        return end if self.bos() is None else self.bos()

    def chat(self, messages: Sequence[Mapping[str, str]], *, ask: bool = True) -> str:
        """Rendered by the chat template; `ask`: the assistant's turn begins, else the last message goes on."""
        return rendered(self.tokenizer, messages, ask=ask)


def load(checkpoint: Checkpoint) -> tuple[Tokens, Any]:
    """The tokenizer and the configuration.  Raises CheckpointError."""
    for folder in (checkpoint.path, checkpoint.tokenizer):
        if folder is not None and not Path(folder).is_dir():
            raise CheckpointError(f"{folder!r} is not a folder, expected a downloaded checkpoint: run `gate fetch`")
    gguf = {"gguf_file": checkpoint.load["gguf_file"]} if "gguf_file" in checkpoint.load else {}
    other = set(checkpoint.load) - set(gguf)
    if other:
        raise CheckpointError(
            f"found the load setting {sorted(other)[0]!r}, which a running server cannot be given: start the server "
            "with it, or remove it from the policy"
        )
    local = {"local_files_only": True, "trust_remote_code": checkpoint.trust_remote_code}
    try:
        own = checkpoint.tokenizer is None
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.tokenizer or checkpoint.path, **local, **(gguf if own else {})
        )
        config = AutoConfig.from_pretrained(checkpoint.path, **local, **gguf)
    except (ImportError, OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        said = " ".join(str(problem).split())[:300]
        raise CheckpointError(
            f"the tokenizer or the configuration in {checkpoint.path} cannot be read: {type(problem).__name__}: {said}"
        ) from problem
    return Tokens(tokenizer), getattr(config, "text_config", None) or config


def n_stored(folder: str) -> int:
    """Numbers that the safetensors files hold, packed ones counted as stored.  Raises CheckpointError."""
    total = 0
    for file in sorted(Path(folder).glob("*.safetensors")):
        try:
            with safe_open(file, framework="numpy") as tensors:
                for name in tensors.keys():  # noqa: SIM118  # not a mapping
                    size = 1
                    for n in tensors.get_slice(name).get_shape():
                        size *= n
                    total += size
        except (SafetensorError, OSError) as problem:
            raise CheckpointError(f"{file} is truncated or damaged ({problem}): download it again") from problem
    return total
