"""The command line ``fairdiff``: run the study, run one notebook, simulate, look things up.

Bad input of any kind ends in one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from fairdiff_lib.datasets import DATASETS, dataset_of
from fairdiff_lib.disk.files import refuse_other, write_json
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.run.graph import (
    Study,
    default_cores,
    print_plan,
    run_graph,
    studies_of,
)
from fairdiff_lib.run.notebook import (
    OURS,
    NotebookFailed,
    all_notebooks,
    failure_of,
    folder_bytes,
    plan_job,
    run_job,
    write_record,
)
from fairdiff_lib.run.profiles import Profile
from fairdiff_lib.run.timings import note_timing, read_timings, write_expected
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.notebooks import STUDIES
from fairdiff_lib.settings.options import as_dict
from fairdiff_lib.settings.presets import PRESETS

if TYPE_CHECKING:
    from fairdiff_lib.data.cohort import Cohort


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are bad input like any other."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script.

    Parameters
    ----------
    arguments : sequence of str, optional
        Without them, those of the process.

    Returns
    -------
    int
        0 done, 1 failed, 2 bad input, 130 interrupted.
    """
    try:
        chosen = _parser().parse_args(arguments)
        code: int = chosen.action(chosen)
    except InputError as error:
        print(f"fairdiff: {error}", file=sys.stderr)
        return 2
    except NotebookFailed as error:
        print(f"fairdiff: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nothing left to say
        return 0
    return code


def _parser() -> _Parser:
    parser = _Parser(prog="fairdiff", description=__doc__)
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")

    run = actions.add_parser("run", help="run the graph of notebooks, or what is left of it")
    _add_choice(run, several=True)
    run.add_argument(
        "--study",
        nargs="+",
        default=["main"],
        metavar="S",
        help=f"of {', '.join(STUDIES)}",
    )
    run.add_argument("--methods", nargs="+", metavar="M", help="instead of the preset's")
    run.add_argument("--seeds", nargs="+", metavar="N", help="instead of the preset's")
    run.add_argument(
        "--data-root", default="", metavar="DIR", help="real data; from the project's folder"
    )
    run.add_argument("--runs-root", default="data/runs", metavar="DIR", help="models and images")
    run.add_argument("--figures-root", default="figures", metavar="DIR", help="what people read")
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
    notebook.add_argument("--record", metavar="FILE", help="written last; the Snakefile's output")
    notebook.add_argument("--made", metavar="DIR", help="folder whose size the record notes")
    notebook.set_defaults(action=_notebook)

    arm = actions.add_parser("arm", help="make an arm's runs of one seed, of a study of arms")
    arm.add_argument("name", metavar="ARM", help="as fairdiffusion, or real_and_synthetic")
    arm.add_argument("--seed", type=int, required=True, metavar="N")
    arm.add_argument("--study", default="ablation", choices=tuple(MAKERS))
    arm.add_argument("--preset", default="quick")
    arm.add_argument("--dataset", default="fairgenmed_simulated")
    arm.add_argument("--overrides", default="", metavar="TEXT", help="of the whole study")
    for name, default in (("data", ""), ("runs", "data/runs"), ("figures", "figures")):
        arm.add_argument(f"--{name}-root", default=default, metavar="DIR")
    arm.add_argument("--threads", type=int, default=1, metavar="N")
    arm.add_argument("--record", metavar="FILE", help="beside it a failure leaves its line")
    arm.set_defaults(action=_arm)

    _add_audit(actions.add_parser("audit", help="audit your own generator: two CSV files in"))

    trace = actions.add_parser("trace", help="check what a table or figure rests on, link by link")
    trace.add_argument("files", nargs="+", metavar="FILE", help="as figures/.../tab05.csv")
    trace.add_argument("--runs-root", default="data/runs", metavar="DIR", help="of its run")
    trace.add_argument("--data-root", default="", metavar="DIR", help="of its run, real data")
    trace.set_defaults(action=_trace)

    verify = actions.add_parser("verify", help="run the smoke study twice and compare; stamps too")
    verify.add_argument("--figures-root", default="figures", metavar="DIR", help="whose stamps")
    verify.add_argument("--output", default="build/verify", metavar="DIR", help="emptied first")
    verify.add_argument("--cores", type=int, default=0, metavar="N", help="all of them without")
    verify.add_argument("--stamps-only", action="store_true", help="run nothing")
    verify.set_defaults(action=_verify)

    book = actions.add_parser("book", help="build what people read into a site, offline")
    book.add_argument("--figures-root", default="figures", metavar="DIR", help="what it is made of")
    book.add_argument("--output", default="build/book", metavar="DIR", help="its html/ is the site")
    book.set_defaults(action=_book)

    simulate = actions.add_parser("simulate", help="write a simulated FairGenMed")
    _add_choice(simulate)
    simulate.add_argument("--output", required=True, metavar="DIR", help="made or replaced")
    simulate.set_defaults(action=_simulate)

    settings = actions.add_parser("settings", help="print the settings of a preset as JSON")
    _add_choice(settings)
    settings.set_defaults(action=_settings)

    actions.add_parser("list", help="datasets, presets, methods, notebooks").set_defaults(
        action=_list
    )

    bench = actions.add_parser("bench", help="print what jobs took, or what the audit takes")
    bench.add_argument(
        "what", nargs="?", default="jobs", choices=("jobs", "audit", "optimiser"),
        help="jobs: as noted in --runs-root; audit, optimiser: measured now, in some minutes",
    )  # fmt: skip
    bench.add_argument("--runs-root", default="data/runs", metavar="DIR", help="of jobs")
    bench.add_argument("--write", action="store_true", help="jobs: into expected_seconds.json")
    bench.add_argument("--images", type=int, default=10_000, metavar="N", help="audit: of KID")
    bench.add_argument("--features", type=int, default=2048, metavar="D", help="audit: their width")
    bench.add_argument("--resamples", type=int, default=1000, metavar="R", help="audit: of FID")
    bench.add_argument("--output", default="", metavar="CSV", help="the table and its stamp")
    bench.add_argument("--surfaces", type=int, default=20, metavar="N", help="optimiser: simulated")
    bench.add_argument("--windows", type=int, default=30, metavar="N", help="optimiser: of each")
    bench.set_defaults(action=_bench)
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
        "--features", default="texture", metavar="F",
        help="texture or random-conv (no download), encoder, inception, a hub id or a folder",
    )  # fmt: skip
    audit.add_argument("--revision", default="", metavar="R", help="commit of the hub id")
    audit.add_argument("--unit", default="subject", metavar="U", help="column of what is sampled")
    audit.add_argument("--image-size", type=int, default=0, metavar="N", help="pixels")
    audit.add_argument("--output", default="audit", metavar="DIR", help="card, tables, stamp")
    audit.add_argument("--force", action="store_true", help="replace an earlier audit there")
    audit.set_defaults(action=_audit)


