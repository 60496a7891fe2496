"""Results of commits and experiments: read, compare, rank, report, verify. Imports no torch."""
