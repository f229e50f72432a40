"""One module for each Stripe noun: its shape, its rules and its routes."""
