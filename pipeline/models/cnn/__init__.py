"""Convolutional network."""
