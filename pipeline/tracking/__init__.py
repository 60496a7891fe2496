"""MLflow as a view of what git and DVC hold: the only package that imports mlflow."""
