"""The inspect stage: layer activity, learned features and errors of a trained network."""
