"""What the machine is like while something is timed on it: its CPUs, its NVIDIA GPUs, who else uses them.

Reads only, and changes no setting.  Nothing here raises: what cannot be found out is left out.
"""
