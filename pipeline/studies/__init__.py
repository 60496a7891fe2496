"""`python -m pipeline study`: claims about CNNs, each tested by the experiments of studies/NAME.yaml."""
