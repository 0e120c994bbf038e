"""A sandbox for programs that a model wrote: no network, no privileges, little of everything, one scratch folder.

Runs programs and says how they ended; knows nothing of tasks, models or scores.
"""

from gate.sandbox.limits import LIMITS, Limits
from gate.sandbox.proof import find
from gate.sandbox.run import Ended, Sandbox, SandboxError

__all__ = ["LIMITS", "Ended", "Limits", "Sandbox", "SandboxError", "find"]
