"""The baseline store: what a baseline scored, by content key, in a folder or behind a URL (docs/store.md).

Judges nothing.
"""

from gate.store.bucket import Unavailable
from gate.store.key import CALIBRATION_REQUIRED, REQUIRED, stage_digest
from gate.store.manifest import ARTIFACTS, DATA, Entry
from gate.store.opening import default_root, existing_store, open_store, ready_store
from gate.store.seal import Signature
from gate.store.slot import Slot
from gate.store.store import Store, StoredMeasurement

__all__ = [
    "ARTIFACTS",
    "CALIBRATION_REQUIRED",
    "DATA",
    "REQUIRED",
    "Entry",
    "Signature",
    "Slot",
    "Store",
    "StoredMeasurement",
    "Unavailable",
    "default_root",
    "existing_store",
    "open_store",
    "ready_store",
    "stage_digest",
]
