"""Architectures, one folder each; `common` holds what they share."""
