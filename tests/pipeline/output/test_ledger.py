"""Who tried a set, who decided it, and which troubles count against it."""

import dataclasses
import json
import subprocess
import sys
import threading

import pytest

from pipeline.errors import PipelineError, StoreUnreachable
from pipeline.manifest_row import MANIFEST_SCHEMA
from pipeline.output.ledger import Attempt, Ledger
from pipeline.output.publish import publish_commit
from pipeline.reasons import Reason
from pipeline.records import CommitRecord, PhotoSet, RunColumns, StagedRow, photo_row
from pipeline.storage.store import Store
from tests.pipeline.mini_run import done_record, photo_set, source_photo

INPUTS = {"ann/1.jpg": b"one", "ann/2.jpg": b"two"}


@pytest.fixture
def work() -> PhotoSet:
    return photo_set(source_photo(name, content) for name, content in INPUTS.items())


def begun(ledger: Ledger, work: PhotoSet) -> Attempt:
    attempt = ledger.begin(work, max_crashed=99)
    assert isinstance(attempt, Attempt)
    return attempt


def failed(work: PhotoSet, attempt: Attempt) -> CommitRecord:
    rows = [
        StagedRow(photo_row(photo, "failed", work, Reason("ValueError")), photo.output_key)
        for photo in work.photos
    ]
    return CommitRecord(
        work.key, work.generation, work.identity, "", attempt.id, "failed", rows, "ValueError"
    )


def dead_attempts(
    store: Store, work: PhotoSet, count: int, *, node: str | None = None, elsewhere: bool = False
) -> None:
    """Attempts of processes that are gone, here or on another machine."""
    for _ in range(count):
        attempt = Ledger(store, "r", node=node).begin(work, max_crashed=99, max_lost=99)
        assert isinstance(attempt, Attempt)
        process = dataclasses.replace(attempt.process, process_started="0")
        if elsewhere:
            process = dataclasses.replace(process, host="another-pod")
        record = dataclasses.replace(attempt, process=process)
        key = f"runs/r/attempts/{work.key}.{work.generation}/{attempt.id}.json"
        store.write(key, json.dumps(dataclasses.asdict(record)).encode())


def test_a_decided_set_is_not_begun_again(store: Store, work: PhotoSet) -> None:
    ledger = Ledger(store, "r", columns=RunColumns(method_digest="m", seed=7))
    attempt = begun(ledger, work)
    assert ledger.commit(done_record(store, ledger, work, attempt, INPUTS))
    found = Ledger(store, "r").begin(work)
    assert isinstance(found, CommitRecord)
    assert (found.attempt, found.outcome, found.run_id) == (attempt.id, "done", "r")
    assert [*ledger.commits()] == [found]
    assert [*ledger.commit_names()] == [(work.key, 0)]
    for row in (staged.row for staged in found.rows):
        assert (row.method_digest, row.seed, row.run_id) == ("m", 7, "r")
        assert (row.attempt, row.set_key) == (attempt.id, work.key)
        assert row.committed_at == found.committed_at > attempt.started_at


def test_the_first_commit_wins_and_the_loser_leaves_no_data(store: Store, work: PhotoSet) -> None:
    ledger = Ledger(store, "r")
    first, second = begun(ledger, work), begun(ledger, work)
    records = [done_record(store, ledger, work, attempt, INPUTS) for attempt in (first, second)]
    assert ledger.commit(records[1])
    assert not ledger.commit(records[0])
    assert not ledger.commit(failed(work, first))
    staged = {info.key for info in store.list("runs/r/data/")}
    assert staged == {staged.staged_key for staged in records[1].rows}


def test_an_attempt_that_did_not_hear_that_it_won_has_won(store: Store, work: PhotoSet) -> None:
    ledger = Ledger(store, "r")
    record = done_record(store, ledger, work, begun(ledger, work), INPUTS)
    assert ledger.commit(record)
    assert ledger.commit(record)
    assert [*store.list("runs/r/data/")]


