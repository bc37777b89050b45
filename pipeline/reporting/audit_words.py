"""An audit for a person, and as Prometheus metrics. Names judges and models, nobody else."""

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from pipeline.output.audits import Audit, AuditJudge
from pipeline.reporting.labelled import LabelledSeries
from pipeline.reporting.words import format_count


def audit_table(audit: Audit) -> list[tuple[str, str]]:
    """Name and value of what an audit found, the headline first."""
    people = format_count(audit.num_people, "person", "people")
    if not audit.judges:
        return [("audit", "nobody to attack: no photo set with two protected photos")]
    what = (
        f"{audit.attack} on {audit.checkpoint}, {people}, "
        f"{format_count(audit.num_photos, 'photo')}; effect: 1 is as if the person had not been "
        "there, 0 is no protection"
    )
    return [("audit", what), *((f"audit, {_name(of)}", _numbers(of)) for of in audit.judges)]


def _name(of: AuditJudge) -> str:
    if of.in_loss:
        return f"{of.judge} (in a loss)"
    if of.kin_of_loss and of.family:  # a mean over families says so itself
        return f"{of.judge} (kin of a loss)"
    return f"{of.judge} ({of.family})" if of.family and of.family != of.judge else of.judge


def _numbers(of: AuditJudge) -> str:
    if of.effect is None:
        return f"the attack learns nothing from clean photos either (leak {of.leak_clean:.2f})"
    interval = ""
    if of.effect_low is not None and of.effect_high is not None:
        interval = f" [{of.effect_low:.2f}, {of.effect_high:.2f}]"
    smoothed = "-" if of.effect_smoothed is None else f"{of.effect_smoothed:.2f}"
    return (
        f"effect {of.effect:.2f}{interval}, smoothed {smoothed}; leak {of.leak_clean:.2f} clean, "
        f"{of.leak_protected:.2f} protected, floor {of.floor:.2f}"
    )


_GAUGES = (
    ("dladiff_audit_leak_clean", "Likeness that an attack learns from clean photos.", "leak_clean"),
    ("dladiff_audit_leak_protected", "The same from the protected ones.", "leak_protected"),
    ("dladiff_audit_floor", "The same without the person.", "floor"),
    ("dladiff_audit_effect", "Share of the leak that protection takes away.", "effect"),
    ("dladiff_audit_effect_smoothed", "The same on smoothed images.", "effect_smoothed"),
)


def audit_prom_text(audit: Audit, output: str) -> str:
    """An audit in Prometheus' text format; standing is outside, kin or in_loss.

    Args:
        output: ``labelled.output_label`` of OUTPUT.
    """
    registry = CollectorRegistry()
    Gauge("dladiff_audit_people", "People that an audit attacked.", registry=registry).set(
        audit.num_people
    )
    for name, text, field in _GAUGES:
        gauge = Gauge(name, text, ["judge", "family", "standing", "headline"], registry=registry)
        for of in audit.judges:
            value = getattr(of, field)
            if value is not None:
                standing = "in_loss" if of.in_loss else "kin" if of.kin_of_loss else "outside"
                gauge.labels(of.judge, of.family, standing, str(of.headline).lower()).set(value)
    labelled = CollectorRegistry()
    labelled.register(LabelledSeries(registry, output))
    return generate_latest(labelled).decode()
