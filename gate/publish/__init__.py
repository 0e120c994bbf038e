"""Publishing: a finished verdict on GitHub, as a check, a commit status and a comment.

Never computes a verdict and never changes one; treats every name, answer and artifact as hostile text.
"""
