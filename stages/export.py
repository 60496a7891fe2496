"""Write the network as an ONNX graph that takes plain images, once it is shown to be the same network."""

from pipeline import dataset, files, stage
from pipeline.params import load

PARITY_IMAGES = 1000


def main(
    params: stage.PathOption,
    data: stage.PathOption,
    model: stage.PathOption,
    train_metrics: stage.PathOption,
    test_metrics: stage.PathOption,
    out: stage.PathOption,
    card: stage.PathOption,
    metrics: stage.PathOption,
    runtime: stage.PathOption,
) -> None:
    options = load(params).export
    from pipeline import checkpoint, exporting, model_card  # torch takes seconds to import, a mistake is told at once

    with stage.clock("export", runtime) as measured:
        images = dataset.load(data, "test")["test"].images
        saved = checkpoint.load_model(model)
        print(f"exporting {saved.arch} to ONNX", flush=True)
        graph = exporting.to_onnx(
            saved.model,
            saved.metadata.classes,
            images.shape[1],
            {"dataset": saved.metadata.name, "weights_sha256": saved.weights_sha256},
        )
        parity = exporting.check_parity(saved.model, graph, images[:PARITY_IMAGES], tolerance=options.tolerance)
        files.write_bytes(out, graph)
        files.write_json(metrics, {**parity, "export/onnx_bytes": len(graph)})
        results = files.read_json(train_metrics) | files.read_json(test_metrics) | parity
        files.write_text(card, model_card.render(saved, results, onnx_name=out.name, onnx_sha256=files.sha256(out)))
        batch = images[: options.batch_size]
        measured["export/latency_ms"] = round(exporting.latency(graph, images[:1]), 4)
        measured["export/batch_size"] = len(batch)
        measured["export/batch_latency_ms"] = round(exporting.latency(graph, batch), 3)
    print(
        f"{out}: {len(graph):,} bytes, {measured['export/latency_ms']:.2f} ms an image, "
        f"{measured['export/batch_latency_ms']:.1f} ms for {len(batch)}; "
        f"differs from PyTorch by {parity['export/parity_difference']:.1e} at most"
    )


if __name__ == "__main__":
    stage.run(main)
