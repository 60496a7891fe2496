"""`python -m pipeline explain`: why a network gave this answer for this image."""
