"""Hypothesis runs the same examples every time here: a law that fails does so for everybody."""

from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=150)
settings.load_profile("ci")
