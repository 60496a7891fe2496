"""What the stages share: the library behind the CIFAR-10 pipeline."""
