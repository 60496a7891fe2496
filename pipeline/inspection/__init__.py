"""A look inside a trained network: what it detects, what its answers rest on, where it errs, what it can stand."""
