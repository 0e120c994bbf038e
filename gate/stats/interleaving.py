"""Whether timing blocks were taken in an order that a slow drift of the machine cannot turn into a difference.

Pure.  Looks at the order only; no estimator can repair a bad one (A A A B B B reaches 63 % false FAIL under drift).

References:
    [1] statistics.md §6: blocks in the order A B B A.
    [2] T. Kalibera, R. Jones, Rigorous benchmarking in reasonable time, ISMM 2013.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence


def balanced(order: Sequence[Hashable]) -> bool:
    """Whether `order`, the role of each block by time, is a row of neighbouring pairs with alternating leads.

    Blocks 1 and 2, 3 and 4, … each hold both roles, and each role leads as many pairs as the other, or one more:
    A B B A, A B B A A B.  Then a constant drift shifts the log ratios of the pairs up and down by the same amount.
    A A B B is not balanced, nor is A B A B, where B always comes later, nor a single pair.
    """
    pairs = list(zip(order[::2], order[1::2], strict=False))
    if len(order) % 2 or len(pairs) < 2 or len(set(order)) != 2:
        return False
    first = order[0]
    led = sum(lead == first for lead, _ in pairs)
    return all(lead != second for lead, second in pairs) and abs(2 * led - len(pairs)) <= 1
