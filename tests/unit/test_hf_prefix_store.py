"""The radix tree of prompts: what they share is found, held within a budget, and let go least recently used first."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gate.backends import hf_prefix
from gate.backends.hf_prefix import KeyValues, Node, PrefixStore, common, size_bytes

PLENTY = 2**40
BYTES_PER_TOKEN = 2 * 2 * 4  # keys and values of two layers, one head of one float32


def tokens(*spans: range) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.concatenate([np.arange(s.start, s.stop, dtype=np.int32) for s in spans])


def kv(node: Node) -> KeyValues:
    """Recognisable: the value of a token is the token."""
    own = torch.from_numpy(node.tokens.astype(np.float32))[None, None, :, None]
    return [(own.clone(), own.clone()) for _ in range(2)]


def hold(store: PrefixStore, node: Node) -> None:
    for one in node.path():
        if one.kv is None:
            assert store.make_room(len(one.tokens) * BYTES_PER_TOKEN)
            store.put(one, kv(one))


def held_tokens(node: Node) -> list[int]:
    found = [one.kv[1][1][0, 0, :, 0] for one in node.path() if one.kv is not None]
    return torch.cat(found).int().tolist() if found else []


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [(range(5), range(5), 5), (range(5), range(3), 3), (range(5), range(1, 5), 0), (range(0), range(3), 0)],
)
def test_common_beginnings(one: range, other: range, expected: int) -> None:
    assert common(tokens(one), tokens(other)) == expected


def test_what_prompts_share_becomes_a_node_of_its_own() -> None:
    store = PrefixStore(PLENTY)
    first, second = store.add(tokens(range(40), range(100, 105))), store.add(tokens(range(40), range(200, 210)))
    assert [len(n.tokens) for n in first.path()] == [40, 5]
    assert [len(n.tokens) for n in second.path()] == [40, 10]
    assert first.path()[0] is second.path()[0]
    assert first.path()[0].is_shared
    assert first.path()[0].is_worth_keeping
    assert not first.is_worth_keeping
    assert (second.start, second.end) == (40, 50)
    again = store.add(tokens(range(40), range(200, 210)))
    assert again is second
    assert not again.is_shared  # asked twice, but by nobody else
    assert store.add(tokens(range(20))).path()[0].prompts == 3
    assert store.add(np.empty(0, np.int32)).path() == []


def test_long_new_text_is_kept_before_anybody_shares_it() -> None:
    store = PrefixStore(PLENTY)
    assert store.add(tokens(range(hf_prefix.LONG_TOKENS))).is_worth_keeping
    assert not store.add(tokens(range(1000, 999 + hf_prefix.LONG_TOKENS))).is_worth_keeping
    store.add(tokens(range(2000, 3000)))
    late = store.add(tokens(range(2000, 3000), range(5000, 5900)))
    assert not late.is_worth_keeping  # long, but most of the prompt is known


def test_held_keys_and_values_are_split_with_their_tokens() -> None:
    store = PrefixStore(PLENTY)
    first = store.add(tokens(range(40), range(100, 105)))
    hold(store, first)
    before = store.held_bytes
    second = store.add(tokens(range(30), range(300, 310)))
    assert held_tokens(first) == [*range(40), *range(100, 105)]
    assert held_tokens(second) == list(range(30))
    assert store.held_bytes == before == 45 * BYTES_PER_TOKEN
    part = first.path()[0].kv
    assert part is not None
    assert part[0][0].untyped_storage().nbytes() == 30 * 4, "a view would keep the memory of the rest"


def test_the_least_recently_used_goes_first_and_what_is_in_use_stays() -> None:
    store = PrefixStore(100 * BYTES_PER_TOKEN)
    ends = [store.add(tokens(range(i, i + 40))) for i in (0, 1000, 2000, 3000)]
    for end in ends[:2]:
        hold(store, end)
        store.touch(end.path())
        store.tick()
    store.touch(ends[0].path())
    store.tick()
    hold(store, ends[2])
    assert [bool(end.kv) for end in ends] == [True, False, True, False]
    store.touch([*ends[0].path(), *ends[2].path()])
    assert not store.make_room(40 * BYTES_PER_TOKEN)
    assert store.held_bytes == 80 * BYTES_PER_TOKEN
    store.tick()
    assert store.make_room(40 * BYTES_PER_TOKEN)
    store.clear()
    assert store.held_bytes == 0
    assert held_tokens(ends[0]) == []


def test_what_nobody_shared_yet_goes_before_what_somebody_did() -> None:
    store = PrefixStore(120 * BYTES_PER_TOKEN)
    shared = store.add(tokens(range(40), range(100, 101))).path()[0]
    shared = store.add(tokens(range(40), range(200, 201))).path()[0]
    hold(store, shared)
    store.tick()
    single = store.add(tokens(range(5000, 5060)))
    hold(store, single)
    store.touch([single])
    store.tick()
    assert store.make_room(40 * BYTES_PER_TOKEN)
    assert shared.kv is not None
    assert single.kv is None


def test_a_parent_is_never_let_go_before_its_children() -> None:
    store = PrefixStore(60 * BYTES_PER_TOKEN)
    child = store.add(tokens(range(30), range(100, 120)))
    store.add(tokens(range(30), range(200, 220)))
    hold(store, child)
    store.tick()
    assert store.make_room(20 * BYTES_PER_TOKEN)
    assert child.kv is None
    assert child.path()[0].kv is not None
    assert store.make_room(40 * BYTES_PER_TOKEN)
    assert store.held_bytes == 0


def test_old_prompts_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_prefix, "REMEMBERED_PROMPTS", 2)
    store = PrefixStore(PLENTY)
    for i in range(5):
        store.add(tokens(range(20), range(100 * i + 100, 100 * i + 110)))
    root = store._root
    (shared,) = root.children.values()
    assert len(shared.children) == 5
    store.forget()
    assert sorted(shared.children) == [400, 500]
    held = store.add(tokens(range(9000, 9050)))
    hold(store, held)
    for i in range(2):
        store.add(tokens(range(7000 + i, 7020 + i)))
    store.forget()
    assert held_tokens(held) == list(range(9000, 9050))  # while it is held
    store.clear()
    assert sorted(root.children) == [7000, 7001]


def test_bytes_are_those_of_the_tensors() -> None:
    assert size_bytes([(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 5, dtype=torch.bfloat16))]) == 24 * 4 + 30 * 2
