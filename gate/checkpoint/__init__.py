"""Checkpoints on disk: where they are, what they are, and whether all of them is there.

Static: reads files and headers, never loads a model, never imports torch or transformers.
"""

from gate.checkpoint.identity import Inspected, describe, inspect
from gate.checkpoint.reference import ResolvedCheckpoint, fetch, is_local, resolve

__all__ = ["Inspected", "ResolvedCheckpoint", "describe", "fetch", "inspect", "is_local", "resolve"]
