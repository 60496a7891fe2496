"""params.yaml as frozen pydantic models; presets. Imports neither torch nor mlflow."""
