"""Device, precision, GPU lock."""
