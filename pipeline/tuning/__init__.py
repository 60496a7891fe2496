"""`python -m pipeline tune`: a search for parameters, each trial of which is a DVC experiment."""
