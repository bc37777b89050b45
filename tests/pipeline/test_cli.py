"""The console script: instant help, one-line errors, exit codes, and what each command prints."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from pipeline.cli import app
from pipeline.config import RunConfig, load_config
from pipeline.errors import StoreThrottled
from pipeline.options import RunOptions, RunOutcome
from pipeline.output.audits import Audit
from pipeline.reporting.reporter import Reporter
from pipeline.reporting.tally import Tally
from pipeline.storage.store import Store
from tests.pipeline.protected_album import ProtectedAlbum

pytestmark = pytest.mark.usefixtures("restored_logging")

SCRIPT = str(Path(sys.executable).with_name("dladiff"))
COMMANDS = (
    "protect",
    "plan",
    "status",
    "verify",
    "explain",
    "report",
    "evaluate",
    "audit",
    "check",
    "models",
    "convert",
    "gc",
    "forget",
    "k8s-run",
    "config",
)


@pytest.fixture
def album(tmp_path: Path) -> ProtectedAlbum:
    return ProtectedAlbum(tmp_path)


def dladiff(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="dladiff")


class Run:
    """Stands in for ``run_protection``: remembers what it was asked, returns or raises."""

    def __init__(self, answer: RunOutcome | Exception) -> None:
        self.answer = answer
        self.input_uri = self.output_uri = ""
        self.config = RunConfig()
        self.options = RunOptions()

    def __call__(
        self,
        input_uri: str,
        output_uri: str,
        config: RunConfig,
        options: RunOptions,
        reporter: Reporter,
        tally: Tally,
    ) -> RunOutcome:
        self.input_uri, self.output_uri = input_uri, output_uri
        self.config, self.options = config, options
        if isinstance(self.answer, Exception):
            raise self.answer
        reporter.finished(self.answer)
        return self.answer


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    fake = Run(RunOutcome(run_id="r1", exit_code=0, counts={"protected": 3}, seconds=4))
    monkeypatch.setattr("pipeline.run.run_protection", fake)
    return fake


def test_protect_audits_afterwards_and_keeps_the_runs_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[str, int]] = []

    def audited(store: Store, run_id: str, num_sets: int, *_: object) -> Audit:
        asked.append((run_id, num_sets))
        return Audit(run_id, num_sets, 0, 0, "dreambooth", "embedded", 4, 1.0, 1.0, ())

    monkeypatch.setattr("pipeline.commands.audit.do_audit", audited)
    run.answer = RunOutcome(run_id="r1", exit_code=2)
    done = dladiff("protect", str(tmp_path / "in"), str(tmp_path / "out"), "--audit", "3")
    assert asked == [("r1", 3)]
    assert "nobody to attack" in done.stderr
    assert done.exit_code == 2
    assert dladiff("protect", str(tmp_path / "in"), str(tmp_path / "out")).exit_code == 2
    assert len(asked) == 1


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after some code."""
    code += (
        "\nimport sys; print('\\n'.join(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("arguments", [["--help"], ["protect", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import contextlib, io\n"
        "from pipeline.cli import app\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        f"    app({arguments!r})"
    )
    heavy = {"torch", "ray", "pyarrow", "numpy", "PIL", "yaml", "fsspec", "prometheus_client"}
    assert modules_after(code) & heavy == set()


@pytest.mark.parametrize("arguments", [["config", "show"], ["config", "schema"], ["models"]])
def test_settings_and_models_are_shown_without_torch_or_ray(arguments: list[str]) -> None:
    code = (
        "import contextlib, io\n"
        "from pipeline.cli import app\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        f"    app({arguments!r})"
    )
    assert modules_after(code) & {"torch", "ray", "pyarrow"} == set()


