"""The boundary to Stripe: the only place, beside the sandbox's specification, that imports `stripe`."""
