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
    "what raises it. It averages over positions, so for a network with fully connected layers on its feature maps, "
    "whose outputs depend on positions, the map can be empty.",
    "occlusion": "Occlusion covers the image with a square of the mean colour, 8 x 8 px, step by step; the map is "
    "the drop of the score.",
    "integrated gradients": "Integrated gradients distribute the score over the pixels.",
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
    labelled = "" if label is None else f" (label {classes[label]})"
    return Section(
        f"Prediction: {classes[subject.predicted]}",
        "The network's input and its most probable classes. The probabilities of all classes add up to 100 %. "
        "The largest one is the confidence, which can differ from the accuracy.",
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
        "On the right the same method for a network of the same architecture with random weights. The rank "
        "correlation of the two maps (Spearman, of absolute values, mean over several random networks) is a check: "
        "near 1 the map depends on the image or the architecture, not on training; near 0 the check is passed. "
        "Integrated gradients are multiplied by the image's contrast, which causes some correlation.",
    )
    return Section(f"Attribution of the prediction, {name}", " ".join(caption), picture, findings)


def evidence_for_rival(subject: Subject, out: Path) -> Section:
    """Attribution of the score of the label, or of the second most probable class."""
    name = subject.classes[subject.rival]
    found, findings, exactness = _attributions(subject, subject.rival)
    picture = out / "attribution_rival.png"
    figures.attributions(picture, subject.image, found, name)
    reason = "the label" if subject.rival == subject.label else "the second most probable class"
    caption = f"As above, for the score of {name}. {exactness}"
    return Section(f"Attribution of {name}, {reason}", caption, picture, findings)


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
        f"Predicted class: {classes[subject.predicted]}; {said}",
    )
    between = f"cosine {cosines[nearest[0]]:.2f} to {cosines[nearest[-1]]:.2f}"
    return Section(
        "The most similar training images, by features",
        "Similarity is the cosine of the last layer's inputs, under each label; 1 is the same direction. After an "
        "error, check whether neighbours of the wrong class share something visible with the image: colour, pose, "
        "background, or a wrong label.",
        picture,
        (f"{said} ({between})",),
    )


def place(subject: Subject, out: Path) -> Section:
    """The embedding of the test images and of the image."""
    picture = out / "embedding.png"
    found = learned.map_of_classes(subject.network, picture, subject.image)
    return Section(
        "The image in a map of the test images",
        "Each dot is a test image, positioned by the last layer's input and coloured by its label; the star is the "
        "explained image. Separate groups: the network distinguishes these classes. The accuracy by pixels instead "
        "of features is the reference without a network.",
        picture,
        found.findings,
    )


def confused(subject: Subject, out: Path) -> Section:
    """The pairs of classes that are confused most often."""
    picture = out / "confusions.png"
    found = learned.confused(subject.network, picture)
    return Section(
        "The most confused classes",
        "A row for each pair of classes: the number of test images of one that are predicted as the other, and those "
        "of the highest confidence. Above each image is its label; the prediction is the other class.",
        picture,
        found.findings,
    )


def suspicious(subject: Subject, out: Path) -> Section:
    """The test labels that are likely wrong."""
    picture = out / "label_errors.png"
    found = learned.suspicious(subject.network, picture)
    return Section(
        "Suspicious labels",
        "Confident learning (Northcutt et al. 2021): the probability of another class is at least the average "
        "probability of that class for images that have its label. Most suspicious labels are errors of the network, "
        "and a worse network has more; the first ones are the most likely errors of the data.",
        picture,
        found.findings,
    )
