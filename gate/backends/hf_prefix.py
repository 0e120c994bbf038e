"""Keys and values of prompt prefixes that later prompts will share, in a radix tree of token ids with a memory budget.

Runs no model; what it holds is read and never grows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from gate.backends.hf_memory import is_out_of_memory

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

KeyValues = list[tuple["torch.Tensor", "torch.Tensor"]]
"""Per layer, keys and values of a stretch of tokens: [1, heads, tokens, head size]."""

WORTH_TOKENS = 16
"""A shorter stretch costs more to keep than to compute again."""

LONG_TOKENS = 256
"""So much new text at the start of a prompt may be few-shot examples that others share, even when none has yet."""

REMEMBERED_PROMPTS = 4096
"""Prompts of which the token ids (not the keys and values) are remembered, to see what later ones share with them."""


@dataclass(eq=False, slots=True)
class Node:
    """The tokens `start` to `end` of all prompts that pass here."""

    tokens: NDArray[np.int32]
    start: int
    parent: Node | None
    children: dict[int, Node] = field(default_factory=dict)
    kv: KeyValues | None = None
    prompts: int = 0
    """How many different prompts began with this."""
    is_prompt: bool = False
    used: int = 0

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    @property
    def is_shared(self) -> bool:
        return self.prompts > 1

    @property
    def is_worth_keeping(self) -> bool:
        """Shared already, or so much more new than known that it is likely to be."""
        n = len(self.tokens)
        return n >= (WORTH_TOKENS if self.is_shared else max(LONG_TOKENS, self.start + 1))

    def path(self) -> list[Node]:
        """From the first tokens of a prompt to here."""
        nodes: list[Node] = []
        node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


class PrefixStore:
    """Least recently used goes first; nothing that `touch` marked since the last `tick` goes at all."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self.held_bytes = 0
        self._root = Node(np.empty(0, np.int32), 0, None)
        self._clock = 0
        self._held: dict[Node, int] = {}
        self._prompts: deque[Node] = deque()

    def tick(self) -> None:
        """What was used before this may be evicted from now on."""
        self._clock += 1

    def forget(self) -> None:
        """Drop the oldest prompts beyond the limit, with the nodes that were theirs alone."""
        while len(self._prompts) > REMEMBERED_PROMPTS:
            node = self._prompts.popleft()
            node.is_prompt = False
            self._prune(node)

    def touch(self, nodes: Sequence[Node]) -> None:
        for node in nodes:
            node.used = self._clock

    def add(self, tokens: NDArray[np.int32]) -> Node:
        """Remember a prompt; the node of its last token, whose `path` is the prompt."""
        node = self._root
        while len(tokens):
            first = int(tokens[0])
            child = node.children.get(first)
            if child is None:
                child = node.children[first] = Node(tokens, node.end, node)
            elif (shared := common(child.tokens, tokens)) < len(child.tokens):
                child = self._split(child, shared)
            tokens = tokens[len(child.tokens) :]
            node = child
        if node.parent is not None and not node.is_prompt:
            node.is_prompt = True
            for one in node.path():
                one.prompts += 1
            self._prompts.append(node)
        return node

    def put(self, node: Node, kv: KeyValues) -> None:
        """Hold the keys and values of a node whose parent's are held.  The caller has made room."""
        node.kv = kv
        self._held[node] = size_bytes(kv)
        self.held_bytes += self._held[node]

    def make_room(self, wanted_bytes: int) -> bool:
        """Evict until `wanted_bytes` more fit into the budget; False when they cannot."""
        while self.held_bytes + wanted_bytes > self.budget_bytes:
            old = [n for n in self._held if n.used < self._clock and not any(c.kv for c in n.children.values())]
            if not old:
                return False
            self._drop(min(old, key=lambda n: (n.is_shared, n.used)))
        return True

    def clear(self) -> None:
        """Let go of all keys and values; the prompts stay known."""
        for node in list(self._held):
            self._drop(node)

    def _drop(self, node: Node) -> None:
        self.held_bytes -= self._held.pop(node)
        node.kv = None
        self._prune(node)

    def _prune(self, node: Node) -> None:
        """Take out what no prompt and nothing held needs."""
        while node.parent is not None and not (node.children or node.kv or node.is_prompt):
            node.parent.children.pop(int(node.tokens[0]), None)
            node = node.parent

    def _split(self, node: Node, at: int) -> Node:
        """The new node that holds the first `at` tokens of `node`, between it and its parent."""
        assert node.parent is not None
        halves = self._halved(node, at)
        upper = Node(node.tokens[:at], node.start, node.parent, prompts=node.prompts, used=node.used)
        upper.children[int(node.tokens[at])] = node
        node.parent.children[int(node.tokens[0])] = upper
        node.parent, node.start, node.tokens = upper, node.start + at, node.tokens[at:]
        if halves is not None:
            self.held_bytes -= self._held.pop(node)
            self.put(upper, halves[0])
            self.put(node, halves[1])
        return upper

    def _halved(self, node: Node, at: int) -> tuple[KeyValues, KeyValues] | None:
        """Copies of what a node holds (views would keep one half alive with the other); None: nothing is held.

        Without memory for them, the node and what builds on it let go of theirs.
        """
        if node.kv is None:
            return None
        try:
            return (
                [(k[:, :, :at].clone(), v[:, :, :at].clone()) for k, v in node.kv],
                [(k[:, :, at:].clone(), v[:, :, at:].clone()) for k, v in node.kv],
            )
        except (RuntimeError, MemoryError) as problem:
            if not is_out_of_memory(problem):
                raise
        for one in [held for held in self._held if node in held.path()]:
            self.held_bytes -= self._held.pop(one)
            one.kv = None
        return None


def common(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    """Length of the longest common prefix."""
    n = min(len(a), len(b))
    different = np.flatnonzero(a[:n] != b[:n])
    return int(different[0]) if len(different) else n


def size_bytes(kv: KeyValues) -> int:
    return sum(t.numel() * t.element_size() for pair in kv for t in pair)
