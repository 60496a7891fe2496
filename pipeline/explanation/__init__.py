"""`python -m pipeline explain`: explain one prediction of a network."""
