"""With hidden identities no key in images/ names a person, and one OUTPUT has one way."""

from pathlib import Path

import pytest

from pipeline.config import load_config
from pipeline.errors import ConfigurationError
from pipeline.inspection.explain import explain_photo
from pipeline.inspection.preview import preview_run
from pipeline.options import RunOptions, RunOutcome
from pipeline.output.manifest import newest_state
from pipeline.planning.identity_keys import KEY_VARIABLE
from pipeline.run import run_protection
from pipeline.storage.store import Store
from pipeline.upkeep.forget import forget_identities
from tests.pipeline.mortal_run import CONFIG, OwnProcess
from tests.sample_photos import encode, photo_image

SECRET = "correct horse battery staple"


@pytest.fixture
def album(tmp_path: Path) -> Path:
    for number, name in enumerate(("ann/1.png", "ann/trip/2.png", "bob/1.png")):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(photo_image(32, 32, number), "PNG"))
    return tmp_path / "in"


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, SECRET)


def protect(store: Store, album: Path, identity_keys: str = "hmac") -> RunOutcome:
    operation = CONFIG.operation.model_copy(update={"identity_keys": identity_keys})
    config = CONFIG.model_copy(update={"operation": operation})
    return run_protection(str(album), store, config, pool=OwnProcess(store))


def images(store: Store) -> list[str]:
    return sorted(info.key.removeprefix("images/") for info in store.list("images/"))


def test_keys_are_hidden_and_the_same_in_every_run(store: Store, album: Path) -> None:
    protect(store, album)
    first = images(store)
    folders = {key.split("/")[0] for key in first}
    assert len(folders) == 2
    assert all(len(folder) == 32 and set(folder) <= set("0123456789abcdef") for folder in folders)
    assert [key.split("/", 1)[1] for key in first].count("1.png") == 2
    (album / "ann/new.png").write_bytes(encode(photo_image(32, 32, 9), "PNG"))
    assert protect(store, album).counts == {"protected": 1}
    (new,) = set(images(store)) - set(first)
    assert new.split("/")[0] in folders
    assert new.endswith("/new.png")


def test_no_secret_lies_in_output(local_store: Store, album: Path) -> None:
    protect(local_store, album)
    assert not [
        info.key for info in local_store.list() if SECRET.encode() in local_store.read(info.key)
    ]


def test_the_manifest_still_says_whose_photo_it_is(local_store: Store, album: Path) -> None:
    protect(local_store, album)
    assert {state.identity for state in newest_state(local_store).values()} == {"ann", "bob"}
    assert explain_photo(local_store, f"{album}/ann/1.png")[1].startswith("It is protected")
    forget_identities(local_store, ["ann"])
    assert len(images(local_store)) == 1


def test_one_output_is_not_mixed(local_store: Store, tmp_path: Path, album: Path) -> None:
    protect(local_store, album)
    before = images(local_store)
    with pytest.raises(ConfigurationError, match="was begun with operation"):
        protect(local_store, album, "plain")
    named = Store(str(tmp_path / "named"))
    protect(named, album, "plain")
    with pytest.raises(ConfigurationError, match="holds photos under the names of people"):
        protect(named, album)
    assert images(named) == ["ann/1.png", "ann/trip/2.png", "bob/1.png"]
    assert images(local_store) == before


def test_another_or_no_secret_is_refused(
    local_store: Store, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protect(local_store, album)
    monkeypatch.setenv(KEY_VARIABLE, SECRET + "!")
    with pytest.raises(ConfigurationError, match="is not the one that"):
        protect(local_store, album)
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(ConfigurationError, match=f"at least 16 characters, .* {KEY_VARIABLE}"):
        protect(local_store, album)


def test_a_look_ahead_refuses_as_a_run_does_and_binds_nothing(tmp_path: Path, album: Path) -> None:
    hidden = load_config("zero-shot", overrides=["operation.identity_keys=hmac"])
    output = tmp_path / "out"
    assert preview_run(str(album), str(output), hidden, RunOptions()).num_photos == 3
    assert not output.exists()
    protect(Store(str(output)), album, "plain")
    with pytest.raises(ConfigurationError, match="names of people"):
        preview_run(str(album), str(output), hidden, RunOptions())
