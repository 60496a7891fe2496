"""Processed dataset, augmentation and batches."""
