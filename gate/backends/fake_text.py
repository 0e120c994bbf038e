"""A language model over bytes in which every probability is a hash of the last three tokens.

Pure numpy.  The same text gets the same probabilities whatever window it stands in, three tokens after its start.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from gate.backends.fake_settings import FakeSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

BOS, EOS, PAD, FIRST_BYTE = 0, 1, 2, 3
VOCABULARY = FIRST_BYTE + 256

_LEAST_NLL_NATS = 0.005
_RIVAL_SPREAD_NATS = 4.0
"""How unevenly what the true token leaves is spread over the other tokens."""

_RIVAL_NOISE = 0.25
"""How much each unit of `nll_noise` disturbs the order of the other tokens."""


def hashed_unit(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", errors="surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64's finaliser: a well-mixed hash of each value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _unit(values: NDArray[np.uint64]) -> NDArray[np.float64]:
    return (_mixed(values) >> np.uint64(11)).astype(np.float64) / 2.0**53


class Distribution:
    """Next-token probabilities.  It knows the true next token, which gets exp(−nll); the rest share what is left."""

    def __init__(self, settings: FakeSettings) -> None:
        self._settings = settings
        self._seed = np.uint64(int(hashed_unit("seed", settings.seed) * 2**53))

    def nll_nats(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """NLL of every token but the first, shape [len(tokens) − 1]."""
        s = self._settings
        where = _contexts(tokens) * np.uint64(VOCABULARY) + tokens[1:].astype(np.uint64)
        shared = 2 * _unit(where) - 1
        own = 2 * _unit(where ^ self._seed) - 1
        nll: NDArray[np.float64] = s.nll_nats * (1 + s.nll_spread * shared) + s.nll_shift + s.nll_noise * own
        return np.maximum(nll, _LEAST_NLL_NATS)

    def logprobs(self, tokens: NDArray[np.int64], n_scored: int) -> NDArray[np.float64]:
        """Log-probabilities of all tokens at the last `n_scored` positions, shape [n_scored, VOCABULARY]."""
        nll = self.nll_nats(tokens)[-n_scored:]
        contexts: NDArray[np.uint64] = _contexts(tokens)[-n_scored:, None] * np.uint64(VOCABULARY)
        where: NDArray[np.uint64] = contexts + np.arange(VOCABULARY).astype(np.uint64)
        rivals = _RIVAL_SPREAD_NATS * _unit(where + np.uint64(1 << 40))
        rivals += _RIVAL_NOISE * self._settings.nll_noise * _unit(where ^ self._seed)
        rows = np.arange(n_scored)
        rivals[rows, tokens[-n_scored:]] = -np.inf
        rivals -= np.log(np.exp(rivals).sum(axis=1, keepdims=True))
        rivals += np.log(-np.expm1(-nll))[:, None]
        rivals[rows, tokens[-n_scored:]] = -nll
        return rivals


def _contexts(tokens: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A hash of the three tokens before each position from the second on, shape [len(tokens) − 1]."""
    last = tokens.astype(np.uint64) + np.uint64(1)
    padded = np.concatenate([np.zeros(2, dtype=np.uint64), last])[: len(tokens) + 1]
    before, before_that = padded[1:-1], padded[:-2]
    base = np.uint64(VOCABULARY + 1)
    return _mixed((last[:-1] * base + before) * base + before_that)
