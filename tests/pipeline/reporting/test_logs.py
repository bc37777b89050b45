"""Logging: formats, levels, and that nobody is named at info level."""

import io
import json
import logging

import pytest

from pipeline.reporting.logs import set_up_logging

pytestmark = pytest.mark.usefixtures("restored_logging")


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def test_json_lines_can_be_parsed(stream: io.StringIO) -> None:
    set_up_logging(as_json=True, stream=stream)
    logging.getLogger("dladiff.run").warning("deferred %d sets", 3)
    entry = json.loads(stream.getvalue())
    assert entry["message"] == "deferred 3 sets"
    assert entry["level"] == "warning"
    assert entry["logger"] == "dladiff.run"
    assert entry["time"].endswith("+00:00")


def test_debug_lines_appear_only_when_verbose(stream: io.StringIO) -> None:
    logger = set_up_logging(stream=stream)
    logger.debug("details")
    assert stream.getvalue() == ""
    set_up_logging(stream=stream, verbose=True).debug("details")
    assert "details" in stream.getvalue()


def test_setting_up_twice_says_things_once(stream: io.StringIO) -> None:
    set_up_logging(stream=stream)
    set_up_logging(stream=stream).info("once")
    assert stream.getvalue().count("once") == 1


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "cannot read s3://bucket/zoe/1.jpg",
        "cannot read file:///photos/zoe/1.HEIC: denied",
        "[Errno 13] Permission denied: '/photos/zoe/holiday.png'",
        "cannot decode zoe.jpeg",
        "cannot read '/photos/zoe miller/1.jpg'",
        "no s3://bucket/zoe miller/1 (copy).jpg",
        "put of images/zoe/1.jpg.png failed",
    ],
)
def test_addresses_and_names_of_photos_are_hidden(
    text: str, as_json: bool, stream: io.StringIO
) -> None:
    set_up_logging(as_json=as_json, stream=stream).warning(text)
    assert "<photo>" in stream.getvalue()
    assert "zoe" not in stream.getvalue()


@pytest.mark.parametrize("as_json", [False, True])
def test_an_exception_is_named_without_its_text(as_json: bool, stream: io.StringIO) -> None:
    logger = set_up_logging(as_json=as_json, stream=stream)
    try:
        raise FileNotFoundError("/photos/zoe/1.jpg")
    except FileNotFoundError:
        logger.exception("a photo could not be read")
    assert "FileNotFoundError" in stream.getvalue()
    assert "zoe" not in stream.getvalue()


def test_a_verbose_log_keeps_names_and_tracebacks(stream: io.StringIO) -> None:
    logger = set_up_logging(stream=stream, verbose=True)
    try:
        raise FileNotFoundError("/photos/zoe/1.jpg")
    except FileNotFoundError:
        logger.exception("no %s", "/photos/zoe/1.jpg")
    assert stream.getvalue().count("/photos/zoe/1.jpg") >= 2
    assert "Traceback" in stream.getvalue()
