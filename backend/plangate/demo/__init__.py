"""The demo: the Stripe sandbox, Plangate on an SQLite file and a customer's site, in one process and offline."""

from plangate.demo.running import DemoAddresses, run_demo

__all__ = ["DemoAddresses", "run_demo"]
