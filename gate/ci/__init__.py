"""Inside a CI job: what is to be gated, what judges it, what a pull request does to its own bar, what the job says.

Judges through `replay` only; everything that a pull request or an artifact brings is data, and hostile text.
"""
