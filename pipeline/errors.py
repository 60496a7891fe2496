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


class ResultsError(PipelineError):
    """A revision or workspace carries no results, or such as don't belong together."""


class TrackingError(PipelineError):
    """The MLflow store cannot be reached or does not accept the run."""


class PromotionError(PipelineError):
    """A model is not to take the place of the present one."""


class PredictionError(PipelineError):
    """The model that is to name what is in images is missing, damaged or of another kind."""


class ExplanationError(PipelineError):
    """There is nothing to explain, or this network cannot be explained so."""


class PresetError(PipelineError):
    """There is no preset of that name, or it does not fit params.yaml."""


class TuningError(PipelineError):
    """A search for parameters cannot begin or go on."""


class InspectionError(PipelineError):
    """A trained network does not have what was to be looked at."""


class StudyError(PipelineError):
    """A study does not exist, has mistakes, or cannot begin or go on."""
