"""The inspect stage: robustness, activity of layers, learned features and errors of a trained network."""
