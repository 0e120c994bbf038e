"""Simulations and measurements behind the numbers in the docs; no part of the package."""