def _add_choice(parser: argparse.ArgumentParser, several: bool = False) -> None:
    parser.add_argument("--preset", default="quick", help="smoke, quick, reference or paper")
    usual = "fairgenmed_simulated"
    if several:
        parser.add_argument(
            "--dataset", nargs="+", default=[usual], metavar="D", help="in one graph; fairdiff list"
        )
    else:
        parser.add_argument("--dataset", default=usual, help="see fairdiff list")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="as training.steps=20"
    )


def _run(chosen: argparse.Namespace) -> int:
    parts = list(chosen.set)
    for name in ("methods", "seeds"):
        values = getattr(chosen, name)
        if values:
            parts.append(f"{name}={','.join(values)}")
    studies = studies_of(
        chosen.dataset,
        chosen.study,
        preset=chosen.preset,
        overrides=_overrides(parts),
        data_root=chosen.data_root,
        runs_root=chosen.runs_root,
        figures_root=chosen.figures_root,
    )
    if chosen.cores < 0:
        raise InputError(f"--cores {chosen.cores}: expected 1 or more")
    profile = Profile(chosen.profile, chosen.partition)
    cores = chosen.cores or profile.cores or default_cores()
    if chosen.dry_run:
        print_plan(studies, cores, profile)
        return 0
    return run_graph(studies, cores, profile)


def _overrides(parts: Sequence[str]) -> str:
    for part in parts:
        if any(mark in part for mark in " '\"\n"):
            raise InputError(f"setting {part!r}: expected name=value without spaces or quotes")
    return " ".join(parts)


