"""`python -m pipeline study`: claims about CNNs, each tested by experiments; studies/NAME.yaml says which."""
