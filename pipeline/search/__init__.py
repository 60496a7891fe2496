"""Start experiments, watch them, search parameters with Optuna."""
