"""Requests are those that a run makes; money is what a price file says."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.catalog.folder import read_catalog
from pipeline.cli import app
from pipeline.config import load_config
from pipeline.errors import ConfigurationError
from pipeline.inspection.preview import preview_lines, preview_run
from pipeline.options import RunOptions
from pipeline.planning.against_output import plan_against_output
from pipeline.planning.decisions import DecisionRules
from pipeline.planning.prices import Prices, Requests, count_requests, read_prices
from pipeline.run import run_protection
from pipeline.storage.store import Store
from tests.pipeline.mortal_run import CONFIG, OwnProcess
from tests.pipeline.protected_album import ProtectedAlbum
from tests.sample_photos import encode, jpeg_bytes, photo_image, write_album


class Counting:
    """A store's backend that counts what is asked of it."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.requests = Counter[str]()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self.requests[name] += name != "temporaries"  # on a bucket, no request
            return getattr(self._backend, name)(*args)

        return call


def test_the_count_is_that_of_a_real_run_on_a_bucket(s3_prefix: str, tmp_path: Path) -> None:
    names = [f"p{person}/{number}.png" for person in range(6) for number in range(7)]
    photos = {name: encode(photo_image(32, 32, seed), "PNG") for seed, name in enumerate(names)}
    source, store = str(write_album(tmp_path / "in", photos)), Store(s3_prefix)
    operation = CONFIG.operation.model_copy(update={"fold_every_s": 1e9, "max_set_photos": 4})
    config = CONFIG.model_copy(update={"operation": operation})
    catalog = read_catalog(source, operation)
    plan = plan_against_output(catalog, store, config, DecisionRules("d" * 64))
    backend = Counting(store._backend)
    store._backend = backend
    run_protection(source, store, config, pool=OwnProcess(store))
    expected, made = count_requests(plan), backend.requests
    writes = sum(made[name] for name in ("put", "put_new", "copy", "scan", "folders"))
    reads = sum(made[name] for name in ("get", "head", "root_exists", "sha256"))
    # Of INPUT: a listing, and each photo read; in a folder here.
    assert expected.writes - 1 == pytest.approx(writes, rel=0.03)
    assert expected.reads - len(names) == pytest.approx(reads, rel=0.03)
    assert made.total() == writes + reads + made["remove"]


def test_sums_are_by_unit() -> None:
    prices = Prices(currency="EUR", worker_hour=2.0, writes_1000=0.5, reads_1000=0.25, gb=0.1)
    sums = prices.sums(3.0, Requests(writes=4000, reads=8000), 5 * 10**9)
    assert sums == {"work": 6.0, "writes": 2.0, "reads": 2.0, "traffic": 0.5}


def test_a_preview_shows_money_only_with_prices(tmp_path: Path) -> None:
    album = ProtectedAlbum(tmp_path)
    write_album(album.input, {"cat/1.jpg": jpeg_bytes(seed=5)})
    options, config = RunOptions(on_method_change="keep"), load_config("zero-shot")

    def lines(**given: Any) -> str:
        preview = preview_run(str(album.input), str(album.output), config, options, **given)
        return "\n".join(preview_lines(preview))

    assert "money" not in lines()
    assert "traffic     about " in lines()
    text = lines(seconds_per_photo=1800.0, prices=Prices(currency="EUR", worker_hour=3))
    assert "money       about 1.50 EUR (work 1.50, writes 0.00, reads 0.00, traffic 0.00)" in text


def test_before_a_first_run_the_unknown_is_said(tmp_path: Path) -> None:
    write_album(tmp_path / "in", {"ann/1.jpg": jpeg_bytes()})
    preview = preview_run(
        str(tmp_path / "in"),
        str(tmp_path / "out"),
        load_config("balanced", overrides=["output.format=png"]),
        RunOptions(),
        prices=Prices(worker_hour=3),
    )
    text = "\n".join(preview_lines(preview))
    assert "an unknown amount to write before a first run" in text
    assert "money" not in text
    assert preview.money is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("gpu_hour: 3", "gpu_hour: Extra inputs are not permitted; keys are currency, worker_hour"),
        ("gb: cheap", "gb: "),
        ("gb: -1", "gb: "),
        ("gb: [", "is not valid YAML"),
    ],
)
def test_wrong_price_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "prices.yaml").write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        read_prices(tmp_path / "prices.yaml")
    assert message in str(caught.value)
    with pytest.raises(ConfigurationError, match="cannot read the prices"):
        read_prices(tmp_path / "none.yaml")


@pytest.mark.usefixtures("restored_logging")
def test_the_command_reads_the_file(tmp_path: Path) -> None:
    write_album(tmp_path / "in", {"ann/1.jpg": jpeg_bytes()})
    (tmp_path / "prices.yaml").write_text("currency: CHF\nworker_hour: 7200\n")
    arguments = ["plan", str(tmp_path / "in"), str(tmp_path / "out"), "--preset", "zero-shot"]
    arguments += ["--seconds-per-photo", "2", "--prices", str(tmp_path / "prices.yaml")]
    assert "about 4.00 CHF" in CliRunner().invoke(app, arguments).stdout


def test_before_a_first_run_a_file_is_taken_to_stay_as_large_as_it_is(tmp_path: Path) -> None:
    write_album(tmp_path / "in", {"ann/1.jpg": jpeg_bytes(), "ann/2.jpg": jpeg_bytes(seed=1)})
    source, output = str(tmp_path / "in"), str(tmp_path / "out")
    preview = preview_run(source, output, load_config("balanced"), RunOptions())
    assert preview.num_bytes_written == sum(p.stat().st_size for p in tmp_path.rglob("*.jpg"))
