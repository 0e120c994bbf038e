"""Finished results: run folders of this gate and sample logs of lm-eval, read back as measurements and judged.

Never runs a model and never mends what it reads: what is missing or does not fit is an error with a sentence.
"""
