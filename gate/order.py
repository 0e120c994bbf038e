"""The seeds of a run and the order in which a candidate meets the items (docs/statistics.md, sample and order).

Pure: hashes only.  Workers ask in this order and judges read in it, so neither depends on the other's clock or batches.
"""

from __future__ import annotations

import hashlib

BLOCK_ITEMS = 32
"""Items per block: evidence is looked at at the ends of blocks of this size."""


def sample_seed(policy_seed: int, baseline_digest: str) -> str:
    """What the sample of every source is drawn by: the same for every candidate of this baseline."""
    return hashlib.sha256(f"{policy_seed}\n{baseline_digest}".encode()).hexdigest()


def order_seed(sample: str, candidate_digest: str) -> str:
    """What orders the sampled items for one candidate: made of its tensors, so that nobody tunes to a prefix."""
    return hashlib.sha256(f"{sample}\n{candidate_digest}".encode()).hexdigest()


def place(seed: str, item_id: str) -> str:
    """Sort key of an item in the order of `seed`.

    The prompt hash (the last part of the id, up to its `#occurrence`) does not count: an item whose prompt cannot be
    rendered has its place too.
    """
    document, _, rest = item_id.rpartition("/")
    occurrence = rest.partition("#")[2]
    return hashlib.sha256(f"{seed}\0{document}\0{occurrence}".encode("utf-8", "surrogatepass")).hexdigest()
