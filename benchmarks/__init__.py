"""Side-by-side measurements: each module prints ratios taken in one run and can write them with `--json FILE`.

They need torch, numpy and pydantic, and what they say they measure; DVC and MLflow only where those are measured.
"""
