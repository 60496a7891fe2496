"""The stages, one verb per file; `dvc.yaml` runs each as `python3 -m stages.VERB` from the repository's root.

Importing this package ensures that the interpreter is the project's, also if DVC was started as `.venv/bin/dvc`
without activating the environment, and that the code is that of the workspace in which DVC started the stage. It
reports files that are missing there because git does not know them. It needs only the standard library.
"""

import importlib.util
import os
import subprocess
import sys

_NEEDED = ("pydantic", "torch", "typer")


def _use_project_environment() -> None:
    root = os.environ.get("DVC_ROOT", os.getcwd())
    project_python = os.path.join(root, ".venv", "bin", "python")
    in_environment = sys.prefix != sys.base_prefix or "CONDA_PREFIX" in os.environ
    complete = all(importlib.util.find_spec(name) for name in _NEEDED)
    if complete and (in_environment or not os.path.exists(project_python)):
        return
    already_there = os.path.realpath(sys.prefix) == os.path.realpath(os.path.join(root, ".venv"))
    if os.path.exists(project_python) and not already_there:
        os.execv(project_python, [project_python, *getattr(sys, "orig_argv", ["python3", *sys.argv])[1:]])
    sys.exit(
        "error: %s lacks the packages the stages need (%s); run 'make install', then 'source .venv/bin/activate'"
        % (sys.executable, ", ".join(name for name in _NEEDED if not importlib.util.find_spec(name)))
    )


def _check_workspace() -> None:
    here = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    if os.path.realpath(os.getcwd()) != here:
        sys.exit(
            "error: this workspace is %s, but Python would run the stages of %s; "
            "start them with 'python3 -m' from the repository's root, with PYTHONSAFEPATH unset" % (os.getcwd(), here)
        )


def _report_unknown_files() -> None:
    """Warn once in a workspace that DVC made for --temp or the queue: it has copied only what git knows."""
    root = os.environ.get("DVC_ROOT", os.getcwd())
    reported = os.path.join(".dvc", "tmp", "reported")
    if os.path.realpath(root) == os.path.realpath(os.getcwd()) or os.path.exists(reported):
        return
    command = ["git", "-C", root, "ls-files", "--others", "--exclude-standard", "--", "pipeline", "stages"]
    try:
        listed = subprocess.check_output(command, stderr=subprocess.DEVNULL).decode().splitlines()  # noqa: S603
        with open(reported, "w"):
            pass
    except (OSError, subprocess.CalledProcessError):
        return
    missing = [name for name in listed if not os.path.exists(name)]
    if missing:
        print(
            "warning: git does not know %s; this run does not have them: git add and commit them" % ", ".join(missing),
            file=sys.stderr,
            flush=True,
        )


if sys.argv[0] == "-m":  # started by `python3 -m stages.VERB`, not imported by a test
    _use_project_environment()
    _check_workspace()
    _report_unknown_files()
