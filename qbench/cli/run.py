"""`qbench run`: execute a suite, print its leaderboard, compare with the baseline."""

from __future__ import annotations

import typer

from qbench.cli import cluster, comparing, executing, on_ray, options
from qbench.cli.selection import select


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command(
        epilog="Examples:  qbench run --suite smoke   |   "
        "qbench run --suite llm_lowbit --only 'method=rtn|gptq,bits=2' --seeds 1   |   "
        "qbench run --suite llm_lowbit --executor ray --address auto"
    )(run)


def run(
    suite: options.SuiteOption,
    only: options.OnlyOption = None,
    seeds: options.SeedsOption = None,
    shard: options.ShardOption = None,
    device: executing.DeviceOption = "auto",
    jobs: executing.JobsOption = None,
    timeout: executing.TimeoutOption = None,
    checkpoint_every: executing.CheckpointOption = executing.CHECKPOINT_SECONDS,
    executor: cluster.ExecutorOption = "local",
    address: cluster.AddressOption = None,
    cpus_per_cell: cluster.CpusOption = None,
    gpus_per_cell: cluster.GpusOption = None,
    spool: cluster.SpoolOption = None,
    out: options.OutOption = None,
    fresh: executing.FreshOption = False,
    json: options.JsonOption = False,
) -> None:
    """Run a suite: what is stored already is not run again; a run, or a training, that was stopped goes on there.

    Prints the leaderboard, what its cells say of the claims, and the comparison with the baseline.

    Ends with 1 where a cell failed or fell back that the baseline does not expect to, or where anything changed from
    the baseline (see `qbench compare`). Where the environment variable GITHUB_STEP_SUMMARY names a file, the comparison
    is appended to it as Markdown.
    """
    from qbench.claims.catalogue import all_claims, judge
    from qbench.report.leaderboard import leaderboard
    from qbench.report.text import render_text
    from qbench.runner.local import check_device
    from qbench.runner.planning import plan
    from qbench.store.folder import RunFolder
    from qbench.suite.enumerate import axes_of, measured_labels, places, probe_places

    check_device(device)
    cluster.check(executor, address, cpus_per_cell, gpus_per_cell, spool)
    if executor == "ray":
        spool = on_ray.check(address, device, gpus_per_cell, spool)
    way = executing.Way(
        device,
        jobs,
        executing.seconds_of(timeout),
        checkpoint_seconds=checkpoint_every,
        cluster=on_ray.Cluster(address, cpus_per_cell, gpus_per_cell, spool) if executor == "ray" else None,
    )
    loaded, cells = select(suite, seeds, only, shard)
    folder = RunFolder(options.run_path(loaded.name, out))
    console = options.console()
    baseline = comparing.read(loaded.name)  # one that cannot be read is told of before anything is run
    with folder.lock():  # first of all: where nothing can be written, nothing is to be fetched or computed
        executing.fetch(cells, console)
        todo = plan(cells, folder, fresh=fresh)
        if spool is not None and fresh:
            on_ray.forget(todo, spool)
        elif spool is not None and on_ray.collect(todo, spool, folder, console):
            todo = plan(cells, folder)
        for path, reason in todo.corrupt.items():
            console.print(f"warning: {path} is no record ({reason}): its cell is run again")
        console.print(
            f"{loaded.name}: {len(todo.todo)} cells to run, {len(todo.stored)} from the records in {folder.path}, "
            f"{len(todo.skipped)} skipped by the suite",
        )
        records = executing.execute(todo, loaded.name, folder, way, console)
    board = leaderboard(records.values(), places(cells), loaded.xref)
    labels = measured_labels(cells)
    held = records.values()
    whole = comparing.whole(loaded, only, seeds, shard)
    outcome = comparing.after_run(
        baseline, held, labels, suite, name=loaded.name, only=only, seeds=seeds, suite_labels=whole
    )
    judged = judge(records.values(), axes_of(cells))
    if json:
        found = {
            "leaderboard": board.to_json(),
            "claims": [one.to_json() for one in judged],
            "comparison": None if outcome.comparison is None else outcome.comparison.to_json(),
        }
        options.print_json(found)
    else:
        from qbench.report.claims import render_claims
        from qbench.report.probes import render_probes

        options.show(render_text(board, options.text_width()))
        if probes := render_probes(records.values(), probe_places(cells)):
            options.show("\n" + probes)
        options.show("\n" + render_claims(judged, list(all_claims())))
        options.show("\n" + outcome.text)
    if outcome.refusal is not None:
        raise outcome.refusal
    unclean = [record.label for record in records.values() if not record.clean and record.label not in outcome.expected]
    if unclean or not outcome.passed:
        raise typer.Exit(1)
