"""The commands of `gate` that have a module of their own: arguments → calls → exit code.

`cli` registers them; nothing here is imported by what it calls.
"""
