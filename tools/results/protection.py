"""``results/protection.json`` as typed values, and the tables that README and docs show of it.

A value that was not measured is ``null`` there and "not measured" here: never left out in silence.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tools.results.markdown import RESULTS, markdown_table

UNMEASURED = "not measured"


class _Read(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


Estimate = Annotated[tuple[float, ...], Field(min_length=1, max_length=3)]
"""The mean over people; with its 95 % bootstrap interval where three values are given."""


class Judge(_Read):
    """A recogniser that looks at generated images."""

    in_loss: bool
    kin_of_loss: bool
    """Of the family of one in the loss."""


class Effect(_Read):
    """The share of the leak that protection takes away, as one judge sees it."""

    plain: Estimate
    smoothed: Estimate


class LoraEffect(_Read):
    """The same where a LoRA is trained, by one judge."""

    judge: str
    effect: Estimate
    people: int


class Jod(_Read):
    """What the change costs the eye, in just-objectionable differences; 10: no difference."""

    at_1x: float
    at_2x: float
    """Shown at twice its size."""


class OnPhoto(_Read):
    """Mean cosine of a recogniser on the photo to the clean face."""

    plain: float
    after_jpeg: float
    """After JPEG 75 and half size."""


class PresetResult(_Read):
    """What was measured of one preset."""

    people: int
    levels: tuple[int, int]
    """Largest change in faces and outside."""
    effect: dict[str, Effect]
    """By judge; one that was not asked is left out."""
    lora: LoraEffect | None
    psnr_db: float
    lpips: float
    jod: Jod | None
    on_photo: dict[str, OnPhoto]
    core_seconds: float


class ProtectionResults(_Read):
    """The whole file."""

    measured: str
    command: str
    judges: dict[str, Judge]
    presets: dict[str, PresetResult]

    @model_validator(mode="after")
    def _known_judges(self) -> Self:
        for name, preset in self.presets.items():
            unknown = set(preset.effect) - set(self.judges)
            if unknown:
                raise ValueError(f"{name}: judges that are not in the list: {sorted(unknown)}")
        return self

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads the file of a folder of results."""
        return cls.model_validate_json((folder / "protection.json").read_text())


def summary_table(results: ProtectionResults) -> str:
    """The README's: best and worst judge, what it costs the eye, what it costs in seconds."""
    outside = [name for name, judge in results.judges.items() if not judge.in_loss]
    presets = results.presets.values()

    def effects(preset: PresetResult) -> list[tuple[str, Effect]]:
        seen = [(name, preset.effect[name]) for name in outside if name in preset.effect]
        return sorted(seen, key=lambda item: item[1].plain[0])

    def best(preset: PresetResult) -> str:
        name, effect = effects(preset)[-1]
        return f"{_estimate(effect.plain)} {name}"

    def worst(preset: PresetResult) -> str:
        name, effect = effects(preset)[0]
        return f"**{_estimate(effect.plain)}** {name}"

    def worst_smoothed(preset: PresetResult) -> str:
        return _estimate(effects(preset)[0][1].smoothed)

    rows: list[tuple[str, Callable[[PresetResult], str]]] = [
        ("effect by the best judge in no loss", best),
        ("effect by the worst judge in no loss", worst),
        ("the worst, images smoothed", worst_smoothed),
        ("effect where a LoRA is trained", _lora),
        (
            "what it costs the eye: JOD at its size; at twice; PSNR",
            lambda one: f"{_jod(one.jod)}; {one.psnr_db:.1f} dB",
        ),
        ("seconds of a core, a photo", lambda one: f"{one.core_seconds:g}"),
    ]
    return markdown_table(
        ["", *(f"`{name}`, {one.people} people" for name, one in results.presets.items())],
        ([text, *(cell(preset) for preset in presets)] for text, cell in rows),
    )


def judges_table(results: ProtectionResults) -> str:
    """The documents': every judge, as generated and smoothed."""
    header = ["judge"]
    for name in results.presets:
        header += [f"`{name}`", "smoothed"]
    rows = []
    for name, judge in results.judges.items():
        kind = "in the loss" if judge.in_loss else "kin of one in the loss"
        kind = kind if judge.in_loss or judge.kin_of_loss else "of a family outside every loss"
        row = [f"{name}, {kind}"]
        for preset in results.presets.values():
            effect = preset.effect.get(name)
            row += (
                [UNMEASURED, UNMEASURED]
                if effect is None
                else [_estimate(effect.plain), _estimate(effect.smoothed)]
            )
        rows.append(row)
    return markdown_table(header, rows)


def photo_table(results: ProtectionResults) -> str:
    """The documents': the photos themselves, without any attack."""
    presets = results.presets.values()
    names = dict.fromkeys(name for preset in presets for name in preset.on_photo)

    def on_photo(preset: PresetResult, name: str) -> str:
        seen = preset.on_photo.get(name)
        return UNMEASURED if seen is None else f"{_number(seen.plain)}; {_number(seen.after_jpeg)}"

    rows = [
        ["largest change in faces / outside", *(f"{a} / {b} levels" for a, b in _levels(presets))],
        ["PSNR, median", *(f"{one.psnr_db:.1f} dB" for one in presets)],
        ["LPIPS (AlexNet), median", *(_number(one.lpips, 3) for one in presets)],
        ["JOD at its size; at twice", *(_jod(one.jod) for one in presets)],
        *(
            [
                f"{name} on the photo; after JPEG 75 and half size",
                *(on_photo(p, name) for p in presets),
            ]
            for name in names
        ),
    ]
    return markdown_table(["", *(f"`{name}`" for name in results.presets)], rows)


PROTECTION_TABLES: dict[str, Callable[[], str]] = {
    "protection": lambda: summary_table(ProtectionResults.read(RESULTS)),
    "protection-judges": lambda: judges_table(ProtectionResults.read(RESULTS)),
    "protection-photos": lambda: photo_table(ProtectionResults.read(RESULTS)),
}
"""By the name in a document's marker."""


def _levels(presets: Iterable[PresetResult]) -> list[tuple[int, int]]:
    return [preset.levels for preset in presets]


def _lora(preset: PresetResult) -> str:
    if preset.lora is None:
        return UNMEASURED
    return f"{_estimate(preset.lora.effect)} {preset.lora.judge}, {preset.lora.people} people"


def _jod(jod: Jod | None) -> str:
    return UNMEASURED if jod is None else f"{jod.at_1x:.2f}; {jod.at_2x:.2f}"


def _estimate(values: Estimate) -> str:
    mean, *interval = (_number(value) for value in values)
    return f"{mean} ({'-'.join(interval)})" if interval else mean


def _number(value: float, digits: int = 2) -> str:
    """``.35``, ``-.02``, ``1.08``: no zero before the point."""
    return f"{value:.{digits}f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.{digits}f}"
