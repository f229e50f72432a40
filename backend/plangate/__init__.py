"""Plangate: entitlements beside your own Stripe account."""

__version__ = "0.1.0"
