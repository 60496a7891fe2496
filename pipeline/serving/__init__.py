"""Predictions of exported networks for image files."""
