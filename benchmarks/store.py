"""How much the feature store costs over bare files.

    python benchmarks/store.py [--slides 24] [--tiles 2000] [--dim 2048] [--rounds 7]

Made-up float16 features, one record a slide. Each number is a ratio of medians over alternating rounds:
    ratio         bytes/s of store.features(slide) ÷ bytes/s of np.fromfile of the same bytes, both from the page cache;
                  zarr_ratio: the same of the Zarr backend
    bag_ratio     the same for a bag of 32 rows, store.features(slide, slice(0, 32)) ÷ np.fromfile of as many bytes, the
                  records hashed before, as in every epoch but the first; zarr_bag_ratio: of the Zarr backend
    write_ratio   a bare HDF5 file (features, coordinates, tissue) ÷ np.save of the same three arrays to a file each,
                  bytes/s, neither flushed to disk; write_whole_ratio: the HDF5 file with 25 attributes, mask and
                  thumbnail as well, whose cost does not grow with the features
    commit_share  time of a whole commit (hash, write, fsync, read back, publish) ÷ time to encode the slide's tiles
                  with ResNet-50 (random weights: the time does not depend on them), from the rate of a few batches
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np
from measure import alternate, seconds

from mmsurv import provenance
from mmsurv.store import FeatureStore, SlideRecord, create_store, rank_order

TARGETS = {"ratio": 0.9, "bag_ratio": 0.5, "write_ratio": 0.7, "commit_share": 0.05}
BAG = 32


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        result = measure(Path(folder), arguments)
    print(json.dumps(result))


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    names = [
        f"TCGA-02-{index:04d}-01Z-00-DX1.4755D138-5842-4159-848B-4248D1EB0A7C" for index in range(arguments.slides)
    ]
    records = [_record(name, arguments.tiles, arguments.dim) for name in names]
    size = records[0].features.nbytes * len(records)
    recipe = {"benchmark": "made-up features"}
    store = create_store(folder / "store", recipe=recipe, dim=arguments.dim)
    zarr = create_store(folder / "zarr", recipe=recipe, dim=arguments.dim, backend="zarr")

    commits = [seconds(lambda record=record: store.write(record)) for record in records]
    zarr_commits = [seconds(lambda record=record: zarr.write(record)) for record in records]
    for record in records:
        record.features.tofile(folder / f"{record.slide_id}.bin")
    reads = alternate(
        arguments.rounds,
        {
            "ours": lambda: _read_store(store, records),
            "zarr": lambda: _read_store(zarr, records),
            "bare": lambda: _read_flat(folder, records),
        },
    )
    bags = alternate(
        arguments.rounds,
        {
            "ours": lambda: _read_store(store, records, BAG, repeat=20),
            "zarr": lambda: _read_store(zarr, records, BAG, repeat=20),
            "bare": lambda: _read_flat(folder, records, BAG, repeat=20),
        },
    )
    bare = [dataclasses.replace(record, attributes={}, thumbnail=None, mask=None) for record in records]
    writes = alternate(
        arguments.rounds,
        {
            "ours": lambda: _write_hdf5(store, folder, bare),
            "whole": lambda: _write_hdf5(store, folder, records),
            "bare": lambda: _write_npy(folder, records),
        },
    )
    encode = _encode_seconds(arguments.tiles)
    commit = statistics.median(commits)
    print(
        f"read: HDF5 {size / reads['ours'] / 1e9:.2f} GB/s, Zarr {size / reads['zarr'] / 1e9:.2f} GB/s, "
        f"np.fromfile {size / reads['bare'] / 1e9:.2f} GB/s"
    )
    each = {name: seconds / 20 / len(records) * 1e6 for name, seconds in bags.items()}
    print(
        f"bag of {BAG} rows: HDF5 {each['ours']:.0f} µs, Zarr {each['zarr']:.0f} µs, np.fromfile {each['bare']:.0f} µs"
    )
    print(
        f"write: bare HDF5 {size / writes['ours'] / 1e9:.2f} GB/s, "
        f"whole record {size / writes['whole'] / 1e9:.2f} GB/s, np.save {size / writes['bare'] / 1e9:.2f} GB/s"
    )
    print(
        f"commit: HDF5 {commit * 1e3:.1f} ms, Zarr {statistics.median(zarr_commits) * 1e3:.1f} ms, of {encode:.1f} s "
        f"to encode {arguments.tiles} tiles"
    )
    return {
        "benchmark": "store",
        "ratio": round(reads["bare"] / reads["ours"], 3),
        "zarr_ratio": round(reads["bare"] / reads["zarr"], 3),
        "bag_ratio": round(bags["bare"] / bags["ours"], 3),
        "zarr_bag_ratio": round(bags["bare"] / bags["zarr"], 3),
        "write_ratio": round(writes["bare"] / writes["ours"], 3),
        "write_whole_ratio": round(writes["bare"] / writes["whole"], 3),
        "commit_share": round(commit / encode, 5),
        "zarr_commit_share": round(statistics.median(zarr_commits) / encode, 5),
        "target": TARGETS,
        "record": [arguments.tiles, arguments.dim, "float16"],
        "slides": arguments.slides,
        "data": "made-up features; the encoder's weights are random",
        "machine": {**provenance.machine(), "cores": os.cpu_count()},
        "versions": provenance.versions(["h5py", "numpy", "torch"]),
    }


def _record(slide_id: str, tiles: int, dim: int) -> SlideRecord:
    rng = np.random.default_rng(len(slide_id))
    side = int(np.ceil(np.sqrt(tiles)))
    coords = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2)[:tiles] * 448
    return SlideRecord(
        slide_id=slide_id,
        features=rng.random((tiles, dim), np.float32).astype(np.float16),
        coords=coords[rank_order(slide_id, coords, 0)],
        tissue=np.ones(tiles, np.float32),
        attributes={"sample_seed": 0, **{f"fact_{index}": index for index in range(24)}},
        thumbnail=rng.bytes(60_000),
        mask=np.ones((500, 500), np.uint8),
    )


def _read_store(store: FeatureStore, records: list[SlideRecord], rows: int | None = None, repeat: int = 1) -> None:
    wanted = slice(rows)
    for _ in range(repeat):
        for record in records:
            store.features(record.slide_id, wanted)


def _read_flat(folder: Path, records: list[SlideRecord], rows: int | None = None, repeat: int = 1) -> None:
    dim = records[0].features.shape[1]
    count = -1 if rows is None else rows * dim
    for _ in range(repeat):
        for record in records:
            np.fromfile(f"{folder}/{record.slide_id}.bin", np.float16, count).reshape(-1, dim)


def _write_hdf5(store: FeatureStore, folder: Path, records: list[SlideRecord]) -> None:
    for record in records:
        path = folder / "bare.h5"
        path.unlink(missing_ok=True)
        store.write_file(path, record)


def _write_npy(folder: Path, records: list[SlideRecord]) -> None:
    for record in records:
        for name in ("features", "coords", "tissue"):
            path = folder / f"{name}.npy"
            path.unlink(missing_ok=True)
            np.save(path, getattr(record, name))


def _encode_seconds(tiles: int, batch: int = 32) -> float:
    from mmsurv_extract.encoder import EncoderSettings, build_encoder

    encoder = build_encoder(EncoderSettings(name="resnet50", weights="random"), device="cpu")
    images = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), np.uint8)
    encoder(images)
    return statistics.median(seconds(lambda: encoder(images)) for _ in range(3)) / batch * tiles


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slides", type=int, default=24)
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--dim", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dir", help="folder to measure in; default: the system's temporary folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
