"""Training loop, optimisation step, optimisers, resumable state, cost, probes."""
