"""The errors a user can cause: stages print them as one line and exit with code 1."""


class PipelineError(Exception):
    """Something a user can mend; the message says what, where, what was expected, what was found, what to do."""


class ParamsError(PipelineError):
    """params.yaml (or one combination of its values) cannot work; the message has one line per mistake."""


class ArchiveError(PipelineError):
    """The dataset's archive is missing, unreachable, damaged or of another layout."""


class DatasetError(PipelineError):
    """The processed arrays are missing, damaged or don't fit the parameters."""


class CheckpointError(PipelineError):
    """Saved weights or training state are missing, damaged or belong to another model."""


class TrainingError(PipelineError):
    """Training cannot go on, for instance because the loss is no longer a finite number."""


class ExportError(PipelineError):
    """The exported graph does not do what the trained model does, so nothing was written."""


class TrackingError(PipelineError):
    """The MLflow store cannot be reached or does not accept the run."""


class TuningError(PipelineError):
    """A search for parameters cannot begin or go on."""
