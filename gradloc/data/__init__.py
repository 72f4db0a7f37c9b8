"""Documents, probes and the tokens that stand for them."""