def _notebook(chosen: argparse.Namespace) -> int:
    given = dict(chosen.p)
    for name in ("preset", "dataset", "data_root"):
        if getattr(chosen, name):
            given[name] = getattr(chosen, name)
    job = plan_job(chosen.name, given)
    output = Path(chosen.output or f"{job.path.stem}.executed.ipynb").resolve()
    record = Path(chosen.record) if chosen.record else None
    where = job.parameters.get("dataset", "")
    _say(where, f"{job.title}: started")
    try:
        measured = run_job(job, output, chosen.threads)
    except (InputError, NotebookFailed) as error:
        message = str(error)
        if record:
            bad = isinstance(error, InputError)
            note = {"title": job.title, "message": message, "output": str(output), "bad_input": bad}
            write_json(failure_of(record), note)
        raise type(error)(f"{job.title}: {message}") from error
    _say(where, f"{job.title}: done in {measured['seconds']:.0f} s")
    if record:
        made = folder_bytes(Path(chosen.made)) if chosen.made else 0
        measured["made_mb"] = round(made / 1e6, 1)
        runs = PROJECT_ROOT / job.parameters["runs_root"]
        note_timing(runs, job, chosen.threads, measured)
        write_record(record, job, measured)
    return 0


def _arm(chosen: argparse.Namespace) -> int:
    title = f"arm {chosen.name} seed={chosen.seed}"
    _say(chosen.dataset, f"{title}: started")
    started = time.monotonic()
    record = Path(chosen.record) if chosen.record else None
    try:
        made = _make_arm(chosen)
    except InputError as error:
        if record:
            note = {"title": title, "message": str(error), "output": "", "bad_input": True}
            write_json(failure_of(record), note)
        raise InputError(f"{title}: {error}") from error
    if record:
        failure_of(record).unlink(missing_ok=True)
    seconds = time.monotonic() - started
    _say(chosen.dataset, f"{title}: {made} in {seconds:.0f} s")
    return 0


def _say(dataset: str, text: str) -> None:
    """Progress: `fairdiff run` shows such lines."""
    print(f"{OURS}[{dataset}] {text}", file=sys.stderr, flush=True)


def _make_arm(chosen: argparse.Namespace) -> str:
    roots = chosen.data_root, chosen.runs_root, chosen.figures_root
    study = Study(chosen.preset, chosen.dataset, chosen.overrides, *roots, study=chosen.study)
    study.check()
    return MAKERS[chosen.study](study, chosen)


def _make_ablation(study: Study, chosen: argparse.Namespace) -> str:
    from fairdiff_lib.studies.ablation.arms import find_arm, seeds_of

    arm = find_arm(study.settings, chosen.name)
    _refuse_seed(chosen.seed, seeds_of(study.settings, arm))
    from fairdiff_lib.studies.ablation.runs import make_run

    cohort = _prepare_arm(study, chosen.threads)
    return make_run(study.settings, study.layout, cohort, arm, chosen.seed).name


def _make_matrix(study: Study, chosen: argparse.Namespace) -> str:
    from fairdiff_lib.studies.plans import shares_of

    shares = shares_of(study.settings.matrix, chosen.name)
    _refuse_seed(chosen.seed, study.settings.matrix.seeds)
    from fairdiff_lib.studies.matrix import make_runs
    from fairdiff_lib.study import Study as Opened

    _prepare_arm(study, chosen.threads)
    notes = make_runs(Opened(study.settings, study.layout), chosen.name, chosen.seed)
    if chosen.record:
        write_json(Path(chosen.record), {"runs": notes})
    return f"{len(shares)} classifier{'s' * (len(shares) > 1)}"


MAKERS = {"ablation": _make_ablation, "matrix": _make_matrix}  # studies that have arms


def _refuse_seed(seed: int, known: Sequence[int]) -> None:
    if seed not in known:
        raise InputError(f"--seed {seed}: expected one of {', '.join(map(str, known))}")


def _prepare_arm(study: Study, threads: int) -> Cohort:
    """The cohort, and as many threads as were given."""
    import torch

    from fairdiff_lib.study import load_cohort

    torch.set_num_threads(max(1, threads))
    return load_cohort(study.settings, study.layout)


