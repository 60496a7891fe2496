"""Processed dataset, augmentation, batches."""
