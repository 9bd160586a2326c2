"""The command line ``fairdiff``: run the study, run one notebook, simulate, look things up.

Bad input of any kind ends in one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from fairdiff_lib.datasets import DATASETS, dataset_of
from fairdiff_lib.disk.files import check_writable, refuse_other, write_json
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.run.graph import GraphRun, Profile, default_cores, print_plan, run_graph
from fairdiff_lib.run.jobs import failure_of
from fairdiff_lib.run.notebook import (
    OURS,
    NotebookFailed,
    find_notebook,
    known_parameters,
    plan_job,
    run_job,
)
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.notebooks import NOTEBOOKS, STUDIES
from fairdiff_lib.settings.options import as_dict
from fairdiff_lib.settings.presets import PRESETS
from fairdiff_lib.study import Study
from fairdiff_lib.workshop.__main__ import add_actions

ROOTS = {  # of folders: default, and what lies there
    "data": ("", "real data; from the project's folder"),
    "runs": ("data/runs", "models and images"),
    "figures": ("figures", "what people read"),
}
SIMULATED = tuple(name for name, entry in DATASETS.items() if entry.simulated)


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are bad input like any other."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    # for every process that we start: threads that wait give their core back; a spinning team of
    # two beside one busy process makes a step of a small network 40 times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        chosen = _parser().parse_args(arguments)
        code: int = chosen.action(chosen)
    except InputError as error:
        print(f"fairdiff: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except NotebookFailed as error:
        print(f"fairdiff: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nothing left to say
        return 0
    except (OSError, MemoryError) as error:  # of the machine, not of the program
        print(f"fairdiff: {str(error) or 'not enough memory'}", file=sys.stderr)
        return 1
    return code


def _parser() -> _Parser:
    parser = _Parser(prog="fairdiff", description=__doc__)
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")

    run = actions.add_parser("run", help="run the graph of notebooks, or what is left of it")
    _add_graph(run)
    _add_set(run)
    run.add_argument("--methods", nargs="+", metavar="M", help="instead of the preset's")
    run.add_argument("--seeds", nargs="+", metavar="N", help="instead of the preset's")
    run.add_argument("--cores", type=int, default=0, metavar="N", help="all of them without this")
    run.add_argument("--dry-run", action="store_true", help="only print the plan, time and disk")
    run.add_argument("--profile", default="local", metavar="P", help="local or slurm")
    run.add_argument("--partition", default="", metavar="N", help="of Slurm, if not the profile's")
    run.set_defaults(action=_run)

    notebook = actions.add_parser("notebook", help="run one notebook")
    notebook.add_argument("name", help="as 05_quality, or 05")
    notebook.add_argument("--preset", help="short for -p preset")
    notebook.add_argument("--dataset", help="short for -p dataset")
    notebook.add_argument("--data-root", metavar="DIR", help="short for -p data_root")
    notebook.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    notebook.add_argument("--output", metavar="FILE", help="the executed copy")
    notebook.add_argument("--threads", type=int, default=0, metavar="N")
    notebook.set_defaults(action=_notebook)

    protocol = actions.add_parser("protocol", help="declare what will be tested, before any image")
    _add_choice(protocol)
    for root in ("data", "runs", "figures"):
        protocol.add_argument(f"--{root}-root", metavar="DIR", default=argparse.SUPPRESS)
    protocol.set_defaults(action=_protocol)

    job = actions.add_parser("job", help="do one job of a graph, as its Snakefile asks")
    job.add_argument("--rule", required=True, metavar="NAME", help="as ham10000_01_cohorts")
    _add_graph(job)
    job.add_argument("--overrides", default="", metavar="TEXT")
    job.add_argument("--threads", type=int, default=1, metavar="N")
    job.set_defaults(action=_job)

    _add_audit(actions.add_parser("audit", help="audit your own generator: two CSV files in"))

    _add_plan(actions.add_parser("plan-size", help="how many subjects an audit of groups needs"))

    trace = actions.add_parser("trace", help="check what a table or figure rests on, link by link")
    trace.add_argument("files", nargs="+", metavar="FILE", help="as figures/.../tab05.csv")
    _add_roots(trace, "runs", "data")
    trace.set_defaults(action=_trace)

    base = actions.add_parser("base", help="train the bases that simulated studies start from")
    base.add_argument("--dataset", nargs="+", default=list(SIMULATED), metavar="D")
    _add_roots(base, "runs")
    base.set_defaults(action=_base)

    verify = actions.add_parser("verify", help="run the smoke study twice and compare; stamps too")
    _add_roots(verify, "figures")
    verify.add_argument("--output", default="build/verify", metavar="DIR", help="emptied first")
    verify.add_argument("--cores", type=int, default=0, metavar="N", help="all of them without")
    verify.add_argument("--stamps-only", action="store_true", help="run nothing")
    said = "only: does the audit say the same on other threads and instructions"
    verify.add_argument("--machine", action="store_true", help=said)
    said = "only: does what lies below this other figures folder, run again, say the same"
    verify.add_argument("--against", metavar="DIR", help=said)
    verify.set_defaults(action=_verify)

    doctor = actions.add_parser("doctor", help="does a run fit: memory, disk, hours")
    _add_choice(doctor)
    _add_roots(doctor, "data", "runs")
    doctor.add_argument("--processes", type=int, default=1, metavar="N", help="that share a run")
    doctor.add_argument("--memory", type=float, default=0.0, metavar="GIB", help="of another GPU")
    doctor.add_argument("--tflops", type=float, default=0.0, metavar="T", help="of another GPU")
    doctor.set_defaults(action=_doctor)

    simulate = actions.add_parser("simulate", help="write a simulated FairGenMed")
    _add_choice(simulate)
    simulate.add_argument("--output", required=True, metavar="DIR", help="made or replaced")
    simulate.set_defaults(action=_simulate)

    workshop = actions.add_parser("workshop", help="seven exercises: build, check, data")
    add_actions(workshop)

    settings = actions.add_parser("settings", help="print the settings of a preset as JSON")
    _add_choice(settings)
    settings.set_defaults(action=_settings)

    listed = actions.add_parser("list", help="datasets, presets, methods, notebooks")
    listed.set_defaults(action=_list)
    return parser


def _add_audit(audit: argparse.ArgumentParser) -> None:
    audit.description = (
        "Compare a generator's images with real ones, overall and by group. Each CSV has a row per "
        "image: path (from the CSV's folder), subject, the attributes, the condition."
    )
    audit.add_argument("--real", required=True, metavar="CSV")
    audit.add_argument("--generated", required=True, metavar="CSV")
    audit.add_argument("--attributes", required=True, metavar="A,B", help="columns, as sex,age")
    audit.add_argument("--condition", default="", metavar="C", help="column; corrects for case mix")
    audit.add_argument("--train", default="", metavar="CSV", help="real images of other subjects")
    audit.add_argument(
        "--features", default="lite0", metavar="F",
        help="lite0 (EfficientNet-lite0), lite0-penultimate, texture, random-conv, encoder, "
        "inception, a hub id or a folder",
    )  # fmt: skip
    audit.add_argument("--revision", default="", metavar="R", help="commit of the hub id")
    audit.add_argument("--unit", default="subject", metavar="U", help="column of what is sampled")
    audit.add_argument("--image-size", type=int, default=0, metavar="N", help="pixels")
    audit.add_argument("--output", default="audit", metavar="DIR", help="card, tables, stamp")
    audit.add_argument("--force", action="store_true", help="replace an earlier audit there")
    audit.set_defaults(action=_audit)


def _add_plan(plan: argparse.ArgumentParser) -> None:
    plan.description = (
        "From a pilot: with which power would an audit of groups of these sizes find a difference, "
        "which one could it detect, how many subjects does it need, and whose next 100 help most?"
    )
    plan.add_argument(
        "--pilot", required=True, metavar="FILE",
        help=".csv: attribute, level, n, and standard_error or low, high (95%%), as an audit's "
        "by_group.csv; .npz: features real and generated [N, D], an array of level names each "
        "attribute",
    )  # fmt: skip
    plan.add_argument("--effect", required=True, type=float, metavar="X", help="in its unit")
    plan.add_argument(
        "--sizes", default="", metavar="S", help="planned, as race:Black=300,race:White=1200"
    )
    plan.add_argument(
        "--where", action="append", default=[], metavar="NAME=VALUE", help="rows, as metric=kid"
    )
    plan.add_argument("--output", default="", metavar="CSV", help="the plan as a table")
    plan.set_defaults(action=_plan)


def _add_graph(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="quick", help="smoke, quick, reference or paper")
    parser.add_argument(
        "--dataset",
        nargs="+",
        default=["fairgenmed_simulated"],
        metavar="D",
        help="in one graph; fairdiff list",
    )
    parser.add_argument(
        "--study", nargs="+", default=["main"], metavar="S", help=f"of {', '.join(STUDIES)}"
    )
    _add_roots(parser, *ROOTS)


def _add_roots(parser: argparse.ArgumentParser, *names: str) -> None:
    for name in names:
        default, what = ROOTS[name]
        parser.add_argument(f"--{name}-root", default=default, metavar="DIR", help=what)


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="quick", help="smoke, quick, reference or paper")
    parser.add_argument("--dataset", default="fairgenmed_simulated", help="see fairdiff list")
    _add_set(parser)


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="as training.steps=20"
    )


def _run(chosen: argparse.Namespace) -> int:
    named = {"methods": chosen.methods, "seeds": chosen.seeds}
    parts = [f"{name}={','.join(values)}" for name, values in named.items() if values]
    graph = _graph(chosen, _overrides([*chosen.set, *parts]))
    if chosen.cores < 0:
        raise InputError(f"--cores {chosen.cores}: expected 1 or more")
    profile = Profile(chosen.profile, chosen.partition)
    cores = chosen.cores or profile.cores or default_cores()
    if chosen.dry_run:
        print_plan(graph, cores, profile)
        return 0
    return run_graph(graph, cores, profile)


def _graph(chosen: argparse.Namespace, overrides: str) -> GraphRun:
    return GraphRun(
        preset=chosen.preset,
        datasets=tuple(chosen.dataset),
        overrides=overrides,
        data_root=chosen.data_root,
        runs_root=chosen.runs_root,
        figures_root=chosen.figures_root,
        names=tuple(chosen.study),
    )


def _overrides(parts: Sequence[str]) -> str:
    for part in parts:
        if any(mark in part for mark in " '\"\n"):
            raise InputError(f"setting {part!r}: expected name=value without spaces or quotes")
    return " ".join(parts)


def _notebook(chosen: argparse.Namespace) -> int:
    short = {name: getattr(chosen, name) for name in ("preset", "dataset", "data_root")}
    given = dict(chosen.p) | {name: value for name, value in short.items() if value}
    job = plan_job(chosen.name, given)
    output = Path(chosen.output or f"{job.path.stem}.executed.ipynb").absolute()
    if output.is_dir():
        raise InputError(f"--output {output}: a folder; expected the executed copy's file")
    check_writable(output.parent)
    with _told(str(given.get("dataset", "")), job.title):
        run_job(job, output, chosen.threads)
    return 0


@contextmanager
def _told(dataset: str, title: str, failed: Path | None = None, output: str = "") -> Iterator[None]:
    """Say when a job starts and ends; where it fails, leave its reason."""
    mark = f"[{dataset}] " if dataset else ""
    started = time.monotonic()
    print(f"{OURS}{mark}{title}: started", file=sys.stderr, flush=True)
    try:
        yield
    except Exception as error:
        known = isinstance(error, InputError | NotebookFailed)
        message = str(error) if known else f"{type(error).__name__}: {error}"
        if failed:
            note = {"title": title, "message": message, "output": output}
            write_json(failed, {**note, "bad_input": isinstance(error, InputError)})
        if known:
            raise type(error)(f"{title}: {message}") from error
        raise
    if failed:
        failed.unlink(missing_ok=True)
    seconds = time.monotonic() - started
    print(f"{OURS}{mark}{title}: done in {seconds:.0f} s", file=sys.stderr, flush=True)


def _protocol(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.studies.verdict.protocol import check_protocol, write_protocol
    from fairdiff_lib.study import Study

    roots = {k: v for k, v in vars(chosen).items() if k.endswith("_root")}
    study = Study.open(chosen.preset, chosen.dataset, chosen.set, **roots)
    path, rule = write_protocol(study), check_protocol(study).rule
    print(f"{path}: protocol {rule.digest}, {len(rule.seeds)} runs")
    for one in rule.tests:
        where = " ".join(x for x in (one.attribute, one.level) if x != "overall")
        told = "testable" if one.testable else f"not testable, would need n {one.n_needed:,.0f}"
        powers = f"power {one.power_nothing:.0%} at 0, {one.power_twice:.0%} at twice X"
        print(f"{one.claim} {one.part} {one.endpoint} {where}: n {one.n}, {powers}; {told}")
    return 0


def _job(chosen: argparse.Namespace) -> int:
    graph = _graph(chosen, chosen.overrides)
    own, job = graph.find(chosen.rule)
    with _told(own.dataset, job.title, failure_of(Path(own.record(job.name))), job.executed):
        if job.entry:
            shared = graph.given(own.dataset)
            known = known_parameters(find_notebook(job.entry.notebook))
            given = {key: value for key, value in shared.items() if key in known}
            given |= {key: value.format(**shared) for key, value in job.parameters.items()}
            planned = plan_job(job.entry.notebook, given)
            run_job(planned, Path(job.executed), chosen.threads)
            own.write_record(job, planned.parameters)
        elif job.fit or job.arm:
            import torch

            torch.set_num_threads(max(1, chosen.threads))
            if job.arm:
                _make_arm(own.study, *job.arm, Path(job.record))
            elif job.fit:
                from fairdiff_lib.classify.runs import read_run

                read_run(own.study, *job.fit)
                named = zip(("source", "seed", "classifier"), job.fit, strict=True)
                own.write_record(job, {"overrides": chosen.overrides, **dict(named)})
        else:
            from fairdiff_lib.studies.verdict.protocol import write_protocol

            write_protocol(own.study)
    return 0


def _make_arm(study: Study, kind: str, arm: str, seed: int, record: Path) -> None:
    """An arm's run of a seed, of one of the studies that have arms."""
    if kind == "ablation":
        from fairdiff_lib.studies.ablation.arms import find_arm
        from fairdiff_lib.studies.ablation.runs import make_run

        make_run(study, find_arm(study.settings, arm), seed)
    elif kind == "loop":
        from fairdiff_lib.studies.retraining import make_generations

        write_json(record, {"runs": make_generations(study, arm, seed)})
    else:
        from fairdiff_lib.studies.matrix import make_runs

        write_json(record, {"runs": make_runs(study, arm, seed)})


