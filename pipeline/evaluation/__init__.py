"""Inference, metrics and figures of the evaluate stage."""
