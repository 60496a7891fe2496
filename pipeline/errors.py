"""Errors that a user can cause: commands print their message and exit with code 1."""


class PipelineError(Exception):
    """An error that the user can fix; the message says what, where, expected, found and what to do."""


class ParamsError(PipelineError):
    """params.yaml has invalid values or combinations of values; the message has one line per mistake."""


class ArchiveError(PipelineError):
    """The dataset's archive is missing, unreachable, damaged or of another layout."""


class DatasetError(PipelineError):
    """The processed arrays are missing, damaged or don't match the parameters."""


class CheckpointError(PipelineError):
    """Saved weights or training state are missing, damaged or belong to another model."""


class TrainingError(PipelineError):
    """Training cannot continue, for instance because the loss is not finite."""


class ExportError(PipelineError):
    """The exported graph differs from the trained model; nothing was written."""


class ResultsError(PipelineError):
    """A revision or the workspace has no results, or inconsistent ones."""


class TrackingError(PipelineError):
    """The MLflow store cannot be reached or rejects a request."""


class PromotionError(PipelineError):
    """A model must not be promoted."""


class PredictionError(PipelineError):
    """The model for predictions is missing, damaged or of another kind."""


class ExplanationError(PipelineError):
    """The image does not exist, or the explanation does not support the network."""


class PresetError(PipelineError):
    """The preset does not exist, or it does not match params.yaml."""


class TuningError(PipelineError):
    """A hyperparameter search cannot start or continue."""


class InspectionError(PipelineError):
    """A trained network lacks the layers that an inspection needs."""


class StudyError(PipelineError):
    """A study does not exist, has mistakes, or cannot start or continue."""
