"""The explain command: findings, figures and a page on one prediction and its network."""

import mimetypes
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from pipeline import files, pages, stage
from pipeline.config.section import IMAGE_SIDE
from pipeline.data import dataset
from pipeline.data.dataset import Images, Split
from pipeline.errors import CheckpointError, DatasetError, ExplanationError, InspectionError
from pipeline.evaluation import inference
from pipeline.experiments import git
from pipeline.explanation import layers
from pipeline.explanation import sections as explain_sections
from pipeline.explanation.explanation import BATCH_SIZE, Section, Subject
from pipeline.hardware import device, gpu_lock
from pipeline.models.common.saved import load_model
from pipeline.serving import image_files

PARTS: dict[str, Callable[[Subject, Path], Section]] = {
    "the answer": explain_sections.prediction,
    "evidence for it": explain_sections.evidence,
    "evidence for another": explain_sections.evidence_for_rival,
    "similar training images": explain_sections.neighbours,
    "a convolution": layers.convolved,
    "edges": layers.edges,
    "the first layer's filters": layers.first_layer,
    "feature maps": layers.by_depth,
    "patches that activate channels": layers.exciting,
    "a map of the classes": explain_sections.place,
    "confusions": explain_sections.confused,
    "suspicious labels": explain_sections.suspicious,
}
"""The sections by topic, in the order of the page; each draws its figure in a folder."""

CHUNK = 4 * BATCH_SIZE
"""Test images between two advances of the progress bar."""


def run(model: Path, data: Path, out: Path, wanted: Path | int, *, seed: int) -> None:
    """Explain an image: print a line for each finding, write a picture for each section and `explanation.html`.

    Args:
        model: folder that `checkpoint.save_model` wrote; data: folder that `dataset.save` wrote.
        wanted: an image file, or the index of a test image.
        seed: of the random networks, random filters and the map.

    Raises:
        CheckpointError, DatasetError: the model or the dataset is missing or damaged.
        ExplanationError: there is no such image, or the network is for other classes.
    """
    with gpu_lock.claim("auto", wait=False):
        subject = _subject(model, data, wanted, seed)
        sections, left_out = {}, []
        for topic, part in PARTS.items():
            try:
                section = part(subject, out)
            except InspectionError as error:
                left_out.append(f"left out: {topic}: {error}")
                print(left_out[-1], flush=True)
                continue
            sections[topic] = section
            for finding in section.findings:
                print(finding, flush=True)
        page = out / "explanation.html"
        files.write_text(page, _page(subject, sections, left_out))
    print(f"wrote {page}")


def _subject(model: Path, data: Path, wanted: Path | int, seed: int) -> Subject:
    try:
        saved, splits = load_model(model), dataset.load(data, "train", "test")
    except (CheckpointError, DatasetError) as error:
        absent = not (model.exists() and data.exists())
        raise type(error)(f"{error}{git.advice(stage.root()) if absent else ''}") from None
    if saved.metadata.classes != splits.metadata.classes:
        raise ExplanationError(
            f"{data}: expected images of the classes that {model} knows ({', '.join(saved.metadata.classes)}), found "
            f"{splits.metadata.name} ({', '.join(splits.metadata.classes)}); name the right folders: --model, --data"
        )
    test = splits["test"]
    if isinstance(wanted, Path):
        name, image, label = wanted.name, _read(wanted), None
    elif 0 <= wanted < len(test):
        name, image, label = f"test image {wanted}", test.images[wanted], int(test.labels[wanted])
    else:
        raise ExplanationError(
            f"--index: expected 0..{len(test) - 1}, as {data} has {len(test):,} test images; found {wanted}"
        )
    place = device.choose("auto")
    predict = partial(inference.predict, saved.model, batch_size=BATCH_SIZE, place=place)
    parts = []
    with stage.bar("predicting test images", len(test)) as advance:
        for start in range(0, len(test), CHUNK):
            chosen = slice(start, start + CHUNK)
            parts.append(predict(Split(test.images[chosen], test.labels[chosen])))
            advance(len(parts[-1]))
    probs = predict(_alone(image))[0]
    return Subject(name, image, label, probs, np.concatenate(parts), saved, splits, place, seed)


def _alone(image: Images) -> Split:
    """Return a split of one image; its label is not used."""
    return Split(image[None], np.zeros(1, np.uint8))


def _read(path: Path) -> Images:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about what a file holds besides its pixels
        found = image_files.read(str(path), IMAGE_SIDE, 3, resample="lanczos", stretch=False)
    if isinstance(found, image_files.Unreadable):
        raise ExplanationError(f"{found.name}: {found.reason}; --image expects an image file")
    return found.pixels.copy()  # Pillow's arrays are read-only, which torch warns about


def _page(subject: Subject, sections: dict[str, Section], left_out: list[str]) -> str:
    saved = subject.saved
    return pages.render(
        "explanation.html",
        title=f"{subject.name}: {subject.classes[subject.predicted]} {subject.probs.max():.1%}",
        subtitle=f"{saved.arch} trained on {saved.metadata.name} (weights {saved.weights_sha256[:7]}); "
        "made by python -m pipeline explain.",
        sections=[
            {
                "topic": topic,
                "title": section.title,
                "caption": section.caption,
                "picture": pages.data_uri(
                    section.picture.read_bytes(), mimetypes.guess_type(section.picture)[0] or "image/png"
                ),
            }
            for topic, section in sections.items()
        ],
        left_out=left_out,
    )