def _audit(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.show.cards import finding, own_card
    from fairdiff_lib.studies.own import audit_own, read_own, refuse_taken, write_audit

    refuse_taken(chosen.output, chosen.force)
    names = [name.strip() for name in chosen.attributes.split(",")]
    images = read_own(
        chosen.real, chosen.generated, names, chosen.condition, chosen.train, chosen.unit
    )
    result = audit_own(
        images,
        features=chosen.features,
        revision=chosen.revision,
        image_size=chosen.image_size,
    )
    folder = write_audit(result, chosen.output, own_card(result), force=chosen.force)
    print(finding(result.audit))
    print(f"card: {folder / 'card.html'}; tables and stamp beside it")
    return 0


def _trace(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.run.links import broken, count
    from fairdiff_lib.run.trace import trace

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


def _verify(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.run.verify import check_stamps, check_twice

    problems = check_stamps(PROJECT_ROOT / chosen.figures_root)
    if not chosen.stamps_only:
        place = (PROJECT_ROOT / chosen.output).resolve()
        problems += check_twice(place, chosen.cores or default_cores())
    for problem in problems:
        print(f"fairdiff: verify: {problem}", file=sys.stderr)
    print(f"verify: {f'{len(problems)} problems' if problems else 'all is as it says'}")
    return 1 if problems else 0


def _book(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.run.book import make_book

    figures = PROJECT_ROOT / chosen.figures_root
    page, problems = make_book(figures, (PROJECT_ROOT / chosen.output).resolve())
    for problem in problems:
        print(f"fairdiff: book: {problem}", file=sys.stderr)
    print(f"{len(problems)} problems; {page}" if problems else f"book: {page}")
    return 1 if problems else 0


def _simulate(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.show.style import dataset_name

    settings = Study(chosen.preset, chosen.dataset, _overrides(chosen.set)).settings
    started, output = time.monotonic(), Path(chosen.output).resolve()
    refuse_other(output, need="simulated.json")
    dataset_of(settings.dataset).draw(settings.simulator, output)
    seconds = time.monotonic() - started
    print(f"{dataset_name(settings.dataset)}: written to {chosen.output} ({seconds:.0f} s)")
    return 0


def _settings(chosen: argparse.Namespace) -> int:
    settings = Study(chosen.preset, chosen.dataset, _overrides(chosen.set)).settings
    print(json.dumps(as_dict(settings), indent=2))
    return 0


def _list(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.settings.methods import METHODS

    print("datasets: ", ", ".join(DATASETS))
    print("presets:  ", ", ".join(PRESETS))
    print("studies:  ", ", ".join(STUDIES))
    print("methods:  ", ", ".join(METHODS))
    print("notebooks:", ", ".join(all_notebooks()))
    return 0


def _bench(chosen: argparse.Namespace) -> int:
    known = {"jobs": _bench_jobs, "audit": _bench_audit, "optimiser": _bench_optimiser}
    return known[chosen.what](chosen)


def _bench_optimiser(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.run.benchmarks import bench_optimiser, check_output

    for name in ("surfaces", "windows"):
        if getattr(chosen, name) < 2:
            raise InputError(f"--{name} {getattr(chosen, name)}: expected 2 or more")
    if chosen.output:
        check_output(chosen.output)
    table = bench_optimiser(chosen.surfaces, chosen.windows, chosen.output)
    print("simulated surfaces; regret, 0 is the best sigma")
    print(table.to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    return 0


def _bench_audit(chosen: argparse.Namespace) -> int:
    from fairdiff_lib.run.benchmarks import Sizes, check_output, run_benchmarks, write_benchmarks

    sizes = Sizes(chosen.images, chosen.features, resamples=chosen.resamples)
    if chosen.output:
        check_output(chosen.output)
    table = run_benchmarks(sizes)
    print("simulated features; seconds of this machine; naive: straight from the definition")
    for row in table.itertuples():
        print(
            f"{row.task}: {row.size}\n"
            f"  {row.seconds:.1f} s, naive {row.naive_seconds:.0f} s ({row.naive}), "
            f"peak {row.peak_mib:.0f} MiB, largest difference {row.difference:.1e}"
        )
    if chosen.output:
        print(f"written to {write_benchmarks(table, sizes, chosen.output)}")
    return 0


def _bench_jobs(chosen: argparse.Namespace) -> int:
    runs = PROJECT_ROOT / chosen.runs_root
    timings = read_timings(runs)
    titles = ("threads", "seconds", "peak MB", "MB")
    print(f"{'preset/dataset':34} {'job':26}", *(f"{title:>8}" for title in titles))
    for place, kinds in timings.items():
        for kind, row in sorted(kinds.items()):
            print(
                f"{place:34} {kind:26} {row['threads']:>8} {row['seconds']:>8.1f} "
                f"{row['peak_mb']:>8.0f} {row['made_mb']:>8.0f}"
            )
    if chosen.write:
        print(f"written to {write_expected(runs).relative_to(PROJECT_ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
