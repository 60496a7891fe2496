"""Export the network to ONNX with preprocessing included, after checking it against PyTorch."""

from pipeline import files, stage
from pipeline.data import dataset
from pipeline.experiments.baseline import load

PARITY_IMAGES = 250


def main(
    params: stage.PathOption,
    data: stage.PathOption,
    model: stage.PathOption,
    out: stage.PathOption,
    details: stage.PathOption,
    runtime: stage.PathOption,
) -> None:
    options = load(params).export
    from pipeline.export import graph as exporting  # slow import after load
    from pipeline.models.common.saved import load_model

    with stage.clock("export", runtime) as measured:
        images = dataset.load(data, "test")["test"].images
        saved = load_model(model)
        print(f"exporting {saved.arch} to ONNX", flush=True)
        graph = exporting.to_onnx(
            saved.model,
            saved.metadata.classes,
            images.shape[1],
            {"dataset": saved.metadata.name, "weights_sha256": saved.weights_sha256},
        )
        parity = exporting.check_parity(saved.model, graph, images[:PARITY_IMAGES], tolerance=options.tolerance)
        files.write_bytes(out, graph)
        files.write_row(details, {**parity, "export/onnx_bytes": len(graph)})
        batch = images[: options.batch_size]
        measured["export/latency_ms"] = round(exporting.latency(graph, images[:1]), 4)
        measured["export/batch_size"] = len(batch)
        measured["export/batch_latency_ms"] = round(exporting.latency(graph, batch), 3)
    print(
        f"{out}: {len(graph):,} bytes, {measured['export/latency_ms']:.2f} ms per image, "
        f"{measured['export/batch_latency_ms']:.1f} ms for {len(batch)}; "
        f"largest difference to PyTorch {parity['export/parity_difference']:.1e}"
    )


if __name__ == "__main__":
    stage.run(main)
