"""Residual network for CIFAR."""
