"""How a device's rates follow from what was done and how long it took."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, repeat

import pytest
import torch

from gate.backends import rates

CPU = torch.device("cpu")
MIB = 2**20


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets how long the pieces of work will be said to have taken; the last goes on for ever."""

    def tell(*seconds: float) -> None:
        times = chain(seconds, repeat(seconds[-1]))

        class Told:
            def __init__(self, device: torch.device) -> None:
                assert device == CPU

            def add(self) -> None: ...

            def steps_seconds(self) -> tuple[float]:
                return (next(times),)

        monkeypatch.setattr(rates, "Marks", Told)

    return tell


def test_the_best_copy_counts_as_read_and_written(monkeypatch: pytest.MonkeyPatch, clock: Callable[..., None]) -> None:
    monkeypatch.setitem(rates._BUFFER_BYTES, "cpu", 2 * MIB)
    clock(0.5, 0.25, 0.4)
    assert rates._copy_bytes_per_second(CPU) == 2 * 2 * MIB / 0.25


def test_matrices_grow_until_they_take_long_enough(clock: Callable[..., None]) -> None:
    clock(*[0.001] * 3, *[0.03] * 3, 0.05, 0.04)  # of 256, of 512, and of 512 for longer
    assert rates._matmul_flops_per_second(CPU, torch.float32) == 2 * 512**3 / 0.04


def test_short_memory_bounds_what_is_taken(monkeypatch: pytest.MonkeyPatch, clock: Callable[..., None]) -> None:
    monkeypatch.setattr(rates, "free_bytes", lambda device: 16 * MIB)
    clock(0.001)
    assert rates._copy_bytes_per_second(CPU) == 2 * 2 * MIB / 0.001
    assert rates._matmul_flops_per_second(CPU, torch.float32) == 2 * 256**3 / 0.001


def test_a_device_that_is_never_quick_is_not_waited_for_long(clock: Callable[..., None]) -> None:
    clock(5.0)
    ran: list[int] = []
    assert rates._best_seconds(CPU, lambda: ran.append(1)) == 5.0
    assert len(ran) == 1 + 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_are_measured(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    monkeypatch.setattr(rates, "_SECONDS", 0.0)
    monkeypatch.setitem(rates._BUFFER_BYTES, "cpu", 4 * MIB)
    monkeypatch.setitem(rates._LARGEST_SIDE, "cpu", 256)
    found = rates.measured(CPU, dtype)
    assert found.copy_bytes_per_second > 1e6
    assert found.matmul_flops_per_second > 1e6


@pytest.mark.parametrize(
    ("dtype", "multiplied"),
    [
        (torch.float32, torch.float32),
        (torch.float16, torch.float16),
        (torch.float8_e4m3fn, torch.bfloat16),
        (torch.uint8, torch.bfloat16),
        (torch.int8, torch.bfloat16),
    ],
)
def test_what_is_only_stored_is_multiplied_in_another_dtype(dtype: torch.dtype, multiplied: torch.dtype) -> None:
    assert rates._multiplied(CPU, dtype) == multiplied


def test_a_dtype_that_is_only_stored_does_not_end_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    multiply = torch.matmul

    def on_a_gpu(left: torch.Tensor, right: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        if left.dtype == torch.float8_e4m3fn:
            raise NotImplementedError('"addmm_cuda" not implemented for Float8_e4m3fn')
        return multiply(left, right, out=out)

    monkeypatch.setattr(torch, "matmul", on_a_gpu)
    monkeypatch.setattr(rates, "_SECONDS", 0.0)
    monkeypatch.setitem(rates._BUFFER_BYTES, "cpu", 4 * MIB)
    monkeypatch.setitem(rates._LARGEST_SIDE, "cpu", 256)
    assert rates.measured(CPU, torch.float8_e4m3fn).matmul_flops_per_second > 1e6


def test_a_device_without_bfloat16_multiplies_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object, **named: object) -> None:
        raise NotImplementedError("not implemented for this dtype")

    monkeypatch.setattr(torch, "matmul", refused)
    assert rates._multiplied(CPU, torch.bfloat16) == torch.float32


def test_short_memory_is_not_taken_for_a_dtype_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*arguments: object, **named: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "matmul", short)
    with pytest.raises(torch.OutOfMemoryError):
        rates._multiplied(CPU, torch.bfloat16)
