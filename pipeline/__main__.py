"""Makes `python -m pipeline` work."""

from pipeline.cli import main

main()
