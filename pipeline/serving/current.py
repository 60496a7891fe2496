"""The model that is served, replaced when its file or its alias in the registry changes."""

import asyncio
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pipeline import files
from pipeline.errors import PipelineError
from pipeline.serving import prediction
from pipeline.serving.prediction import REGISTRY, Classifier

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """A model that answers requests.

    Attributes:
        model: what was asked for: a path, "models:/NAME@ALIAS" or "models:/NAME/VERSION".
        version: number in the registry, or the first characters of the file's SHA-256.
        card: model card in Markdown; empty if there is none.
    """

    classifier: Classifier
    model: str
    version: str
    card: str


class Current:
    """The model that is served at present.

    Args:
        model, root: see `prediction.load`.

    Raises:
        PredictionError, TrackingError: see `prediction.load`.
    """

    def __init__(self, model: str, root: Path) -> None:
        self.model, self.root = model, root
        self.stamp = self._stamp()
        self.served = self._load()

    async def watch(self, seconds: float) -> None:
        """Look every so often whether there is another version, and serve that one; the old one if that fails."""
        while True:
            await asyncio.sleep(seconds)
            try:
                stamp = await asyncio.to_thread(self._stamp)
                if stamp == self.stamp:
                    continue
                self.served = await asyncio.to_thread(self._load)
            except (PipelineError, OSError) as error:
                log.warning("still serving version %s: %s", self.served.version, error)
                continue
            self.stamp = stamp
            log.warning("now serving %s version %s", self.model, self.served.version)

    def _stamp(self) -> object:
        """Return what another version changes: the number in the registry, or time and size of the file."""
        if self.model.startswith(REGISTRY):
            from pipeline.tracking import registry

            return str(registry.resolve(self.root, self.model).version)
        found = Path(self.model)
        return (found.stat().st_mtime_ns, found.stat().st_size) if found.exists() else None

    def _load(self) -> Served:
        if not self.model.startswith(REGISTRY):
            classifier = prediction.load(self.model, self.root)
            card = Path(self.model).with_name("MODEL_CARD.md")
            digest = files.sha256(Path(self.model))
            return Served(classifier, self.model, digest[:12], card.read_text() if card.is_file() else "")
        from pipeline.tracking import registry

        version = registry.resolve(self.root, self.model)
        with tempfile.TemporaryDirectory() as folder:
            exact = f"{REGISTRY}{version.name}/{version.version}"
            classifier = Classifier(registry.model_file(self.root, exact, Path(folder)), self.model)
        return Served(classifier, self.model, str(version.version), version.description or "")
