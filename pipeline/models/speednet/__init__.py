"""Network of the CIFAR-10 speed runs."""
