"""Analyses of the studies: NAME.py holds the `ANALYSIS` of studies/NAME.yaml, with "_" for "-"."""

import importlib
from pathlib import Path

from pipeline.errors import StudyError
from pipeline.studies.analysis import Analysis


def find(name: str) -> Analysis:
    """Return the analysis of a study.

    Raises:
        StudyError: there is none.
    """
    module = name.replace("-", "_")
    if not (Path(__file__).parent / f"{module}.py").exists():
        raise StudyError(f"studies/{name}.yaml: no analysis, expected one in pipeline/studies/analyses/{module}.py")
    analysis: Analysis = importlib.import_module(f"{__name__}.{module}").ANALYSIS
    return analysis
