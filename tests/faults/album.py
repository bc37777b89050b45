"""The album that drills protect, what comes of it undisturbed, and what must hold afterwards."""

from collections import Counter
from pathlib import Path

from pipeline.images.coding import decode_coded
from pipeline.output.manifest import newest_state, read_manifest
from pipeline.output.runs import unfinished_runs
from pipeline.storage.store import Store
from tests.pipeline.mortal_run import protected_pixels
from tests.sample_photos import encode, photo_image

PHOTOS = {
    f"{name}/{number}.png": 10 * place + number
    for place, name in enumerate(("ann", "bob", "cat"))
    for number in (1, 2, 3, 4)
}
"""Names, and the numbers that make their pixels: six sets of two photos."""


def write_photos(folder: Path, photos: dict[str, int] | None = None) -> Path:
    for name, seed in (PHOTOS if photos is None else photos).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encode(photo_image(64, 64, seed), "PNG"))
    return folder


def check_all_protected_once(store: Store, photos: dict[str, int] | None = None) -> None:
    """Every input has one decision and the very image that an undisturbed run makes."""
    expected = PHOTOS if photos is None else photos
    rows = (
        read_manifest(store)
        .filter([status != "deferred" for status in read_manifest(store)["status"].to_pylist()])
        .to_pylist()
    )
    assert {row["status"] for row in rows} == {"protected"}
    assert set(Counter((row["source_uri"], row["source_version"]) for row in rows).values()) == {1}
    states = newest_state(store)
    assert len(states) == len(expected)
    for state in states.values():
        assert state.output_key is not None
        assert store.sha256_of(state.output_key, read=True) == state.output_sha256
    for name, seed in expected.items():
        image = decode_coded(store.read(f"images/{name}"))
        assert (image == protected_pixels(photo_image(64, 64, seed))).all()
    assert len([*store.list("images/")]) == len(expected)
    assert unfinished_runs(store) == []
    assert not [info.key for info in store.list("runs/") if "/data/" in info.key]


def num_decided(store: Store) -> int:
    """Photos of the sets that are committed so far."""
    return 2 * sum("/commits/" in info.key for info in store.list("runs/"))
