"""A tool that is missing may cost a laptop a test, and continuous integration the build."""

import pytest

from tests.needed_tools import need


def test_a_missing_tool_is_an_error_under_ci_and_a_skip_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert need("sh", package="dash").endswith("/sh")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no nosuchtool: apt-get install some-package"):
        need("nosuchtool", package="some-package")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="no nosuchtool"):
        need("nosuchtool", package="some-package")
