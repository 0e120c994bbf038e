"""What a run leaves behind: run.json, observations as Parquet, and files that are never half-written.

Importing this imports neither pyarrow nor pydantic: both wait until they are needed.
"""

from gate.artifact.atomic import sync_folder, write_atomic
from gate.artifact.observations import read_observations, write_observations
from gate.artifact.run_json import dumps_record, loads_record, schema

__all__ = [
    "dumps_record",
    "loads_record",
    "read_observations",
    "schema",
    "sync_folder",
    "write_atomic",
    "write_observations",
]
