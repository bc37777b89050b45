"""One OUTPUT holds one kind of files: it goes on as it was begun, or says what to do."""

import json
from pathlib import Path

import pytest

from pipeline.config import OutputFormat, OutputSettings, RunConfig, load_config
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.inspection.preview import preview_run
from pipeline.options import RunOptions
from pipeline.output.manifest import newest_rows
from pipeline.output.runs import list_runs, read_run, start_run
from pipeline.planning.output_format import format_of, in_format_of, record_format
from pipeline.reporting.reporter import Reporter
from pipeline.run import run_protection
from pipeline.storage.store import Store
from tests.pipeline.mortal_run import CONFIG, OwnProcess
from tests.pipeline.protected_album import ProtectedAlbum
from tests.sample_photos import encode, jpeg_bytes, photo_image, write_album


class Told(Reporter):
    """Keeps what a person was told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)


def protect(album: Path, store: Store, config: RunConfig = CONFIG) -> list[str]:
    told = Told()
    run_protection(str(album), store, config, RunOptions(), told, pool=OwnProcess(store))
    return told.messages


def images(store: Store) -> list[str]:
    return sorted(info.key.removeprefix("images/") for info in store.list("images/"))


def album_of(folder: Path, *names: str) -> Path:
    return write_album(folder, {name: encode(photo_image(32, 32), "PNG") for name in names})


def asking_for(output_format: OutputFormat) -> RunConfig:
    return CONFIG.model_copy(update={"output": OutputSettings(format=output_format)})


def test_a_new_output_keeps_names_and_the_next_run_goes_on_so(
    tmp_path: Path, local_store: Store
) -> None:
    album = album_of(tmp_path / "in", "ann/1.png")
    assert protect(album, local_store) == []
    album_of(album, "ann/2.png")
    assert protect(album, local_store) == []
    assert images(local_store) == ["ann/1.png", "ann/2.png"]
    assert format_of(local_store) == "same"


def test_an_output_of_an_earlier_version_goes_on_as_png_and_says_so(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    assert format_of(album.store) == "png"
    write_album(album.input, {"cat/1.jpg": jpeg_bytes(seed=5)})
    preview = preview_run(str(album.input), str(album.output), load_config("zero-shot"),
                          RunOptions(on_method_change="keep"))  # fmt: skip
    assert any("goes on so" in note for note in preview.notes)
    told = Told()
    options = RunOptions(on_method_change="keep")
    run_protection(str(album.input), album.store, CONFIG, options, told,
                   pool=OwnProcess(album.store))  # fmt: skip
    assert [
        text for text in told.messages if "output.format png" in text and "dladiff convert" in text
    ]
    assert images(album.store) == ["ann/1.jpg.png", "ann/2.jpg.png", "ben/1.jpg.png",
                                   "ben/2.jpg.png", "cat/1.jpg.png"]  # fmt: skip
    (run_id,) = set(list_runs(album.store)) - {"run-1"}
    record = read_run(album.store, run_id)
    assert record is not None
    assert record["config"]["output"] == {"format": "png"}


@pytest.mark.parametrize(("first", "second"), [("png", "same"), ("same", "webp")])
def test_another_format_is_refused_before_anything_is_done(
    tmp_path: Path, local_store: Store, first: OutputFormat, second: OutputFormat
) -> None:
    album = album_of(tmp_path / "in", "ann/1.png")
    protect(album, local_store, asking_for(first))
    before = {info.key: info.version for info in local_store.list()}
    album_of(album, "ann/2.png")
    with pytest.raises(
        ConfigurationError, match=f"begun with output.format {first}.* choose a new OUTPUT"
    ):
        protect(album, local_store, asking_for(second))
    after = {info.key: info.version for info in local_store.list()}
    assert {key: after[key] for key in before if not key.startswith("locks/")} == {
        key: version for key, version in before.items() if not key.startswith("locks/")
    }
    protect(album, local_store, asking_for(first))
    assert len(images(local_store)) == 2


def test_a_run_that_only_began_binds_output_and_a_look_does_not(local_store: Store) -> None:
    assert in_format_of(local_store, RunConfig()).output.format == "same"
    assert format_of(local_store) is None
    record_format(local_store, "webp")
    start_run(local_store, "first", {})
    assert in_format_of(local_store, RunConfig()).output.format == "webp"


@pytest.mark.parametrize("content", [b"{", b"[]", json.dumps({"format": "gif"}).encode()])
def test_a_damaged_record_is_named_with_its_remedy(local_store: Store, content: bytes) -> None:
    start_run(local_store, "first", {})
    local_store.write("output_format.json", content)
    with pytest.raises(PipelineError, match=r"output_format\.json is damaged"):
        format_of(local_store)


def test_rows_say_what_was_written(tmp_path: Path, local_store: Store) -> None:
    album = write_album(tmp_path / "in", {"ann/1.jpg": jpeg_bytes(64, 64)})
    protect(album, local_store)
    (row,) = newest_rows(local_store)
    assert row.output_uri == local_store.uri_of("images/ann/1.jpg")
    assert row.output_format == "jpeg"
    assert row.output_bytes == len(local_store.read("images/ann/1.jpg"))
