"""What an evaluation has to do: rows of the result, and the cells they are made of.

Knows people and settings. Runs nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dladiff.evaluation.settings import REMOVAL, AttackName, HandlingName, ViewName
from pipeline.evaluation.cells import (
    AttackCell,
    ChangeCell,
    MeasureCell,
    attack_cell,
    change_cell,
    checkpoint_digest,
    content_key,
    encoders_digest,
    file_digest,
    folder_digest,
    measure_cell,
)
from pipeline.evaluation.people import CLEAN, Person
from pipeline.evaluation.settings import EvaluationSettings


@dataclass(frozen=True)
class PlannedRow:
    """One attack of the result: whom, how, on which photos, and where its numbers come from."""

    identity: str
    attack: AttackName
    handling: HandlingName
    condition: str
    cell: AttackCell
    measure: MeasureCell
    floor: MeasureCell
    """A look at images that this person had no part in, against the same reference."""


@dataclass(frozen=True)
class EvaluationPlan:
    """All rows, and each cell once."""

    people: tuple[Person, ...]
    conditions: tuple[str, ...]
    rows: tuple[PlannedRow, ...]
    changes: Mapping[tuple[str, str], tuple[ChangeCell, ...]]
    """Cells by identity and condition."""

    @property
    def attacks(self) -> list[AttackCell]:
        """The attacks behind the rows and their floors, each once."""
        needed = {key for row in self.rows for key in (row.measure.attack, row.floor.attack)}
        return sorted(needed, key=lambda cell: cell.key)


def make_plan(
    people: Sequence[Person], settings: EvaluationSettings, aligned_faces: bool
) -> EvaluationPlan:
    """Every person under every attack, handling and condition.

    Args:
        people: With the same conditions each.
        settings: Attacks, handlings, judges, checkpoint.
        aligned_faces: Whether the checkpoint has a face template.

    Raises:
        ModelError: If the checkpoint or an encoder is missing.
        ConfigurationError: If the adapter is.
    """
    conditions = tuple(people[0].conditions)
    maker = _CellMaker(settings, aligned_faces)
    rows = [
        _row(people, index, name, handling, condition, maker)
        for index in range(len(people))
        for name in settings.attacks
        for handling in settings.handlings
        for condition in conditions
    ]
    changes = {
        (person.identity, condition): tuple(
            change_cell(*pair)
            for pair in zip(person.conditions[CLEAN], person.conditions[condition], strict=True)
        )
        for person in people
        for condition in conditions
        if condition != CLEAN
    }
    return EvaluationPlan(tuple(people), conditions, tuple(rows), changes)


class _CellMaker:
    """Cells of one evaluation; digests of its models are taken once."""

    def __init__(self, settings: EvaluationSettings, aligned_faces: bool) -> None:
        self.settings = settings
        self.aligned_faces = aligned_faces
        self.view: ViewName = settings.view or ("template" if aligned_faces else "whole")
        self.checkpoint = checkpoint_digest(settings.surrogate)
        self.judges = encoders_digest(settings.judges)
        self.adapter = ""
        self.remover = "" if settings.remover is None else file_digest(Path(settings.remover))
        if "zero_shot" in settings.attacks:
            encoder = encoders_digest((settings.adapter_encoder,))
            adapter = file_digest(settings.adapter_path)
            clip = settings.adapter_clip_encoder
            more: tuple[str, ...] = ()
            if clip is not None:
                more = (settings.adapter_kind, encoders_digest((clip,)))
            elif settings.adapter_controlnet is not None:
                more = (settings.adapter_kind, folder_digest(Path(settings.adapter_controlnet)))
            self.adapter = content_key(adapter, encoder, *more)

    def attack(
        self, person: Person, name: AttackName, handling: HandlingName, condition: str
    ) -> AttackCell:
        adapter = self.adapter if name == "zero_shot" else ""
        remover = (self.remover,) if handling == REMOVAL else ()
        return attack_cell(
            self.settings.attack(name, self.aligned_faces),
            handling,
            self.view,
            person.conditions[condition],
            person.conditions[CLEAN],
            content_key(self.checkpoint, adapter, *remover),
        )

    def untouched(self) -> AttackCell:
        """What the checkpoint shows before anybody customised it."""
        attack = self.settings.attack("untouched", self.aligned_faces)
        return attack_cell(attack, "none", self.view, (), (), content_key(self.checkpoint, ""))

    def look(self, cell: AttackCell, person: Person) -> MeasureCell:
        return measure_cell(cell, person.reference, self.judges)


def _row(
    people: Sequence[Person],
    index: int,
    name: AttackName,
    handling: HandlingName,
    condition: str,
    maker: _CellMaker,
) -> PlannedRow:
    person = people[index]
    cell = maker.attack(person, name, handling, condition)
    if name == "zero_shot" and len(people) > 1:
        # An adapter always shows somebody: its floor is what another person's photos give.
        floor = maker.attack(people[(index + 1) % len(people)], name, handling, CLEAN)
    else:
        floor = maker.untouched()
    return PlannedRow(
        identity=person.identity,
        attack=name,
        handling=handling,
        condition=condition,
        cell=cell,
        measure=maker.look(cell, person),
        floor=maker.look(floor, person),
    )
