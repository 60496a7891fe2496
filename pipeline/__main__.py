"""Makes `python -m pipeline` work, or says what keeps it from working."""

import sys

try:
    from pipeline.cli import main
except ModuleNotFoundError as error:
    sys.exit(f"error: {sys.executable} lacks {error.name}; run 'make install', then 'source .venv/bin/activate'")

main()
