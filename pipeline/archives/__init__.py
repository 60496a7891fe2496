"""Archives in CIFAR-10's binary layout: fetch, generate, verify, read."""
