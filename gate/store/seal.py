"""Documents that show when they were changed: canonical JSON with a checksum, signed where there is a key.

Reads and writes no files; keeps no key and shows none.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gate.errors import UsageError

MIN_KEY_CHARACTERS = 16


class Signature(StrEnum):
    """What can be said of who wrote a document."""

    NONE = "unsigned"
    OURS = "signed"
    OTHER = "wrong key"
    UNKNOWN = "no key here"
    """It is signed, and there is no key to check it with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sealed:
    """A document whose checksum is right."""

    document: dict[str, Any]
    signature: Signature

    def unusable(self, key: bytes | None) -> str | None:
        """Why nobody who holds `key` may use it; None if they may.  Without a key, every whole document will do."""
        if key is None or self.signature is Signature.OURS:
            return None
        found = "is not signed" if self.signature is Signature.NONE else "is signed with another key, or was changed"
        return f"{found}, and QUANTGATE_STORE_KEY is set"


def signing_key(text: str | None) -> bytes | None:
    """The key as bytes, None where there is none.  Raises UsageError for one that could be guessed."""
    written = (text or "").strip()
    if not written:
        return None
    if len(written) < MIN_KEY_CHARACTERS:
        raise UsageError(
            f"found {len(written)} characters in QUANTGATE_STORE_KEY, expected at least {MIN_KEY_CHARACTERS}: make a "
            "key with `openssl rand -hex 32`"
        )
    return written.encode()


def digest(value: Any) -> str:
    """Hex SHA-256 of plain data."""
    return hashlib.sha256(_canonical(value)).hexdigest()


def seal(document: Mapping[str, Any], key: bytes | None) -> bytes:
    """The document as it is stored: with the SHA-256 of itself and, where there is a key, its HMAC-SHA256."""
    sealed = {**document, "checksum": digest(document)}
    if key is not None:
        sealed["signature"] = _hmac(document, key)
    return _canonical(sealed)


def unseal(raw: bytes, key: bytes | None) -> Sealed:
    """Read a stored document.

    Raises:
        ValueError: it is not byte for byte what was sealed.
    """
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as problem:
        raise ValueError(f"is not readable ({problem})") from problem
    if not isinstance(found, dict) or _canonical(found) != raw:  # also what JSON would forgive was changed by somebody
        raise ValueError("is not as it was written")
    checksum, signature = found.pop("checksum", None), found.pop("signature", None)
    if checksum != digest(found):
        raise ValueError("does not match its checksum")
    return Sealed(document=found, signature=_signature(found, signature, key))


def _signature(document: Mapping[str, Any], signature: Any, key: bytes | None) -> Signature:
    if signature is None:
        return Signature.NONE
    if key is None:
        return Signature.UNKNOWN
    same = isinstance(signature, str) and hmac.compare_digest(signature.encode(), _hmac(document, key).encode())
    return Signature.OURS if same else Signature.OTHER


def _hmac(document: Mapping[str, Any], key: bytes) -> str:
    return hmac.new(key, _canonical(document), hashlib.sha256).hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode() + b"\n"
