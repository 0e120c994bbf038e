"""What goes wrong on the way to the Hugging Face Hub, whichever HTTP library is underneath.

Downloads nothing and imports its client when asked only.
"""

from __future__ import annotations

from typing import cast


def download_errors(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What a download raises when the network, the name or the permission is missing; and `more`."""
    from huggingface_hub.errors import HfHubHTTPError

    # the bases of its error are those of the HTTP library that it uses
    return cast("tuple[type[Exception], ...]", (OSError, *HfHubHTTPError.__bases__, *more))


def reason(error: Exception) -> str:
    """The error in one line: its class and what it says."""
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
