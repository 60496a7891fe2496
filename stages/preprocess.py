"""Read the archive, split off validation images, compute channel statistics, draw a preview of the augmentation."""

import numpy as np

from pipeline import files, stage
from pipeline.archives import cifar10
from pipeline.data import dataset
from pipeline.errors import DatasetError
from pipeline.experiments.baseline import load

PREVIEW_SEED, PREVIEW_EPOCHS = 0, 8


def main(
    params: stage.PathOption,
    archive: stage.PathOption,
    out: stage.PathOption,
    preview: stage.PathOption,
    details: stage.PathOption,
    runtime: stage.PathOption,
) -> None:
    settings = load(params)
    import torch  # slow import after load, so that mistakes in params.yaml are reported immediately

    from pipeline.data import loader
    from pipeline.data.preview import augmentations

    with stage.clock("preprocess", runtime):
        print(f"reading {archive}", flush=True)
        sha256 = files.sha256(archive)
        with stage.bar(f"reading {archive}", cifar10.MEMBERS) as advance:
            raw = cifar10.read(archive, on_member=lambda _: advance(1))
        if settings.data.val_images > len(raw.train_labels) - len(raw.classes):
            raise DatasetError(
                f"{params}: data.val_images: found {settings.data.val_images}, but {archive} has only "
                f"{len(raw.train_labels)} training images; leave at least {len(raw.classes)} of them to train on"
            )
        seed = settings.data.split_seed
        rest, val = dataset.stratified_split(raw.train_labels, settings.data.val_images, seed)
        used = dataset.share_of(len(rest), settings.data.train_share)
        train = rest[dataset.stratified_subset(raw.train_labels[rest], used, seed)]
        splits = {
            "train": dataset.Split(raw.train_images[train], raw.train_labels[train]),
            "val": dataset.Split(raw.train_images[val], raw.train_labels[val]),
            "test": dataset.Split(raw.test_images, raw.test_labels),
        }
        mean, std = dataset.channel_statistics(splits["train"].images)
        name = cifar10.display_name(settings.data.dataset, sha256)
        metadata = dataset.Metadata(name, sha256, raw.classes, mean, std, len(train))
        dataset.save(out, dataset.Dataset(metadata, splits))
        files.write_row(details, dataset.describe(metadata, splits))

        first = [int(np.argmax(splits["train"].labels == label)) for label in range(len(raw.classes))]
        train_loader = loader.TrainLoader(
            splits["train"],
            settings.augment,
            batch_size=len(train),
            seed=PREVIEW_SEED,
            device=torch.device("cpu"),
            mean=mean,
        )
        epochs = [train_loader.preview(epoch, torch.tensor(first)).numpy() for epoch in range(PREVIEW_EPOCHS)]
        augmentations(preview, splits["train"].images[first], np.stack(epochs, axis=1), raw.classes, seed=PREVIEW_SEED)
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in splits.items())
    print(f"{name}: {sizes} images; mean {np.round(mean, 2)}, std {np.round(std, 2)}")


if __name__ == "__main__":
    stage.run(main)
