"""``dladiff k8s-run``: what a CronJob's pod does."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.arguments import Verbose


def k8s_run(
    manifest: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="YAML with one RayJob, e.g. from `kubectl kustomize`; other kinds in it are "
            "left alone.",
            show_default=False,
        ),
    ],
    name: Annotated[
        str,
        typer.Option(
            envvar="DLADIFF_JOB_NAME",
            help="Name of the RayJob and of its run: that of the pod's own Job.",
            show_default=False,
        ),
    ],
    owner_uid: Annotated[
        str | None,
        typer.Option(
            metavar="UID",
            envvar="DLADIFF_JOB_UID",
            help="UID of the pod's own Job, which the RayJob is then deleted with.",
        ),
    ] = None,
    poll_s: Annotated[
        float,
        typer.Option("--poll-seconds", min=0.1, help="Seconds between two looks at the RayJob."),
    ] = 15.0,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines.")] = False,
    verbose: Verbose = False,
) -> None:
    """Create a RayJob from a pod in the cluster, and wait for its end.

    A RayJob of that name that this Job created before is taken over, so a killed pod may be
    started again. Volumes that the RayJob mounts must exist, and the Jobs of their names that
    fill them be complete: it waits for them before it asks for GPUs. The exit code is the run's
    own where the operator passes it on; 3 where a deadline or lost machines ended it, and the
    next run goes on.
    """
    from pipeline.kubernetes.api import RayJobApi, access_in_cluster
    from pipeline.kubernetes.follow import run_rayjob
    from pipeline.kubernetes.rayjob import Owner, named_rayjob, read_rayjob
    from pipeline.kubernetes.volumes import wait_for_volumes
    from pipeline.reporting.logs import set_up_logging

    set_up_logging(as_json=log_json, verbose=verbose)
    template = read_rayjob(manifest)
    access = access_in_cluster()
    owner = Owner(name, owner_uid) if owner_uid else None
    namespace = (template.get("metadata") or {}).get("namespace") or access.namespace
    rayjob = named_rayjob(template, name, namespace, owner)
    api = RayJobApi(access)
    wait_for_volumes(api, rayjob, poll_s)
    state = run_rayjob(api, rayjob, owner, poll_s)
    raise typer.Exit(state.exit_code)
