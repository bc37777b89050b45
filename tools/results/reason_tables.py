"""What happens to which file, as tables, from the reasons that the code writes."""

from pipeline.reasons import PASSED_OVER, REASON_KINDS, ReasonClass, ReasonCode, ReasonKind
from tools.results.markdown import markdown_table

_STATUS: dict[ReasonClass, str] = {
    "file": "skipped",
    "access": "skipped",
    "content": "partly_protected",
    "output": "failed",
    "source": "source_gone",
    "set": "deferred",
}
"""Status of a row whose reason is of this class."""
_NO_FACE_STATUS = "skipped; with layer 1 layer1_only"


def reasons_table() -> str:
    """Every reason of a row that is not plainly protected."""
    rows = (
        [f"`{code}`", _status(code, kind), kind.meaning, kind.remedy or ""]
        for code, kind in REASON_KINDS.items()
    )
    return markdown_table(["`reason`", "`status`", "means", "what to do"], rows)


def _status(code: str, kind: ReasonKind) -> str:
    return _NO_FACE_STATUS if code == ReasonCode.NO_FACE else _STATUS[kind.trouble]


def passed_over_table() -> str:
    """Every cause for which a file gets no row."""
    rows = ([f"`{cause}`", words] for cause, words in PASSED_OVER.items())
    return markdown_table(["counted as", "files that are"], rows)


REASON_TABLES = {"reasons": reasons_table, "passed-over": passed_over_table}
"""By the name in the marker."""
