"""What ``dladiff check --ray-address`` asks of every node of a cluster that people started by hand.

``look`` runs on a node; ``node_checks`` judges the answers here. Knows nothing of Ray.
"""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version

from dladiff.config import MethodSettings
from pipeline.catalog.folder import CATALOG_EXTENSIONS
from pipeline.catalog.names import extension
from pipeline.errors import EnvironmentTrouble, PipelineError
from pipeline.inspection.check import Check
from pipeline.models.registry import list_models
from pipeline.pool import READ_CPUS
from pipeline.storage.store import Store, normalise_uri
from pipeline.storage.uris import folder_and_name
from pipeline.worker.code_digest import code_digest

Answer = dict[str, str]
"""Of one node: ``environment``, ``auth``, ``niceness``; ``INPUT``, ``OUTPUT`` and ``models``, empty
where all is well; or ``trouble`` where nobody answered."""


def environment() -> str:
    """Python, package and code of this process, in one line."""
    return f"Python {platform.python_version()}, dladiff {version('dladiff')}, {code_digest()[:12]}"


def look(
    input_uri: str | None, output_uri: str | None, method: MethodSettings | None = None
) -> Answer:
    """On a node: which environment this is, and whether INPUT, OUTPUT and models are in reach.

    Writes, reads and deletes one small object below OUTPUT/locks, where there is an OUTPUT.

    Args:
        method: Whose models have to be there; None: nobody asks.
    """
    answer = {
        "environment": environment(),
        "auth": os.environ.get("RAY_AUTH_MODE", ""),
        "niceness": str(os.nice(0)),
    }
    if method is not None:
        bad = [f"{model.name} {model.state}" for model in list_models(method)]
        answer["models"] = ", ".join(one for one in bad if not one.endswith(" ok"))
    if input_uri is not None:
        uri = normalise_uri(input_uri)
        is_file = extension(uri) in CATALOG_EXTENSIONS
        answer["INPUT"] = _trouble_with(folder_and_name(uri)[0] if is_file else uri)
    if output_uri is not None:
        answer["OUTPUT"] = _trouble_with(output_uri, is_output=True)
    return answer


def node_checks(
    answers: Mapping[str, Answer],
    environ: Mapping[str, str],
    cpus: Mapping[str, float] | None = None,
    threads: int = 1,
) -> list[Check]:
    """One check for each node, and one of the cluster's door.

    Args:
        answers: Of ``look`` by the address of the node.
        environ: Of this process, which has reached the cluster with it.
        cpus: Of each node, as Ray counts them; 0: no work is done there.
        threads: CPUs of a worker.
    """
    needed = threads + READ_CPUS
    checks = [_door(environ)]
    for name, one in sorted(answers.items()):
        check = _node(name, one)
        has = (cpus or {}).get(name, 0.0)
        if check.ok and 0 < has < needed:
            detail = f"{has:g} CPUs hold no worker of {threads} and a reader of {READ_CPUS:g}"
            check = Check(
                check.name, False, detail, f"ray start --num-cpus, or threads below {has:g}"
            )
        checks.append(check)
    return checks


def _door(environ: Mapping[str, str]) -> Check:
    if environ.get("RAY_AUTH_MODE") == "token":
        return Check("cluster", True, "asks for a token")
    return Check(
        "cluster",
        False,
        "OPEN: whoever reaches its ports can run programs on every node",
        "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN for every `ray start` and for this command",
    )


def _node(name: str, answer: Answer) -> Check:
    title = f"node {name}"
    if trouble := answer.get("trouble"):
        remedy = "install the same environment there, or take the node out"
        return Check(title, False, trouble, remedy)
    if answer["environment"] != environment():
        detail = f"{answer['environment']}; here {environment()}"
        return Check(title, False, detail, "install the same version on every node")
    if answer["auth"] != "token":
        remedy = "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN before `ray start` there too"
        return Check(title, False, "OPEN: its Ray was started without a token", remedy)
    if missing := answer.get("models"):
        remedy = "put the same model files under the same path on every node"
        return Check(title, False, f"models: {missing}", remedy)
    for place in ("INPUT", "OUTPUT"):
        if trouble := answer.get(place):
            remedy = "give the node's processes credentials and a way to the store"
            return Check(title, False, f"{place}: {trouble}", remedy)
    if int(answer["niceness"]) > 0:
        remedy = "RAY_worker_niceness=0 before `ray start`, where nobody else needs the machine"
        return Check(title, True, f"works at niceness {answer['niceness']}", remedy)
    return Check(title, True, answer["environment"])


def _trouble_with(uri: str, is_output: bool = False) -> str:
    """Why a place is out of reach; OUTPUT, which the first run makes, has to take an object."""
    store = Store(uri, retry_delays_s=(0.5,))
    try:
        there = store.root_exists()
        if there and is_output:
            store.store_time()
        elif there:
            next(store.folders(""), None)
    except EnvironmentTrouble as error:
        return f"{error.cause}: {error}"
    except PipelineError as error:
        return str(error)
    return "" if there or is_output else "is not there"
