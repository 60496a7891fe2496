"""What every architecture shares: building and saving networks, layers, precision, measures of activations."""
