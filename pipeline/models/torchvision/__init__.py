"""Classification models of torchvision."""
