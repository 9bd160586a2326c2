"""The study of one data set: which notebook, with which parameters, makes which file.

A rule's output is

- what people read: tables and figures in figures/<preset>/<dataset>/, and
- its record, <runs>/<dataset>/records-<preset>-<digest>/jobs/<job>.json, written last.

Datasets, models, images and classifiers are no outputs here: they lie in folders named by a
digest of the settings they depend on (store.Places), are written atomically, and are found again
by the notebook, so a job that was killed goes on where it stopped. Records, unlike figures/, are
not in git: a fresh clone runs everything.
"""

import shlex
import sys

from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.studies.ablation import arms
from fairdiff_lib.studies import plans
from fairdiff_lib.study import load_cohort
from fairdiff_lib.datasets import load_settings
from fairdiff_lib.settings.options import parse_overrides
from fairdiff_lib.settings.methods import source_runs
from fairdiff_lib.studies.verdict.protocol import protocol_path, write_protocol
from fairdiff_lib.disk.places import PROJECT_ROOT, Places
from fairdiff_lib.disk.latex import has_latex

# the scalars that all notebooks share; `fairdiff run` gives them (an empty one arrives as None)
PRESET = str(config.get("preset") or "quick")
DATASET = str(config.get("dataset") or "fairgenmed_simulated")
STUDIES = str(config.get("study") or "main").split()
OVERRIDES = str(config.get("overrides") or "")
DATA_ROOT = str(config.get("data_root") or "")
RUNS_ROOT = str(config.get("runs_root") or "data/runs")
FIGURES_ROOT = str(config.get("figures_root") or "figures")

SETTINGS = load_settings(PRESET, DATASET, parse_overrides(OVERRIDES))
LAYOUT = Places(SETTINGS, DATA_ROOT, RUNS_ROOT, FIGURES_ROOT)
SHARED = shlex.join(
    part
    for name, value in (
        ("preset", PRESET),
        ("dataset", DATASET),
        ("overrides", OVERRIDES),
        ("data_root", DATA_ROOT),
        ("runs_root", RUNS_ROOT),
        ("figures_root", FIGURES_ROOT),
    )
    for part in ("-p", name, value)
)
ROOTS = shlex.join(
    part
    for name, value in (
        ("preset", PRESET),
        ("dataset", DATASET),
        ("overrides", OVERRIDES),
        ("data-root", DATA_ROOT),
        ("runs-root", RUNS_ROOT),
        ("figures-root", FIGURES_ROOT),
    )
    for part in (f"--{name}", value)
)
FAIRDIFF = f"{shlex.quote(sys.executable)} -m fairdiff_lib.run.cli notebook "
# ends every rule's command
COMMON = f" {SHARED} --threads {{threads}} --output {{log.notebook:q}} --record {{output.record:q}}"

