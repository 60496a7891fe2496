"""Device choice and GPU locks."""
