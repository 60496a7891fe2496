"""Commands that use a trained network: classify images, serve it, explain a prediction."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline import stage
from pipeline.serving.image_files import Filter


def predict(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE|FOLDER|-", help="- reads one image from stdin.")],
    model: Annotated[
        str, typer.Option(help="An ONNX file, models:/NAME@ALIAS or models:/NAME/VERSION.")
    ] = "export/model.onnx",
    top: Annotated[int | None, typer.Option(min=1, help="Classes to print for each image, 3 by default.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Columns image, rank, class, probability.")] = False,
    resample: Annotated[Filter, typer.Option("--filter", help="How images are resized.")] = "lanczos",
    stretch: Annotated[bool, typer.Option("--stretch", help="Resize the whole image, not its centre.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images classified at once.")] = 64,
) -> None:
    """Classify images; exit code 1 if any could not be read."""
    if json and csv:
        raise typer.BadParameter("--json and --csv exclude one another")
    from pipeline.serving import prediction_report

    unreadable = prediction_report.run(
        images,
        model,
        stage.root(),
        form="json" if json else "csv" if csv else "table",
        top=top,
        resample=resample,
        stretch=stretch,
        batch_size=batch_size,
    )
    raise typer.Exit(min(unreadable, 1))


def serve(
    model: Annotated[
        str, typer.Option(help="An ONNX file, models:/NAME@ALIAS or models:/NAME/VERSION.")
    ] = "export/model.onnx",
    host: Annotated[str, typer.Option(help="Address to listen on; there is no authentication.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    data: Annotated[Path, typer.Option(help="Folder of processed images, for examples on the page.")] = Path(
        "data/processed"
    ),
    most_mib: Annotated[int, typer.Option("--max-mib", min=1, help="Size of a request.")] = 16,
    most_images: Annotated[int, typer.Option("--max-images", min=1, help="Images in a request.")] = 256,
) -> None:
    """Serve a model over HTTP, with a page to try it; a new version of it is taken on while it runs."""
    from pipeline.serving import service
    from pipeline.serving.current import Current

    examples = []
    if data.exists():
        from pipeline.data import dataset

        splits = dataset.load(data, "test")
        classes = splits.metadata.classes
        some = dataset.first_of_each_class(splits["test"], len(classes))
        examples = [(classes[label], image) for image, label in zip(some.images, some.labels, strict=True)]
    service.run(
        Current(model, stage.root()), examples, host, port, most_bytes=most_mib * 2**20, most_images=most_images
    )


def explain(
    index: Annotated[int | None, typer.Option(help="Index of a test image, from 0; default: 0.")] = None,
    image: Annotated[Path | None, typer.Option(help="An image file instead of a test image.")] = None,
    model: Annotated[Path, typer.Option(help="Folder of the trained network.")] = Path("model"),
    data: Annotated[Path, typer.Option(help="Folder of the processed images.")] = Path("data/processed"),
    out: Annotated[Path, typer.Option(help="Folder for the page and its figures.")] = Path("explain"),
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Seed of random networks, random filters and the map.")
    ] = 0,
) -> None:
    """Explain the network's prediction for an image, on a page with figures."""
    if index is not None and image is not None:
        raise typer.BadParameter("--index and --image exclude one another")
    from pipeline.explanation import command

    command.run(model, data, out, image if image is not None else index or 0, seed=seed)
