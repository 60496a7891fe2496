"""Side-by-side measurements: each module prints ratios taken in one run and can write them with `--json FILE`.

They need what the project needs, and what they compare with; DVC and MLflow only where those are measured.
"""
