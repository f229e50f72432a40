"""Measures speed beside its floor, in the same run; `make bench` prints what docs/performance.md quotes."""
