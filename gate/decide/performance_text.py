"""What stands out in the figures of a profile stage: a sentence each, worst first.

Pure wording on numbers that are given.  Decides nothing: a remark explains, a rule judges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from gate import hardware
from gate.decide.performance_values import BLOCK, Values
from gate.policy import Policy
from gate.records import CheckpointRef, Fit, ItemFailure, Memory, Role, Speeds

FEWER_BYTES = 0.8
"""A step that reads at most this share of the baseline's bytes should show in a figure that memory bounds."""

AS_FAST = 0.05
"""Speeds that differ by less are alike to a reader: it is the smallest change that timing rules are planned for."""

LITTLE_OF_THE_LIMIT = 1 / 3
"""Below this share of the bandwidth, reading weights and cache is not what takes the time."""

BEYOND_THE_LIMIT = 1.1
"""Above this the model was read faster than memory can be copied, by more than either measurement is off."""

UNPACKED = 1.5
"""Weights that take so many times their size on disk are no longer held in the format that they were stored in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """All that the remarks speak of.

    `disturbed` has a clause for each block that stayed disturbed; `crowded` counts those whose threads waited for each
    other.
    """

    device: str
    roles: Mapping[Role, Values]
    refs: Mapping[Role, CheckpointRef]
    speeds: Sequence[Speeds]
    memory: Sequence[Memory]
    fits: Sequence[Fit]
    confirmed: Mapping[str, bool]
    disturbed: Sequence[str]
    crowded: int
    policy: Policy


def remarks(seen: Seen) -> tuple[str, ...]:
    """Worst first; what limits all the figures comes last."""
    groups = (
        *(_lost, _saturated, _disturbed, _crowded, _confirmed, _unpacked),
        *(_decoding, _little, _fits, _room, _beyond, _missing),
    )
    return tuple(dict.fromkeys(said for group in groups for said in group(seen)))


def named(group: str) -> str:
    """`batch=8,1024+64` → `batch 8 (1024+64 tokens)`, `load=open:4` → `served load open:4`."""
    if group.startswith("load="):
        return f"served load {group.removeprefix('load=')}"
    size, _, lengths = group.removeprefix("batch=").partition(",")
    return f"batch {size}" + (f" ({lengths} tokens)" if lengths else "")


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _lost(seen: Seen) -> Iterator[str]:
    """What could not be measured, once for all shapes, loads and roles that it happened to alike."""
    lost: dict[tuple[str, Role, str], list[ItemFailure]] = {}
    for role, values in seen.roles.items():
        for failure in values.measurement.failures:
            if failure.item_id.startswith(BLOCK):
                group = failure.item_id.split("/", 2)[-1]
                lost.setdefault((group, role, failure.kind), []).append(failure)
    alike: dict[tuple[str, int, bool], dict[str, list[Role]]] = {}
    for (group, role, kind), failures in lost.items():
        message = failures[0].message.rstrip(".")
        why = "ran out of memory" if kind == "out_of_memory" else f"could not be measured ({message})"
        measured = any(s.role is role and s.group == group for s in seen.speeds)
        alike.setdefault((why, len(failures), measured), {}).setdefault(group, []).append(role)
    for (why, count, measured), groups in alike.items():
        for who in dict.fromkeys(tuple(roles) for roles in groups.values()):
            where = _listed([named(group) for group, roles in groups.items() if tuple(roles) == who])
            blocks = "1 block" if count == 1 else f"{count} blocks"
            then = "its figures there are of the other blocks" if measured else "there are no figures for it"
            subject = f"The {who[0]}" if len(who) == 1 else "Both checkpoints"
            yield f"{subject} {why} at {where} in {blocks}: {then}."


def _saturated(seen: Seen) -> Iterator[str]:
    kept_up = {s.group for s in seen.speeds if s.role is Role.BASELINE and s.saturated is False}
    for one in seen.speeds:
        if one.saturated:
            yield (
                f"{_capital(named(one.group))} was saturated for the {one.role}: requests queued up faster than they "
                f"were answered, so latencies under it are not given and {one.requests_per_second:.3g} requests a "
                "second is all it can do."
            )
            if one.role is Role.CANDIDATE and one.group in kept_up:
                yield (
                    f"The baseline keeps up with {named(one.group)} and the candidate does not: it has lost capacity, "
                    "which rules on goodput and throughput judge."
                )


def _disturbed(seen: Seen) -> Iterator[str]:
    counted = Counter(seen.disturbed)
    if counted:
        why = "; ".join(f"{clause} ({n}×)" if n > 1 else clause for clause, n in counted.most_common(3))
        yield f"Blocks that stayed disturbed: {why}. Their times may not be those of the checkpoints."


def _crowded(seen: Seen) -> Iterator[str]:
    if seen.crowded:
        blocks = "1 block" if seen.crowded == 1 else f"{seen.crowded} blocks"
        yield (
            f"In {blocks} the timed threads waited for CPUs that no other process used: set QUANTGATE_THREADS to the "
            "CPUs that this job has."
        )


def _confirmed(seen: Seen) -> Iterator[str]:
    for rule_id, confirmed in seen.confirmed.items():
        found = "found the same" if confirmed else "did not find it again, so it is no regression"
        yield f"{rule_id} was red on the first measurement, and a second, fresh one {found}."


def _unpacked(seen: Seen) -> Iterator[str]:
    """Where quantized weights are held in another format than they were stored in."""
    ref, values = seen.refs.get(Role.CANDIDATE), seen.roles.get(Role.CANDIDATE)
    held = None if values is None else values.largest("weights_bytes")
    if ref is None or held is None or ref.quantization is None or not ref.weight_bytes:
        return
    if held >= UNPACKED * ref.weight_bytes:
        baseline = seen.refs.get(Role.BASELINE, ref)
        bits = f" ({8 * held / baseline.n_parameters:.0f} bits a parameter)" if baseline.n_parameters else ""
        yield (
            f"The kernel does not use the candidate's quantized format: its weights take {_size(ref.weight_bytes)} on "
            f"disk and {_size(held)}{bits} once loaded, so they were unpacked, at least in part."
        )


def _shapes(seen: Seen) -> Iterator[tuple[Speeds, Speeds]]:
    """(baseline, candidate) of each shape that both ran."""
    by_group = {(s.role, s.group): s for s in seen.speeds if s.batch_size is not None}
    for (role, group), candidate in by_group.items():
        baseline = by_group.get((Role.BASELINE, group))
        if role is Role.CANDIDATE and baseline is not None:
            yield baseline, candidate


def _decoding(seen: Seen) -> Iterator[str]:
    """Where decoding gains less than the bytes it saves would explain."""
    read = {role: values.middle("weights_read_bytes") for role, values in seen.roles.items()}
    baseline_read, candidate_read = read.get(Role.BASELINE), read.get(Role.CANDIDATE)
    if not baseline_read or candidate_read is None or candidate_read > FEWER_BYTES * baseline_read:
        return
    bytes_ratio = f"{candidate_read / baseline_read:.2f}×"
    slower: dict[str, str] = {}
    alike = []
    for baseline, candidate in _shapes(seen):
        if baseline.decode_tokens_per_second is None or candidate.decode_tokens_per_second is None:
            continue
        ratio = candidate.decode_tokens_per_second / baseline.decode_tokens_per_second
        if ratio < 1 / (1 + AS_FAST):
            at = named(candidate.group)
            slower[at] = f"{ratio:.2f}× as fast as the baseline at {at}"
        elif ratio < 1 + AS_FAST:
            alike.append(named(candidate.group))
    if slower:
        yield (
            f"The candidate decodes {_listed(list(slower.values()))}, although it reads {bytes_ratio} the bytes of "
            f"weights: {_why_slower(seen, slower)}."
        )
    if alike:
        yield (
            f"At {_listed(alike)} the candidate decodes as fast as the baseline, although it reads {bytes_ratio} the "
            "bytes of weights: there, memory is not what decoding waits for."
        )


def _why_slower(seen: Seen, groups: Iterable[str]) -> str:
    """Dequantization is blamed where the device must do it and the time is not that of launching kernels."""
    if seen.disturbed:
        return "blocks stayed disturbed, so no cause is named"
    dequantized = any(fit.role is Role.CANDIDATE and fit.runs == hardware.DEQUANTIZED for fit in seen.fits)
    if dequantized and not _shares_below(seen).keys() & set(groups):
        return "it is bound by dequantization, not by memory"
    return "its kernels cost more than the fewer bytes save"


def _shares_below(seen: Seen) -> dict[str, float]:
    """Shapes at which both checkpoints use little of the bandwidth, with the larger share of the two."""
    shares = {
        named(c.group): max(b.decode_limit, c.decode_limit)
        for b, c in _shapes(seen)
        if b.decode_limit is not None and c.decode_limit is not None
    }
    return {group: share for group, share in shares.items() if share < LITTLE_OF_THE_LIMIT}


def _little(seen: Seen) -> Iterator[str]:
    little = _shares_below(seen)
    if little:
        yield (
            f"Decoding uses at most {100 * max(little.values()):.0f}% of the memory bandwidth at "
            f"{_listed(list(little))}, baseline and candidate alike: other work than reading weights takes most of the "
            "time, so fewer bits can gain little."
        )


def _fits(seen: Seen) -> Iterator[str]:
    for fit in seen.fits:
        if fit.runs == "dequantized":
            yield f"{fit.format}, the format of the {fit.role}, is not what this device computes in: {fit.why}."


def _room(seen: Seen) -> Iterator[str]:
    for one in seen.memory:
        if one.max_batch_at_context is not None and one.max_batch_at_context < one.batch_size:
            budget = "the budget" if one.budget_bytes is None else _size(one.budget_bytes)
            yield (
                f"The {one.role} fits {one.max_batch_at_context} sequences of {one.context_tokens:,} tokens into "
                f"{budget}, fewer than the largest batch of {one.batch_size}."
            )


def _beyond(seen: Seen) -> Iterator[str]:
    beyond = [s for s in seen.speeds if (s.decode_limit or 0) > BEYOND_THE_LIMIT]
    if beyond:
        most = max(s.decode_limit or 0 for s in beyond)
        yield (
            f"Decoding reads up to {most:.1f}× as many bytes a second as memory can be copied: the model stays in the "
            "processor's caches, and the bandwidth does not limit it."
        )


def _missing(seen: Seen) -> Iterator[str]:
    """What is not there, and which machine it is all about."""
    if seen.device.startswith("cuda"):
        if not any("vram_process" in one.peaks for one in seen.memory):
            yield (
                "NVML cannot see the memory of these processes (it is missing, or a container hides them): the peaks "
                "are the allocator's own, without the CUDA context."
            )
        if seen.speeds and all(s.joules_per_output_token is None for s in seen.speeds):
            notes = [note for values in seen.roles.values() for note in values.measurement.notes]
            asked = not any(note.startswith("NVML could not be asked") for note in notes)
            why = "NVML counts no energy on this device" if asked else "NVML could not be asked"
            yield f"{why}: there are no joules per token."
    if seen.speeds and seen.policy.price_per_hour is None:
        yield "The policy gives no price_per_hour, so there is no cost."
    if seen.device.startswith("cpu"):
        yield "These are figures of a CPU: they say nothing of how the checkpoints run on a GPU."


def _size(size_bytes: float) -> str:
    for unit, over in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size_bytes >= over:
            return f"{size_bytes / over:.3g} {unit}"
    return f"{size_bytes:.0f} B"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
