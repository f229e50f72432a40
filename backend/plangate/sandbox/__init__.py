"""A stateful stand-in for Stripe, so that everything can be tried and tested offline without flattering us."""
