"""Fetch the dataset's archive (CIFAR-10 or a file or URL), or generate shapes10."""

from pipeline import files, stage
from pipeline.archives import cifar10, fetching, shapes10
from pipeline.experiments.baseline import load


def main(params: stage.PathOption, out: stage.PathOption, runtime: stage.PathOption) -> None:
    data = load(params).data
    with stage.clock("download", runtime):
        if data.dataset == "shapes10":
            settings = data.shapes10
            total = settings.train_images + settings.test_images
            with stage.bar("generating shapes10", total) as advance, files.atomic(out) as temporary:
                shapes10.write_archive(
                    temporary,
                    train_images=settings.train_images,
                    test_images=settings.test_images,
                    noise=settings.noise,
                    seed=settings.seed,
                    progress=advance,
                )
        elif data.archive is None or data.sha256 is None:
            fetching.fetch(data.cifar10.urls, cifar10.OFFICIAL_SHA256, out)
        else:
            local = not fetching.is_url(data.archive)
            fetching.fetch([str(stage.root() / data.archive) if local else data.archive], data.sha256, out)
    print(f"{out}: {data.dataset}, {out.stat().st_size:,} bytes, SHA-256 {files.sha256(out)}")


if __name__ == "__main__":
    stage.run(main)
