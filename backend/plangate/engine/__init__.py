"""The entitlement engine: pure functions over immutable values; no I/O, no clock, no framework."""