def test_the_installed_script_works() -> None:
    done = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=True)
    for command in COMMANDS:
        assert f" {command} " in done.stdout
    assert "Exit codes: 0 done" in done.stdout
    version = subprocess.run([SCRIPT, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("dladiff 0.")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_documented(command: str) -> None:
    from typer.main import get_command

    group: Any = get_command(app)
    commands: Mapping[str, Any] = (
        group.commands[command].commands
        if command == "config"
        else {command: group.commands[command]}
    )
    for one in commands.values():
        assert one.help
        for parameter in one.params:
            assert getattr(parameter, "help", None), f"{command} {parameter.name}"


def test_without_a_command_the_help_is_shown() -> None:
    result = dladiff()
    assert result.exit_code == 0
    assert "Usage: dladiff" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["protec"], "No such command 'protec'"),
        (["protect", "in"], "Missing argument 'OUTPUT'"),
        (["protect", "in", "out", "--wrokers", "2"], "No such option"),
        (["protect", "in", "out", "--workers", "0"], "--workers"),
        (["protect", "in", "out", "--on-method-change", "ignore"], "--on-method-change"),
        (["plan", "in", "out", "--preset", "quick"], "no preset 'quick': choose one of paper"),
        (["plan", "in", "out", "--config", "none.yaml"], "no configuration file at none.yaml"),
        (["plan", "in", "out", "--set", "loop.num_stepps=3"], "did you mean"),
        (["plan", "in", "out", "--set", "layer2.encoders=[]"], "is now recognisers"),
        (["plan", "ftp://host/in", "out"], "scheme 'ftp' is not supported"),
        (["plan", "nowhere", "out"], "does not exist"),
        (["plan", "in", "in/out"], "lies in INPUT"),
        (["status", "nowhere"], "knows no runs"),
        (["verify", "nowhere"], "there is no OUTPUT at"),
        (["explain", "nowhere", "1.jpg"], "there is no OUTPUT at"),
        (["report", "nowhere"], "there is no OUTPUT at"),
        (["evaluate", "nowhere", "out", "results"], "there is no folder of clean photos at"),
        (["evaluate", ".", "nowhere", "results"], "there is no folder of protected photos at"),
        (["evaluate", ".", ".", "results", "--also", "a=nowhere"], "protected photos at"),
    ],
)
def test_wrong_arguments_exit_with_1_and_one_message(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = dladiff(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_bug_is_one_line_and_a_traceback_only_when_verbose(run: Run) -> None:
    run.answer = ZeroDivisionError("division by zero\nand more")
    quiet = dladiff("protect", "in", "out")
    assert quiet.exit_code == 1
    assert "dladiff: unexpected ZeroDivisionError: division by zero\n" in quiet.stderr
    assert "Traceback" not in quiet.stderr
    loud = dladiff("protect", "in", "out", "--verbose")
    assert loud.exit_code == 1
    assert "Traceback" in loud.stderr


def test_trouble_of_the_environment_exits_with_3(run: Run) -> None:
    run.answer = StoreThrottled("the store asks to slow down")
    result = dladiff("protect", "in", "out")
    assert result.exit_code == 3
    assert "dladiff: store_throttled: the store asks to slow down" in result.stderr


@pytest.mark.parametrize("exit_code", [0, 2, 3])
def test_protect_passes_on_the_exit_code_of_the_run(run: Run, exit_code: int) -> None:
    run.answer = RunOutcome(run_id="r1", exit_code=exit_code, counts={"protected": 3})
    result = dladiff("protect", "in", "out")
    assert result.exit_code == exit_code
    assert "run r1: protected 3" in result.stdout


def test_protect_hands_every_option_to_the_run(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("method: {seed: 5}\noperation: {max_set_photos: 8}\n")
    result = dladiff(
        *("protect", "in", "out", "--preset", "fast", "--config", str(file)),
        *("--set", "loop.num_steps=7", "--set", "read_concurrency=2", "--run-id", "r9"),
        *("--ray-address", "auto", "--workers", "3", "--set", "gpus_per_worker=0.5"),
        *("--on-method-change", "keep", "--retry-failed", "--retry-quarantined"),
        *(
            "--set",
            "max_failed=0.1",
            "--min-target-met",
            "0.8",
            "--wait",
            "--batch",
            "--set",
            "single_writer=true",
            "--log-json",
        ),
        *("--allow-prefix", "s3://a/b", "--allow-prefix", "/c: d", "--metrics-port", "0"),
    )
    assert result.exit_code == 0, result.output
    assert (run.input_uri, run.output_uri) == ("in", "out")
    assert run.options == RunOptions(
        run_id="r9",
        ray_address="auto",
        on_method_change="keep",
        retry_failed=True,
        retry_quarantined=True,
        wait=True,
        batch=True,
        metrics_port=0,
        log_json=True,
    )
    method, operation = run.config.method, run.config.operation
    assert (method.preset, method.seed, method.loop.num_steps) == ("fast", 5, 7)
    assert (operation.workers, operation.gpus_per_worker, operation.max_failed) == (3, 0.5, 0.1)
    assert operation.min_target_met == 0.8
    assert (operation.single_writer, operation.max_set_photos) == (True, 8)
    assert operation.allow_prefixes == ("s3://a/b", "/c: d")
    assert operation.read_concurrency == 2


def test_options_that_are_not_given_leave_the_configuration_alone(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("operation: {workers: 7, single_writer: true, allow_prefixes: [s3://x/y]}\n")
    assert dladiff("protect", "in", "out", "--config", str(file)).exit_code == 0
    assert run.config.operation == load_config(file=file).operation
    assert run.options == RunOptions()


def test_the_shown_configuration_is_a_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "shown.yaml"
    file.write_text(dladiff("config", "show", "--preset", "fast", "--set", "seed=3").stdout)
    assert load_config(file=file) == load_config("fast", overrides=["seed=3"])
    as_json = json.loads(dladiff("config", "show", "--json").stdout)
    assert RunConfig.model_validate(as_json) == load_config()


def test_a_setting_in_vain_is_refused_with_the_one_that_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("method: {preset: zero-shot, loop: {finishing_steps: 90}}\n")
    for given, remedy in (
        (("--preset", "mist", "--set", "surrogates.num_epochs=80"), "loop.num_steps"),
        (("--config", str(file)), "loop.num_steps"),
        (("--preset", "paper", "--set", "budget.floor_share=1"), "preset balanced"),
    ):
        result = dladiff("config", "show", *given)
        assert result.exit_code == 1
        assert "has no effect here" in result.output
        assert remedy in result.output


def test_a_setting_of_before_is_refused_with_where_it_is_now(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("method: {layer1: {likeness: {num_steps: 90}, enabled: true}}\n")
    for given, remedies in (
        (("--config", str(file)), ("num_steps is now loop.num_steps", "enabled is now against")),
        (("--set", "layer2.momentum=0"), ("layer2.momentum is no setting any more",)),
        (("--set", "layer1.surrogate.checkpoint=/x"), ("is now model.checkpoint",)),
        (("--set", "other.name=mist"), ("other.name is now other",)),
        (("--set", "paper.joint_steps=true"), ("take preset paper",)),
    ):
        result = dladiff("config", "show", *given)
        assert result.exit_code == 1
        for remedy in remedies:
            assert remedy in result.output


def test_the_schema_documents_every_key() -> None:
    schema = json.loads(dladiff("config", "schema").stdout)
    assert schema["properties"].keys() == {"method", "operation", "output"}
    levels = schema["$defs"]["BudgetSettings"]["properties"]["zero_shot_levels"]
    assert "in faces alone" in levels["description"]
    assert levels["maximum"] == 64


def test_plan_says_what_would_be_done_and_writes_nothing(
    album: ProtectedAlbum, tmp_path: Path
) -> None:
    target = tmp_path / "new"
    result = dladiff("plan", str(album.input), str(target), "--seconds-per-photo", "30")
    assert result.exit_code == 0
    assert "to do       4 photos of 2 identities in 2 sets" in result.stdout
    assert "cost        about 2 min 00 s of work" in result.stdout
    assert not target.exists()
    counts = json.loads(dladiff("plan", str(album.input), str(target), "--json").stdout)
    assert (counts["num_photos"], counts["num_sets"]) == (4, 2)


def test_plan_shows_the_difference_where_the_method_changed(album: ProtectedAlbum) -> None:
    refused = dladiff("plan", str(album.input), str(album.output))
    assert refused.exit_code == 1
    assert "--on-method-change" in refused.stderr
    kept = dladiff("plan", str(album.input), str(album.output), "--on-method-change", "keep")
    assert "to do       nothing" in kept.stdout


def test_status_verify_and_explain_on_a_finished_run(album: ProtectedAlbum) -> None:
    output = str(album.output)
    assert "run-1, finished, exit code 0" in dladiff("status", output).stdout
    assert json.loads(dladiff("status", output, "--json").stdout)["counts"] == {"protected": 4}
    clean = dladiff("verify", output, str(album.input))
    assert (clean.exit_code, clean.stdout.splitlines()[-1]) == (0, "found       nothing wrong")
    assert "It is protected" in dladiff("explain", output, "ann/1.jpg").stdout


def test_verify_exits_with_2_where_it_finds_something(album: ProtectedAlbum) -> None:
    album.output_file("ann/1").unlink()
    result = dladiff("verify", str(album.output))
    assert result.exit_code == 2
    assert "missing_output 1" in result.stdout
    found = json.loads(dladiff("verify", str(album.output), "--json").stdout)
    assert found["findings"][0]["kind"] == "missing_output"


@pytest.mark.parametrize("command", ["status", "verify", "explain", "plan", "report", "check"])
def test_every_command_logs_at_debug_level_when_verbose(
    album: ProtectedAlbum, tmp_path: Path, command: str
) -> None:
    arguments = {
        "explain": [str(album.output), "ann/1.jpg"],
        "plan": [str(album.input), str(tmp_path / "new")],
        "report": [str(album.output), "--to", str(tmp_path / "look.png")],
        "check": [],
    }.get(command, [str(album.output)])
    logger = logging.getLogger("dladiff")
    dladiff(command, *arguments)
    assert not logger.isEnabledFor(logging.DEBUG)
    dladiff(command, *arguments, "--verbose")
    assert logger.isEnabledFor(logging.DEBUG)


def test_report_writes_where_the_user_says(album: ProtectedAlbum, tmp_path: Path) -> None:
    target = tmp_path / "look.png"
    result = dladiff("report", str(album.output), "--to", str(target), "--photos", "2")
    assert result.exit_code == 0
    assert target.read_bytes().startswith(b"\x89PNG")


def test_check_exits_with_1_where_something_fails(album: ProtectedAlbum, tmp_path: Path) -> None:
    fine = dladiff("check", str(album.input), str(album.output))
    assert fine.exit_code == 0, fine.output
    bad = dladiff("check", str(tmp_path / "nowhere"), str(album.output), "--json")
    assert bad.exit_code == 1
    assert [one["name"] for one in json.loads(bad.stdout) if not one["ok"]] == ["INPUT"]


def test_models_are_listed_with_terms_and_digests() -> None:
    result = dladiff("models", "--json")
    assert result.exit_code == 0
    models = {model["name"]: model for model in json.loads(result.stdout)}
    assert models["sface"]["state"] == "ok"
    assert models["sface"]["terms"].startswith("Apache-2.0")
    assert "terms   Apache-2.0" in dladiff("models").stdout
    missing = dladiff("models", "--set", "detector={kind: insightface, pack: /nowhere}")
    assert missing.exit_code == 1
    assert "remedy" in missing.stdout


def test_no_identity_appears_in_what_protect_prints(run: Run) -> None:
    run.answer = RunOutcome(run_id="r1", exit_code=0, counts={"protected": 3})
    result = dladiff("protect", "/photos/zoe", "/out/zoe", "--log-json")
    assert "zoe" not in result.output
    assert os.environ.get("DLADIFF_RUN_ID") is None
    for line in result.stderr.splitlines():
        assert yaml.safe_load(line)["level"] == "info"
