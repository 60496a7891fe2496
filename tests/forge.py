"""Finished experiments without the hours of training: commits, refs and cache as DVC leaves them, made by hand.

Dozens of real trainings are more than a test can wait for, and their accuracies can't be chosen. The files are those
that the real stages write; tests/test_sync.py asks the same questions of real ones.
"""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML

from pipeline import headline
from pipeline.experiments import dependencies
from pipeline.tracking.publication import MACHINE
from tests.paths import ROOT

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class Forge:
    """A repository under git and DVC whose experiments are made to measure."""

    def __init__(self, folder: Path, images: int = 1000) -> None:
        self.folder = folder
        self.labels = np.arange(images) % len(CLASSES)
        self.made = 0  # results so far: each ends a minute after the one before
        folder.mkdir(parents=True)
        shutil.copytree(ROOT / ".dvc", folder / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
        for name in ("dvc.yaml", "params.yaml", ".gitignore", ".dvcignore"):
            shutil.copyfile(ROOT / name, folder / name)
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.email", "tests@example.org")
        self.git("config", "user.name", "Tests")
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "start")
        self.stages = dependencies.stages(folder)

    def git(self, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=self.folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, **result: Any) -> str:
        """Commit a result on the branch, as `dvc repro` and `git commit` would."""
        self._write(**result)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "Results")
        return self.git("rev-parse", "HEAD")

    def experiment(self, name: str, **result: Any) -> str:
        """Make an experiment of the present commit, as `dvc exp run --temp -n NAME` would."""
        self._write(**result)
        self.git("add", "-A")
        head = self.git("rev-parse", "HEAD")
        sha = self.git("commit-tree", self.git("write-tree"), "-p", head, "-m", name)
        self.git("update-ref", f"refs/exps/{head[:2]}/{head[2:]}/{name}", sha)
        self.git("reset", "-q", "--hard")
        return sha

    @staticmethod
    def _measured(path: str, recorded: dict, runtime: dict, timed: dict) -> dict | list:
        """Return what a metrics file of a stage holds, by its path."""
        if "runtime" in path:
            return [runtime]
        shown, others = headline.split(recorded)
        return timed if path.endswith("time.json") else [others] if "details" in path else shown

    def right(self, wrong: range = range(0)) -> np.ndarray:
        """Return predictions that are right but for the images given."""
        predicted = self.labels.copy()
        chosen = slice(wrong.start, wrong.stop)
        predicted[chosen] = (predicted[chosen] + 1) % len(CLASSES)
        return predicted

    def _write(
        self,
        predicted: np.ndarray,
        params: dict[str, Any] | None = None,
        outputs: dict[str, bytes] | None = None,
        stages: tuple[str, ...] = ("preprocess", "train", "evaluate", "export"),
        **metrics: Any,
    ) -> None:
        fixed = {"train.deterministic": True, "data.dataset": "cifar10"}
        changed = {"train.seed": 0, "model.arch": "cnn", **fixed, **(params or {})}
        self.made = min(self.made + 1, 59)
        accuracy = float((predicted == self.labels).mean())
        recorded: dict[str, dict[str, Any]] = {
            "preprocess": {"data/name": "CIFAR-10"},
            "train": {"val/accuracy": accuracy, "train/epochs": 2, "model/parameters": 1000, "model/macs": 5000},
            "evaluate": {
                f"test/accuracy{end}": accuracy + by for end, by in (("", 0), ("_low", -0.01), ("_high", 0.01))
            },
            "export": {"export/onnx_bytes": 4000},
        }
        runtime = {
            "train": {
                "train/started": "2026-01-01T00:00:00+00:00",
                "train/fingerprint": "f" * 64,
                "train/stage_seconds": 9,
                **dict.fromkeys((f"train/{key}" for key in MACHINE), "x"),
            },
            "evaluate": {"evaluate/ended": f"2026-01-01T00:{self.made:02}:00+00:00"},
            "export": {"export/latency_ms": 0.5},
        }
        timed = {"train/seconds": 9}
        for key, value in metrics.items():
            next(group for group in (*recorded.values(), *runtime.values(), timed) if key in group)[key] = value
        names = zip((CLASSES[label] for label in self.labels), (CLASSES[label] for label in predicted), strict=True)
        lines = [f"{index},{label},{said}" + ",0.1" * 10 for index, (label, said) in enumerate(names)]
        history = f"epoch,lr,val/accuracy,val/loss\n1,0.1,{accuracy / 2},2.0\n2,0.0,{accuracy},1.0\n"
        cached = {
            "results/predictions.csv": "\n".join([f"index,label,predicted,{','.join(CLASSES)}", *lines, ""]).encode(),
            "model/history.csv": history.encode(),
            **(outputs or {}),
        }
        lock: dict[str, Any] = {"schema": "2.0", "stages": {}}
        for name in stages:
            stage = self.stages[name]
            outs = []
            for entry in (*stage["outs"], *stage.get("metrics", ())):
                path = entry if isinstance(entry, str) else next(iter(entry))
                if path.endswith(".json"):
                    content = json.dumps(self._measured(path, recorded[name], runtime.get(name, {}), timed)).encode()
                    (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
                    (self.folder / path).write_bytes(content)
                elif path == "data/processed":
                    content = self.labels.tobytes()
                else:
                    content = cached.get(path) or f"{path} {changed}".encode() + predicted.tobytes()
                if path == "model":
                    weights = {"md5": _md5(content), "relpath": "weights.safetensors"}
                    within = {"md5": self._cache(cached["model/history.csv"]), "relpath": "history.csv"}
                    digest = self._cache(json.dumps([within, weights]).encode(), ".dir")
                elif path in cached:
                    digest = self._cache(content)
                else:
                    digest = _md5(content) + (".dir" if path in ("data/processed", "results/figures") else "")
                outs.append({"path": path, "hash": "md5", "md5": digest})
            params = {
                key: value for key, value in changed.items() if (name == "train") == (not key.startswith("data"))
            }
            used = {"params.yaml": params} if name in ("preprocess", "train") else {}
            lock["stages"][name] = {"cmd": stage["cmd"], "params": used, "outs": outs}
        YAML(typ="safe").dump(lock, self.folder / "dvc.lock")

    def _cache(self, content: bytes, suffix: str = "") -> str:
        """Put a file into DVC's cache, or with ".dir" the list of a folder's files, and return its hash."""
        digest = _md5(content) + suffix
        store = self.folder / ".dvc/cache/files/md5" / digest[:2] / digest[2:]
        store.parent.mkdir(parents=True, exist_ok=True)
        store.write_bytes(content)
        return digest


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
