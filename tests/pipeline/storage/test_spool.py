"""Records by parts of the people, more than memory is meant to hold."""

import pytest

from pipeline.storage import spool
from pipeline.storage.spool import NUM_PARTS, PeopleSpool, part_of


def test_every_part_gives_back_its_records_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "_IN_MEMORY", 7)
    records = [(number % 5, ("ann", number)) for number in range(100)]
    kept = PeopleSpool[tuple[str, int]]()
    for part, record in records:
        kept.add(part, record)
    assert len(kept) == 100
    for part in range(5):
        assert kept.part(part) == [record for number, record in records if number == part]
    assert kept.part(5) == []
    assert sorted(kept) == sorted(record for _, record in records)


def test_a_person_is_in_one_part_whatever_the_case_of_the_name() -> None:
    parts = [part_of(f"person-{number}") for number in range(5000)]
    assert set(parts) == set(range(NUM_PARTS))
    assert parts == [part_of(f"PERSON-{number}") for number in range(5000)]
    assert 0 <= part_of("\udcff") < NUM_PARTS