def test_of_racing_attempts_one_decides(local_store: Store, work: PhotoSet) -> None:
    ledgers = [Ledger(local_store, "r") for _ in range(12)]
    records = [
        done_record(local_store, ledger, work, begun(ledger, work), INPUTS) for ledger in ledgers
    ]
    won: list[str] = []

    def commit(ledger: Ledger, record: CommitRecord) -> None:
        if ledger.commit(record):
            won.append(record.attempt)

    threads = [
        threading.Thread(target=commit, args=pair) for pair in zip(ledgers, records, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = won
    assert {info.key.split("/")[4] for info in local_store.list("runs/r/data/")} == {winner}


def test_a_failed_set_leaves_no_data_and_opens_the_next_generation(
    local_store: Store, work: PhotoSet
) -> None:
    ledger = Ledger(local_store, "r")
    attempt = begun(ledger, work)
    done_record(local_store, ledger, work, attempt, INPUTS)  # staged, then it failed after all
    assert ledger.decided_generations() == {}
    assert ledger.commit(failed(work, attempt))
    assert [*local_store.list("runs/r/data/")] == []
    assert ledger.decided_generations() == {work.key: 0}
    again = dataclasses.replace(work, generation=1)
    assert ledger.commit(done_record(local_store, ledger, again, begun(ledger, again), INPUTS))
    assert sorted(ledger.commit_names()) == [(work.key, 0), (work.key, 1)]
    assert ledger.decided_generations() == {work.key: 1}
    found = ledger.read_commit(work.key, 1)
    assert found is not None
    assert found.outcome == "done"


def test_a_set_that_ends_its_process_three_times_is_quarantined(
    local_store: Store, work: PhotoSet
) -> None:
    ledger = Ledger(local_store, "r", columns=RunColumns(method_digest="m"))
    dead_attempts(local_store, work, 2)
    begun(ledger, work)  # by this very process, which asks again: it did not end well either
    found = ledger.begin(work)
    assert isinstance(found, CommitRecord)
    assert (found.outcome, found.reason) == ("quarantined", "crashed_3_times")
    assert [staged.row.status for staged in found.rows] == ["quarantined"] * 2
    assert [staged.row.source_uri for staged in found.rows] == [photo.uri for photo in work.photos]
    assert found.rows[0].row.method_digest == "m"
    assert Ledger(local_store, "r").begin(work) == found


def test_a_really_killed_process_counts_as_crashed(local_store: Store, work: PhotoSet) -> None:
    program = (
        "import os, signal, sys\n"
        "from pipeline.output.ledger import Ledger\n"
        "from pipeline.records import PhotoSet\n"
        "from pipeline.storage.store import Store\n"
        "Ledger(Store(sys.argv[1]), 'r').begin(PhotoSet.from_json(sys.argv[2]))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    arguments = [sys.executable, "-c", program, local_store.uri, work.to_json()]
    assert subprocess.run(arguments, timeout=60).returncode == -9
    ledger = Ledger(local_store, "r")
    (attempt,) = ledger.attempts(work.key)
    assert ledger.state_of(attempt) == "crashed"


def test_an_attempt_of_a_process_that_still_lives_does_not_count(
    local_store: Store, work: PhotoSet
) -> None:
    program = (
        "import sys\n"
        "from pipeline.output.ledger import Ledger\n"
        "from pipeline.records import PhotoSet\n"
        "from pipeline.storage.store import Store\n"
        "Ledger(Store(sys.argv[1]), 'r').begin(PhotoSet.from_json(sys.argv[2]))\n"
        "print('begun', flush=True)\n"
        "sys.stdin.read()\n"
    )
    arguments = [sys.executable, "-c", program, local_store.uri, work.to_json()]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        ledger = Ledger(local_store, "r")
        (attempt,) = ledger.attempts(work.key)
        assert ledger.state_of(attempt) == "running"
        assert isinstance(ledger.begin(work, max_crashed=1, max_lost=1), Attempt)
        process.communicate()
    assert ledger.state_of(attempt) == "crashed"


def test_attempts_whose_node_died_are_forgiven_longer(local_store: Store, work: PhotoSet) -> None:
    dead_attempts(local_store, work, 9, node="old-node", elsewhere=True)
    ledger = Ledger(local_store, "r", node="new-node")
    assert {ledger.state_of(attempt) for attempt in ledger.attempts(work.key)} == {"lost"}
    attempt = begun(ledger, work)
    ledger.close(attempt, "store_throttled")
    dead_attempts(local_store, work, 1, node="old-node", elsewhere=True)
    found = ledger.begin(work)
    assert isinstance(found, CommitRecord)
    assert found.reason == "lost_10_times"


def test_a_crash_on_another_node_that_lives_is_a_crash(local_store: Store, work: PhotoSet) -> None:
    dead_attempts(local_store, work, 3, node="neighbour", elsewhere=True)
    ledger = Ledger(local_store, "r", node="here", live_nodes=lambda: ["neighbour"])
    assert isinstance(ledger.begin(work), CommitRecord)


def test_troubles_of_the_environment_never_quarantine_a_set(store: Store, work: PhotoSet) -> None:
    ledger = Ledger(store, "r")
    for _ in range(5):
        attempt = ledger.begin(work)
        assert isinstance(attempt, Attempt)
        ledger.close(attempt, "store_throttled")
    assert {attempt.closed for attempt in ledger.attempts(work.key)} == {"store_throttled"}
    assert isinstance(ledger.begin(work), Attempt)


def test_an_outage_that_prevents_closing_is_made_up_for(
    local_store: Store, work: PhotoSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(local_store, "r")

    def unreachable(*_: object) -> None:
        raise StoreUnreachable("no answer")

    for _ in range(4):
        attempt = ledger.begin(work)
        assert isinstance(attempt, Attempt)
        with monkeypatch.context() as outage:
            outage.setattr(Store, "write", unreachable)
            ledger.close(attempt, "store_unreachable")
            with pytest.raises(StoreUnreachable):
                ledger.begin(work)
    assert isinstance(ledger.begin(work), Attempt)


def test_a_commit_whose_answer_never_came_keeps_its_data(
    local_store: Store, work: PhotoSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(local_store, "r")
    attempt = begun(ledger, work)
    record = done_record(local_store, ledger, work, attempt, INPUTS)
    create = Store.create_exclusive

    def accept_and_hang(store: Store, key: str, data: bytes) -> bool:
        create(store, key, data)
        raise StoreUnreachable("no answer")

    with monkeypatch.context() as outage:
        outage.setattr(Store, "create_exclusive", accept_and_hang)
        with pytest.raises(StoreUnreachable):
            ledger.commit(record)
    ledger.close(attempt, "store_unreachable")
    found = ledger.begin(work)
    assert isinstance(found, CommitRecord)
    assert publish_commit(local_store, found, lambda: True) == 2


def test_attempts_never_share_keys(local_store: Store, work: PhotoSet) -> None:
    ledger = Ledger(local_store, "r")
    first, second = begun(ledger, work), begun(ledger, work)
    assert ledger.staged_key(work.key, first.id, "0.png") != ledger.staged_key(
        work.key, second.id, "0.png"
    )
    for name in ("", "../0.png", "a/b", ".hidden"):
        with pytest.raises(ValueError, match="plain file name"):
            ledger.staged_key(work.key, first.id, name)


def test_a_commit_of_another_version_or_a_damaged_one_says_so(
    local_store: Store, work: PhotoSet
) -> None:
    key = f"runs/r/commits/{work.key}.0.json"
    for data, part in ((b'{"version": 99}', "has version 99"), (b"{", "cannot read")):
        local_store.write(key, data)
        with pytest.raises(PipelineError, match=part):
            Ledger(local_store, "r").begin(work)


def test_a_commit_with_an_unknown_column_or_without_a_needed_one_says_so(
    local_store: Store, work: PhotoSet
) -> None:
    ledger = Ledger(local_store, "r")
    assert ledger.commit(failed(work, begun(ledger, work)))
    key = f"runs/r/commits/{work.key}.0.json"
    content = json.loads(local_store.read(key))
    row = content["rows"][0]
    for damaged in (row | {"psnr": 40.0}, {k: v for k, v in row.items() if k != "output_key"}):
        local_store.write(key, json.dumps(content | {"rows": [damaged]}).encode())
        with pytest.raises(PipelineError, match=r"cannot read .*(psnr|output_key)"):
            ledger.read_commit(work.key)


def test_rows_of_a_commit_are_flat_on_disk(local_store: Store, work: PhotoSet) -> None:
    ledger = Ledger(local_store, "r")
    ledger.commit(done_record(local_store, ledger, work, begun(ledger, work), INPUTS))
    content = json.loads(local_store.read(f"runs/r/commits/{work.key}.0.json"))
    row = content["rows"][0]
    assert row.keys() == {*MANIFEST_SCHEMA.names, "output_key", "staged_key"}
    assert (row["status"], row["output_key"]) == ("protected", "images/ann/1.jpg.png")
