"""Sections of an explanation on the prediction, its attribution, similar images and errors."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from pipeline import stage
from pipeline.errors import InspectionError
from pipeline.explanation import attribution, figures
from pipeline.explanation.explanation import BATCH_SIZE, Section, Subject, first
from pipeline.explanation.figures import Attribution
from pipeline.inspection import embedding, learned

TOP = 5
RANDOM_NETWORKS = 5
NEIGHBOURS = 15
TRAINING_IMAGES = 15_000
"""Training images searched for neighbours: a third of CIFAR-10, so that this takes seconds without a GPU."""

HOW_TO_READ = {
    "Grad-CAM": "Grad-CAM weights the last feature maps by how much each raises the score: coarse, and it shows only "
    "what speaks for the class. It takes the mean over all places, so of a network with fully connected layers on its "
    "feature maps, to which places matter, it can miss everything.",
    "occlusion": "Occlusion covers the image with a square of the mean colour, 8 x 8 px, step by step, and notes by "
    "how much the score falls.",
    "integrated gradients": "Integrated gradients share the score out among the pixels.",
}
"""The caption of each method."""


def prediction(subject: Subject, out: Path) -> Section:
    """The image and its most probable classes."""
    classes, probs, label = subject.classes, subject.probs, subject.label
    picture = out / "prediction.png"
    top = min(TOP, len(classes))
    figures.prediction(picture, subject.image, probs, classes, label, top)
    best = np.argsort(-probs, kind="stable")[:top]
    said = ", ".join(f"{classes[index]} {probs[index]:.1%}" for index in best[:3])
    labelled = "" if label is None else f" (labelled {classes[label]})"
    return Section(
        f"What the network says: {classes[subject.predicted]}",
        "The image as the network gets it, and its most probable classes. The probabilities of all classes add up to "
        "100 %; they say how sure the network is, which is not always how often it is right.",
        picture,
        (f"{subject.name}: {said}{labelled}",),
    )


def evidence(subject: Subject, out: Path) -> Section:
    """Attribution of the score of the predicted class."""
    name = subject.classes[subject.predicted]
    found, findings, exactness = _attributions(subject, subject.predicted)
    picture = out / "attribution.png"
    figures.attributions(picture, subject.image, found, name)
    caption = (
        f"Blue raises the score of {name} (in logits, before softmax), red lowers it; each map has its own scale.",
        *(HOW_TO_READ[item.name] for item in found),
        exactness,
        "On the right the same method, asked of a network of the same layout with random weights. The rank "
        "correlation of the two maps (Spearman, of absolute values, mean over several random networks) is a check: "
        "near 1 the map shows the image or the layout, not what has been learned; near 0 it passes. Integrated "
        "gradients are multiplied by the image's own contrast, so some correlation is theirs by construction.",
    )
    return Section(f"What its answer, {name}, rests on", " ".join(caption), picture, findings)


def evidence_for_rival(subject: Subject, out: Path) -> Section:
    """Attribution of the score of the label, or of the second most probable class."""
    name = subject.classes[subject.rival]
    found, findings, exactness = _attributions(subject, subject.rival)
    picture = out / "attribution_rival.png"
    figures.attributions(picture, subject.image, found, name)
    reason = "its label" if subject.rival == subject.label else "the next probable class"
    caption = f"To be read like the maps above, but of the score of {name}. {exactness}"
    return Section(f"What speaks for {name}, {reason}", caption, picture, findings)


def _attributions(subject: Subject, label: int) -> tuple[list[Attribution], tuple[str, ...], str]:
    """Return the maps for a class, a finding for each, and a sentence on the completeness of integrated gradients."""
    model, name = subject.saved.model, subject.classes[label]
    image = torch.from_numpy(subject.image).to(subject.place).permute(2, 0, 1)
    fill = torch.tensor(subject.saved.metadata.mean, device=subject.place)
    integrated = partial(attribution.integrated_gradients, fill=fill)
    methods: dict[str, attribution.Method] = {
        "Grad-CAM": attribution.grad_cam,
        "occlusion": partial(attribution.occlusion, fill=fill),
        "integrated gradients": integrated,
    }
    found, findings = [], []
    with stage.bar("sanity checks on random networks", len(methods)) as advance:
        for method_name, method in methods.items():
            try:
                trained = method(model, image, label)
            except InspectionError as error:
                findings.append(f"left out: {error}")
                continue
            check = attribution.sanity(method, model, image, label, trained, seed=subject.seed, draws=RANDOM_NETWORKS)
            found.append(Attribution(method_name, trained, check))
            findings.append(f"{method_name} for {name}: rank correlation with random networks' maps {check}")
            advance(1)
    total = float(found[-1].map.sum())
    difference = attribution.score_above(model, image, label, fill=fill)
    exactness = (
        f"Integrated gradients add up to {total:+.2f} here, and the score is {difference:+.2f} above that of an image "
        "of the mean colour: the closer the two, the more exact the map."
    )
    return found, tuple(findings), exactness


def neighbours(subject: Subject, out: Path) -> Section:
    """The training images with the most similar features."""
    classes, name = subject.classes, subject.classes[subject.predicted]
    train = first(subject.data["train"], TRAINING_IMAGES)
    with stage.bar("predicting training images", len(train)) as advance:
        cosines = embedding.similarity(
            subject.saved.model,
            subject.image,
            train,
            batch_size=BATCH_SIZE,
            place=subject.place,
            advance=advance,
        )
    nearest = np.argsort(-cosines, kind="stable")[:NEIGHBOURS]
    captions = [f"{classes[train.labels[index]]}\n{cosines[index]:.2f}" for index in nearest]
    same = int((train.labels[nearest] == subject.predicted).sum())
    said = f"{same} of the {len(nearest)} most similar of {len(train):,} training images are labelled {name}"
    picture = out / "neighbours.png"
    figures.neighbours(
        picture,
        subject.image,
        train.images[nearest],
        captions,
        f"The network says {classes[subject.predicted]}; {said}",
    )
    between = f"cosine {cosines[nearest[0]]:.2f} to {cosines[nearest[-1]]:.2f}"
    return Section(
        "The training images most like it, in the network's eyes",
        "Alike by what the network's last layer is given: the cosine between the two, under each label, is 1 for the "
        "same direction. After a mistake, look whether the neighbours are of the wrong class for a reason one can "
        "see: colour, pose, background, or a wrong label.",
        picture,
        (f"{said} ({between})",),
    )


def place(subject: Subject, out: Path) -> Section:
    """The embedding of the test images and of the image."""
    picture = out / "embedding.png"
    found = learned.map_of_classes(subject.network, picture, subject.image)
    return Section(
        "Where it lies among the test images",
        "Each dot is a test image, placed by what the network's last layer is given, coloured by its label; the star "
        "is the image explained here. Groups apart: the network tells these classes from one another. The same "
        "vote among neighbours by pixels, not features, shows what the layers before the last have added.",
        picture,
        found.findings,
    )


def confused(subject: Subject, out: Path) -> Section:
    """The pairs of classes that are confused most often."""
    picture = out / "confusions.png"
    found = learned.confused(subject.network, picture)
    return Section(
        "The classes it mixes up most",
        "A row for each pair of classes, with how many test images of one are taken for the other, and those of them "
        "of which the network is surest. Above each image: what it is labelled; the network says the other.",
        picture,
        found.findings,
    )


def suspicious(subject: Subject, out: Path) -> Section:
    """The test labels that are likely wrong."""
    picture = out / "label_errors.png"
    found = learned.suspicious(subject.network, picture)
    return Section(
        "Labels to look at again",
        "Confident learning (Northcutt et al. 2021): the network is at least as sure of another class as it is, on "
        "average, of images that carry that label. Most such suspicions are mistakes of the network; the worse it is, "
        "the more of them. But the first ones are where errors of the data are most likely to be found.",
        picture,
        found.findings,
    )