METHODS, SEEDS = list(SETTINGS.methods), list(SETTINGS.seeds)
CORES = int(config.get("cores", 1))
RUNS_AT_ONCE = min(CORES, len(METHODS) * len(SEEDS))  # trained side by side, as they are equal
APART = bool(config.get("apart"))  # in a queue each job has CORES of its own
SHARE = CORES if APART else max(1, CORES // RUNS_AT_ONCE)
ARM = CORES if APART else 1  # arms are many: here one core each, side by side

ENTRY = dataset_of(DATASET)
AUDIT = ["tab_gates", "tab_contrasts", "tab_differences", "tab_intersections", "tab_encoder"]
HARM_TABLES = ["tab_harm", "tab_harm_contrasts", "tab_shown", "tab_shown_contrasts", "tab_probe"]
HARM_FIGURES = [
    *("fig_roc", "fig_reliability", "fig_confusion"),
    *("fig_slopes", "fig_shown", "fig_probe"),
]


def source(name):
    """A notebook; editing it runs it again."""
    return f"{PROJECT_ROOT}/notebooks/{name}.ipynb"


def executed(job):
    """The copy that people read, kept also when the job fails."""
    return f"{LAYOUT.executed}/{job}.ipynb"


def record(job):
    return f"{LAYOUT.records}/jobs/{job}.json"


def sources(wildcards):
    """Records of the runs whose histories a method reads, as the random sigma's dose."""
    runs = source_runs(wildcards.method, int(wildcards.seed), tuple(SEEDS))
    return [record(f"03_train_{method}_seed{seed}") for method, seed in runs]


def every_run(job):
    """Records of a job for every method and seed."""
    return expand(record(job + "_{method}_seed{seed}"), method=METHODS, seed=SEEDS)


def tables(*names, folder=LAYOUT.figures):
    """A table as CSV (T1 to T14 as LaTeX too) and the stamp beside it, for each name."""
    kinds = {name: ["csv", "json"] + ["tex"] * has_latex(name) for name in names}
    return [f"{folder}/{name}.{kind}" for name in names for kind in kinds[name]]


def figures(*names, folder=LAYOUT.figures):
    """A figure as PNG and PDF and the stamp beside it, for each name."""
    return expand("{folder}/{name}.{kind}", folder=folder, name=names, kind=["png", "pdf", "json"])


wildcard_constraints:
    arm="[a-z_]+",
    method="[a-z][a-z0-9_]*?",
    run="[^/]+",
    seed=r"\d+",


# the runs of the ablation study, by the name of their files; those that are committed stay
ABLATION = LAYOUT.ablation / "runs"
ARM_RUNS = {arms.path_of(LAYOUT, arm, seed).stem: (arm, seed) for arm, seed in arms.runs_of(SETTINGS)}


def needed(wildcards):
    """What a run of an arm waits for; nothing where it is recorded."""
    arm, seed = ARM_RUNS[wildcards.run]
    if arms.is_recorded(SETTINGS, LAYOUT, arm, seed):
        return []
    known = {own.name: own for own in arms.arms_of(SETTINGS)}
    read = [arms.path_of(LAYOUT, known[name], own) for name, own in arms.sources_of(SETTINGS, arm, seed)]
    return [record("03_train_base"), *map(str, read)]


# the jobs of the downstream matrix: an arm and a seed each, with all shares of real data
MATRIX_RUNS = expand(
    f"{LAYOUT.matrix}/{{arm}}_seed{{seed}}.json", arm=plans.ARMS, seed=SETTINGS.matrix.seeds
)


def matrix_images(wildcards):
    """Record of the generator whose images an arm sees, or of the cohort alone."""
    if not plans.ARMS[wildcards.arm].made:
        return record("01_cohorts")
    seed = plans.generator_seed(SETTINGS, int(wildcards.seed))
    return record(f"04_generate_{SETTINGS.matrix.method}_seed{seed}")


# what each study of graph.STUDIES is done with
TARGETS = {
    "main": [record("00_index"), record("06_perturbation")],
    "ablation": [  # each run by name, or a lost one would not be missed once the tables are there
        *(f"{ABLATION}/{run}.json" for run in ARM_RUNS),
        record("08_ablations"),
    ],
    "mechanism": [record("06_perturbation_ablation")],
    "matrix": [*MATRIX_RUNS, record("13_matrix")],  # each run by name, as above
    "privacy": [record("14_privacy")],
    "sweep": [record("15_sweep")],
    "proof": [record("10_proof")],
}


rule all:
    localrule: True
    input:
        [target for study in STUDIES for target in TARGETS[study]],


# 02 -> the simulated dataset, in the original layout. Real data are the user's own.
rule simulate:
    input:
        source=source("02_simulators"),
    output:
        record=record("02_simulators"),
    log:
        notebook=executed("02_simulators"),
    params:
        settings=LAYOUT.records.name,
        made=LAYOUT.data,
    threads: CORES
    shell:
        FAIRDIFF + "02_simulators --made {params.made:q}" + COMMON


# 01 -> the cohort table, T1 and F1
rule cohort:
    input:
        data=record("02_simulators") if ENTRY.simulated else [],
        source=source("01_cohorts"),
    output:
        record=record("01_cohorts"),
        read=tables("tab01") + figures("fig01"),
    log:
        notebook=executed("01_cohorts"),
    params:
        settings=LAYOUT.records.name,
        made=LAYOUT.cohort,
    shell:
        FAIRDIFF + "01_cohorts --made {params.made:q}" + COMMON


# what will be tested, and by which rule: written before there is a test image. A protocol of the
# same words stays as it was (so Snakemake mustn't remove it) and undoes no run (ancient); other
# words come with other settings, which do.
rule protocol:
    localrule: True
    input:
        cohort=record("01_cohorts"),
    output:
        written=update(protocol_path(LAYOUT)),
    params:
        settings=LAYOUT.records.name,
    run:
        write_protocol(SETTINGS, LAYOUT, load_cohort(SETTINGS, LAYOUT))


# 03 base -> VAE, text encoder and base U-Net: the pipeline that every method starts from
rule train_base:
    input:
        cohort=record("01_cohorts"),
        source=source("03_train"),
    output:
        record=record("03_train_base"),
    log:
        notebook=executed("03_train_base"),
    params:
        settings=LAYOUT.records.name,
        made=LAYOUT.base,
    threads: CORES
    resources:
        runtime=1440,  # minutes; a queue ends what takes longer
    shell:
        FAIRDIFF + "03_train -p method base --made {params.made:q}" + COMMON


# 03 method, seed -> a fine-tuned pipeline and its history. On a cluster it goes out with its images
# as one submission (group): less time in the queue
rule train:
    group:
        "run"
    input:
        base=record("03_train_base"),
        read=sources,
        source=source("03_train"),
    output:
        record=record("03_train_{method}_seed{seed}"),
    log:
        notebook=executed("03_train_{method}_seed{seed}"),
    params:
        settings=LAYOUT.records.name,
        made=lambda wildcards: LAYOUT.run(wildcards.method, int(wildcards.seed)),
    threads: SHARE
    resources:
        runtime=720,
    shell:
        FAIRDIFF + "03_train -p method {wildcards.method} -p seed {wildcards.seed}"
        " --made {params.made:q}" + COMMON


# 04 method, seed -> an image per test prompt, and one per training prompt
rule generate:
    group:
        "run"
    input:
        protocol=ancient(protocol_path(LAYOUT)),
        run=record("03_train_{method}_seed{seed}"),
        source=source("04_generate"),
    output:
        record=record("04_generate_{method}_seed{seed}"),
    log:
        notebook=executed("04_generate_{method}_seed{seed}"),
    params:
        settings=LAYOUT.records.name,
        made=lambda wildcards: LAYOUT.generated(wildcards.method, int(wildcards.seed)),
    threads: SHARE
    shell:
        FAIRDIFF + "04_generate -p method {wildcards.method} -p seed {wildcards.seed}"
        " --made {params.made:q}" + COMMON


# 05 -> quality by group (T2 and T3, T8 or T10), the gates, F2, F3, F6, the audit card
rule quality:
    input:
        protocol=ancient(protocol_path(LAYOUT)),
        images=every_run("04_generate"),
        source=source("05_quality"),
    output:
        record=record("05_quality"),
        read=tables(*AUDIT, *ENTRY.quality)
        + figures("fig02", "fig03", "fig06")
        + expand("{folder}/card.{kind}", folder=LAYOUT.figures, kind=["html", "json"]),
    log:
        notebook=executed("05_quality"),
    params:
        settings=LAYOUT.records.name,
        made=LAYOUT.features,
    threads: CORES
    shell:
        FAIRDIFF + "05_quality --made {params.made:q}" + COMMON


# 06 -> what the optimiser did: F4; the mechanism, measured at the base and in the histories
rule perturbation:
    input:
        runs=every_run("03_train"),
        source=source("06_perturbation"),
    output:
        record=record("06_perturbation"),
        read=tables("tab_optimiser", "tab_mechanism") + figures("fig04", "fig_mechanism"),
    log:
        notebook=executed("06_perturbation"),
    params:
        settings=LAYOUT.records.name,
    shell:
        FAIRDIFF + "06_perturbation" + COMMON


# 07 -> classifiers trained on real or generated images (T4 to T7, T9 or T11), F5. After 05, as
# its tables carry a note where a gate failed.
rule downstream:
    input:
        images=every_run("04_generate"),
        gates=record("05_quality"),
        source=source("07_downstream"),
    output:
        record=record("07_downstream"),
        read=tables(*ENTRY.downstream, "tab_contrasts_downstream", "tab_changes") + figures("fig05"),
    log:
        notebook=executed("07_downstream"),
    params:
        settings=LAYOUT.records.name,
    threads: CORES
    shell:
        FAIRDIFF + "07_downstream" + COMMON


# 12 -> calibration and harm by group, what images show against what was asked, probes
rule harm:
    input:
        downstream=record("07_downstream"),
        source=source("12_harm"),
    output:
        record=record("12_harm"),
        read=tables(*HARM_TABLES) + figures(*HARM_FIGURES),
    log:
        notebook=executed("12_harm"),
    params:
        settings=LAYOUT.records.name,
    shell:
        FAIRDIFF + "12_harm" + COMMON


# an arm of the ablation study: trained, drawn, measured. Its three files are committed, so they are
# kept whatever happens (update), and a run that is there is not made again.
rule arm:
    input:
        needed,
    output:
        run=update(f"{ABLATION}/{{run}}.json"),
        kept=update(expand("{folder}/{{run}}.{kind}", folder=ABLATION, kind=["csv", "npz"])),
    params:
        arm=lambda wildcards: ARM_RUNS[wildcards.run][0].name,
        seed=lambda wildcards: ARM_RUNS[wildcards.run][1],
        failure=lambda wildcards: record(f"arm_{wildcards.run}"),
    threads: ARM
    resources:
        runtime=720,
    shell:
        f"{shlex.quote(sys.executable)} -m fairdiff_lib.run.cli arm {{params.arm:q}}"
        f" --seed {{params.seed}} --threads {{threads}} --record {{params.failure:q}} {ROOTS}"


# 08 -> ablations: T12, T13, F7, the cost, the verdict on C2
rule ablation:
    input:
        cohort=record("01_cohorts"),
        runs=[f"{ABLATION}/{run}.json" for run in ARM_RUNS],
        source=source("08_ablations"),
    output:
        record=record("08_ablations"),
        read=tables("tab12", "tab13", "tab_cost", "tab_c2") + figures("fig07", "fig_methods"),
    log:
        notebook=f"{LAYOUT.ablation}/executed/08_ablations.ipynb",
    params:
        settings=LAYOUT.records.name,
    threads: CORES
    shell:
        FAIRDIFF + "08_ablations" + COMMON


# 06 for the ablation's core arms, with the dose-response. After 08: its runs are trained
rule mechanism:
    input:
        runs=record("08_ablations"),
        source=source("06_perturbation"),
    output:
        record=record("06_perturbation_ablation"),
        read=tables("tab_optimiser", "tab_mechanism", "tab_dose", folder=LAYOUT.ablation)
        + figures("fig04", "fig_mechanism", "fig_dose", folder=LAYOUT.ablation),
    log:
        notebook=f"{LAYOUT.ablation}/executed/06_perturbation.ipynb",
    params:
        settings=LAYOUT.records.name,
    threads: CORES
    shell:
        FAIRDIFF + "06_perturbation -p ablation True" + COMMON


# an arm and seed of the downstream matrix: a classifier per share of real data, one after the other
rule matrix_arm:
    input:
        matrix_images,
    output:
        record=f"{LAYOUT.matrix}/{{arm}}_seed{{seed}}.json",
    threads: ARM
    shell:
        f"{shlex.quote(sys.executable)} -m fairdiff_lib.run.cli arm {{wildcards.arm}} --study matrix"
        f" --seed {{wildcards.seed}} --threads {{threads}} --record {{output.record:q}} {ROOTS}"


# 13 -> the downstream matrix, and train on A, test on B. After 07, whose classifiers it reads
rule matrix:
    input:
        downstream=record("07_downstream"),
        runs=MATRIX_RUNS,
        source=source("13_matrix"),
    output:
        record=record("13_matrix"),
        read=tables("tab_matrix", "tab_matrix_changes", "tab_matrix_cost", "tab_transfer")
        + figures("fig_matrix", "fig_transfer"),
    log:
        notebook=executed("13_matrix"),
    params:
        settings=LAYOUT.matrix.name,
    threads: CORES
    shell:
        FAIRDIFF + "13_matrix" + COMMON


# 14 -> nearest real image and membership inference by group. After 05, whose gates it notes
rule privacy:
    input:
        quality=record("05_quality"),
        source=source("14_privacy"),
    output:
        record=record("14_privacy"),
        read=tables("tab_privacy", "tab_privacy_contrasts") + figures("fig_privacy"),
    log:
        notebook=executed("14_privacy"),
    params:
        settings=[LAYOUT.records.name, SETTINGS.digest("privacy")],
    threads: CORES
    shell:
        FAIRDIFF + "14_privacy" + COMMON


# 15 -> guidance x steps by group, from shared noise. After 05, whose encoder it reads
rule sweep:
    input:
        quality=record("05_quality"),
        source=source("15_sweep"),
    output:
        record=record("15_sweep"),
        read=tables("tab_sweep", "tab_sweep_changes", "tab_sweep_contrasts") + figures("fig_sweep"),
    log:
        notebook=executed("15_sweep"),
    params:
        settings=[LAYOUT.records.name, SETTINGS.digest("sweep")],
    threads: CORES
    shell:
        FAIRDIFF + "15_sweep" + COMMON


# 09 -> a verdict per claim: this data set's rows of T14, which all data sets share (so it is no
# output of one of them). After 08 where that runs too: C2 may rest on its seeds
rule verdict:
    input:
        protocol=ancient(protocol_path(LAYOUT)),
        quality=record("05_quality"),
        downstream=record("07_downstream"),
        ablation=record("08_ablations") if "ablation" in STUDIES else [],
        source=source("09_verdict"),
    output:
        record=record("09_verdict"),
        read=tables("tab_verdict", *["tab_recovered"] * ENTRY.simulated),
    log:
        notebook=executed("09_verdict"),
    params:
        settings=LAYOUT.records.name,
    shell:
        FAIRDIFF + "09_verdict" + COMMON


# 00 -> what was made, and where it lies
rule index:
    input:
        verdict=record("09_verdict"),
        perturbation=record("06_perturbation"),
        harm=record("12_harm"),
        source=source("00_index"),
    output:
        record=record("00_index"),
    log:
        notebook=executed("00_index"),
    params:
        settings=LAYOUT.records.name,
    shell:
        FAIRDIFF + "00_index" + COMMON


# 10 -> is the audit valid? Simulated audits of known truth. Its trained generator is this study's.
rule proof:
    input:
        run=record("03_train_none_seed0"),
        source=source("10_proof"),
    output:
        record=record("10_proof"),
        read=tables("tab_calibration", "tab_truth", folder=LAYOUT.calibration)
        + figures("fig_calibration", "fig_power", "fig_fid_bias", folder=LAYOUT.calibration),
    log:
        notebook=f"{LAYOUT.calibration}/executed/10_proof.ipynb",
    params:
        settings=LAYOUT.proof.name,
        made=LAYOUT.pools,
    threads: CORES
    shell:
        FAIRDIFF + "10_proof --made {params.made:q}" + COMMON
