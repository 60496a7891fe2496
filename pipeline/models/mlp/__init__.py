"""Fully connected network."""