def _audit(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.data.own import read_own
    from fairdiff_lib.show.cards import own_card, own_methods
    from fairdiff_lib.show.words import finding
    from fairdiff_lib.studies.own import audit_read, refuse_taken, write_audit

    refuse_taken(chosen.output, chosen.force)
    sides, more = (chosen.real, chosen.generated), (chosen.condition, chosen.train, chosen.unit)
    images = read_own(*sides, chosen.attributes, *more)
    chosen_features = {"features": chosen.features, "revision": chosen.revision}
    result = audit_read(images, **chosen_features, image_size=chosen.image_size)
    folder = write_audit(
        result, chosen.output, own_card(result), own_methods(result), force=chosen.force
    )
    print(finding(result.audit))
    print(f"card: {folder / 'card.html'}; tables and stamp beside it")
    return 0


def _plan(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.run.planning import plan

    _, said = plan(Path(chosen.pilot), chosen.effect, chosen.sizes, chosen.where, chosen.output)
    print(said)
    return 0


def _trace(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.run.verify import broken, count, trace

    code = 0
    for file in chosen.files:
        links = trace(file, chosen.runs_root, chosen.data_root)
        print(file)
        for link in links:
            print(f"  {link.state:12} {link.name:44} {link.detail}")
        print(f"  {count(links)}")
        for link in broken(links):
            print(f"fairdiff: {file}: {link.name}: {link.detail}", file=sys.stderr)
            code = 1
    return code


def _base(chosen: argparse.Namespace) -> int:
    import torch

    from fairdiff_lib.show.cards import write_shipped_card
    from fairdiff_lib.studies.base import check_base
    from fairdiff_lib.train.runs import BASE, seal_base, ship_base, train

    for name in chosen.dataset:
        refuse_unknown("simulated dataset", name, SIMULATED)
    failed = 0
    torch.set_num_threads(1)  # networks this small are slower on two threads
    for name in chosen.dataset:
        study = Study.open("base", name, runs_root=chosen.runs_root)
        train(study, BASE, 0)
        unseen = Study.open("quick", name, runs_root=chosen.runs_root)
        folder, command = ship_base(study), f"fairdiff base --dataset {name}"
        found = check_base(unseen, folder).gates
        seal_base(study, found, command)
        write_shipped_card(study, found)
        failed += int((~found["passed"]).sum())
        print(found.drop(columns="note").to_string(index=False))
        print(f"{dataset_of(name).title}: {int(found['passed'].sum())} of {len(found)} gates "
              f"passed; {folder.relative_to(PROJECT_ROOT)}")  # fmt: skip
    return 1 if failed else 0


def _verify(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.run.agree import check_agreement
    from fairdiff_lib.run.verify import check_machine, check_stamps, check_twice

    place = (PROJECT_ROOT / chosen.output).absolute()
    if chosen.against:
        committed, again = (
            PROJECT_ROOT / chosen.figures_root,
            place.with_name(f"{place.name}-against"),
        )
        problems = check_agreement(Path(chosen.against), committed, again)
    elif chosen.machine:
        problems = check_machine(place.with_name(f"{place.name}-machine"))
    else:
        problems = check_stamps(PROJECT_ROOT / chosen.figures_root)
    if not chosen.stamps_only and not chosen.machine and not chosen.against:
        problems += check_twice(place, chosen.cores or default_cores())
    for problem in problems:
        print(f"fairdiff: verify: {problem}", file=sys.stderr)
    print(f"verify: {f'{len(problems)} problems' if problems else 'all is as it says'}")
    return 1 if problems else 0


def _study(chosen: argparse.Namespace, **roots: str) -> Study:
    return Study.open(chosen.preset, chosen.dataset, _overrides(chosen.set), **roots)


def _doctor(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.run.doctor import advice, examine

    if chosen.processes < 1:
        raise InputError(f"--processes {chosen.processes}: expected 1 or more")
    for name in ("memory", "tflops"):
        if getattr(chosen, name) < 0:
            raise InputError(f"--{name} {getattr(chosen, name)}: expected 0 or more")
    study = _study(chosen, data_root=chosen.data_root, runs_root=chosen.runs_root)
    found = examine(study, chosen.processes, chosen.memory, chosen.tflops)
    for line in found:
        print(line)
    lacking = [line for line in found if not line.fits]
    if any(line.what.startswith("training") for line in lacking):
        print(advice(study, chosen.processes, chosen.memory))
    print("it does not fit" if lacking else "it fits")
    return 1 if lacking else 0


def _simulate(chosen: argparse.Namespace) -> int:
    from importlib.metadata import version

    from fairdiff_lib.show.style import dataset_name
    from fairdiff_lib.sim import croissant

    settings = _study(chosen).settings
    started, output = time.monotonic(), Path(chosen.output).absolute()
    refuse_other(output, need="simulated.json")
    dataset_of(settings.dataset).draw(settings.simulator, output)
    found = croissant.describe(output, dataset_name(settings.dataset), version("fairdiff"))
    write_json(output / croissant.NAME, found)
    seconds = time.monotonic() - started
    print(f"{dataset_name(settings.dataset)}: written to {chosen.output} ({seconds:.0f} s)")
    return 0


def _settings(chosen: argparse.Namespace) -> int:
    print(json.dumps(as_dict(_study(chosen).settings), indent=2))
    return 0


def _list(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.settings.methods import METHODS

    print("datasets: ", ", ".join(DATASETS))
    print("presets:  ", ", ".join(PRESETS))
    print("studies:  ", ", ".join(STUDIES))
    print("methods:  ", ", ".join(METHODS))
    print("notebooks:", ", ".join(NOTEBOOKS))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
