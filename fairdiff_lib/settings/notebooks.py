"""One entry per notebook: what it asks, what it waits for, what it makes, which study makes it.

The graph, the index, the book, the verification and the tests read these entries; nobody keeps a
copy. Tables that a data set names itself (T2 to T11) stand in the data set's own entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

BASE = "base"  # the "method" of the job that trains what every method starts from
STUDIES = {  # what a run can be for
    "main": "the study: train, generate, audit, compare",
    "ablation": "which part of a method matters? every method and control, over seeds",
    "mechanism": "what does the optimiser do, in the ablation's core arms? with a dose-response",
    "matrix": "what do real, generated and mixed images train? equal steps, shares of real data",
    "privacy": "are training images remembered, and whose? nearest image, membership inference",
    "sweep": "what do guidance and sampler steps do to each group? a grid from the same noise",
    "counterfactual": "does the finding survive a change of group? one word of the prompt changed",
    "stress": "how does the audit bear group labels that are wrong, missing or swapped?",
    "loop": "do models that are trained on each other's images drift apart by group?",
    "proof": "is the audit itself valid? simulated audits of known truth",
    "planted": "does the audit find a generator that serves a group worse, and only then?",
    "own": "the audit of anybody's own images, shown on drawn ones",
}


@dataclass(frozen=True)
class Notebook:
    """A notebook, and the job of the graph that runs it."""

    notebook: str  # name of its file, without suffix
    question: str  # its title
    study: str = "main"  # of STUDIES, the one that makes it; empty: only ever run alone
    # jobs of JOBS that it waits for; one that runs per method and seed means every run, or the
    # same run where the waiting job is per run too
    after: tuple[str, ...] = ()
    tables: Mapping[str, str] = field(default_factory=dict)  # id -> title of what it always makes
    figures: Mapping[str, str] = field(default_factory=dict)
    cards: Mapping[str, str] = field(default_factory=dict)
    of_dataset: str = ""  # quality or downstream: the data set's own tables, made besides
    optional: Mapping[str, str] = field(default_factory=dict)  # drawn where there is something
    spanning: Mapping[str, str] = field(default_factory=dict)  # tables that all data sets share
    simulated_only: tuple[str, ...] = ()  # ids among the above that only simulated data have
    claims: tuple[str, ...] = ()  # of the paper, that it bears on; C4 is C1 to C3 on other data
    per_run: bool = False  # it runs for every method and seed
    arms: str = ""  # the study whose arms' runs it collects: ablation, matrix, loop, or none
    parameters: Mapping[str, str] = field(default_factory=dict)  # besides the shared ones
    # one core; "network": one core here, in a queue all that a job has, and a GPU; "machine": as
    # many processes as there are cores. Two threads of one process gain little and lose much
    # beside a busy one: an encoder's step takes 27 ms on one thread and 1,120 on two
    threads: str = "one"
    minutes: int = 0  # after which a queue ends it; 0 = the profile's
    digest: tuple[str, ...] = ()  # sections of the settings, besides the main study's, it reads
    place: str = "figures"  # folder (of Places) of its tables and figures
    made: str = ""  # folder (of Places) whose size its record notes
    declared: bool = False  # the protocol has to be written before

    @property
    def titles(self) -> dict[str, str]:
        """Id to title of everything that it makes for any data set."""
        return {**self.tables, **self.cards, **self.figures, **self.optional, **self.spanning}


_ALL = (
    Notebook(
        "00_index",
        "What was run, and where is it?",
        after=("02_simulators", "09_verdict", "06_perturbation", "12_harm"),
    ),
    Notebook(
        "01_cohorts",
        "Who is in the cohort?",
        tables={
            "tab01": "cohort: counts and prevalence",
            "tab_flow": "who is in the data, who left and why",
        },
        figures={"fig01": "cohort: counts and prevalence"},
        threads="machine",  # simulated patients are drawn by whoever first asks for the cohort
        made="cohort",
    ),
    Notebook(
        "02_simulators",
        "What is simulated, and which disparity is planted?",
        after=("01_cohorts",),
        simulated_only=("02_simulators",),
        made="data",
    ),
    Notebook(
        "03_train",
        "How does the generator train?",
        after=("03_train_base",),
        per_run=True,
        threads="network",
        minutes=720,
        made="run",
    ),
    Notebook(
        "04_generate",
        "What does the generator draw?",
        after=("03_train",),
        per_run=True,
        threads="network",
        made="generated",
        declared=True,
    ),
    Notebook(
        "05_quality",
        "Is image quality the same for every group?",
        after=("04_generate",),
        tables={
            "tab_gates": "gates before any fairness table",
            "tab_effects": "what was measured for the verdict: images, and the control",
            "tab_contrasts": "differences between levels, with tests",
            "tab_differences": "methods against the baseline, by level",
            "tab_intersections": "KID of intersections, raw and shrunken",
            "tab_controls": "differences that one corruption of all real images gives",
            "tab_further": "further looks at the same images, by level",
            "tab_fidelity": "what pictures truly show, by level",
        },
        figures={
            "fig02": "images by group, same prompts",
            "fig03": "quality by group, with intervals",
            "fig06": "prompt gallery",
        },
        cards={"card": "the audit card: the primary endpoint on one page"},
        of_dataset="quality",
        simulated_only=("tab_fidelity",),
        claims=("C1", "C2"),
        threads="network",
        made="features",
        declared=True,
    ),
    Notebook(
        "06_perturbation",
        "What does the optimiser do?",
        after=("03_train",),
        tables={
            "tab_optimiser": "cost and calls of the optimiser",
            "tab_mechanism": "the mechanism, measured",
        },
        figures={
            "fig_weights": "weights are noise around 1",
            "fig_surrogate": "what one window told the optimiser",
            "fig04": "the optimiser's path",
            "fig_mechanism": "the mechanism, measured",
        },
        claims=("C2",),
        threads="network",
    ),
    Notebook(
        "07_downstream",
        "Do generated images train a fair classifier?",
        after=("04_generate", "05_quality"),  # its tables carry a note where a gate failed
        tables={
            "tab_contrasts_downstream": "downstream: differences between levels",
            "tab_changes": "downstream: differences between methods and from real",
            "tab_effects_downstream": "what was measured for the verdict: classifiers",
        },
        figures={"fig05": "area under the curve by group, real and generated training images"},
        of_dataset="downstream",
        claims=("C3",),
        threads="network",
        declared=True,
    ),
    Notebook(
        "08_ablations",
        "Which part of the method matters?",
        study="ablation",
        after=("01_cohorts",),
        arms="ablation",
        tables={
            "tab13": "methods side by side",
            "tab_cost": "what each run of the ablation study cost",
        },
        figures={"fig_methods": "methods side by side"},
        optional={
            "tab12": "ablation: time window and exploitation rate",
            "fig07": "ablation: time window and exploitation rate",
        },
        claims=("C2",),
    ),
    Notebook(
        "09_verdict",
        "Do the paper's claims hold?",
        after=("05_quality", "07_downstream"),
        tables={
            "tab_verdict": "one verdict per claim, this dataset",
            "tab_tests": "every test behind a verdict, and what was planted where",
        },
        spanning={"tab14": "one verdict per claim, all datasets"},
        declared=True,
    ),
    Notebook(
        "10_proof",
        "Can the audit be believed?",
        study="proof",
        after=("01_cohorts",),
        tables={
            "tab_calibration": "audits of known truth: alarms, both tails, outcomes",
            "tab_checks": "every promise of the audit, and its limit",
            "tab_truth": "the truth of the audits with images",
            "tab_decisions": "verdicts in equivalent blur where the truth is known",
            "tab_decisions_checks": "every promise of these verdicts, and its limit",
        },
        figures={
            "fig_calibration": "alarms where groups are equally good",
            "fig_power": "what the audit finds when there is something",
            "fig_fid_bias": "FID against n where groups are equally good",
        },
        threads="machine",
        digest=("proof",),
        place="calibration",
        made="pools",
    ),
    Notebook(
        "11_audit_your_own",
        "Is your own generator fair? Audit two folders of images",
        study="own",
        parameters={"output": "{runs_root}/own/audit"},
        place="own",
    ),
    Notebook(
        "12_harm",
        "Does the image show what was asked, and who is harmed?",
        after=("07_downstream",),
        tables={
            "tab_harm": "calibration and harm by level",
            "tab_harm_contrasts": "calibration and harm: differences between levels",
            "tab_shown": "what images show against what was asked",
            "tab_shown_contrasts": "asked and shown: differences between levels",
            "tab_probe": "can the group be read from an image",
        },
        figures={
            "fig_roc": "ROC curves by level",
            "fig_reliability": "reliability by level",
            "fig_confusion": "confusion by level",
            "fig_slopes": "harm by level, from real images to each method",
            "fig_probe": "can the group be read from an image",
        },
        claims=("C3",),
    ),
    Notebook(
        "13_matrix",
        "What do generated images add to real ones?",
        study="matrix",
        after=("07_downstream",),
        arms="matrix",
        tables={
            "tab_matrix": "downstream: real, generated and mixed training images",
            "tab_matrix_changes": "downstream matrix: every arm against real images",
            "tab_matrix_cost": "downstream matrix: what each run was shown, its steps",
            "tab_transfer": "trained on one source, tested on another",
        },
        figures={"fig_matrix": "learning curves over the share of real data"},
        claims=("C3",),
        threads="network",
        digest=("matrix",),
    ),
    Notebook(
        "14_privacy",
        "Are small groups' training images memorised more?",
        study="privacy",
        after=("05_quality",),
        tables={
            "tab_privacy": "nearest real image and membership inference by level",
            "tab_privacy_contrasts": "privacy: differences between levels",
        },
        figures={"fig_privacy": "are training images remembered, by level"},
        threads="network",
        digest=("privacy",),
    ),
    Notebook(
        "15_sweep",
        "What do guidance and sampler steps do to each group?",
        study="sweep",
        after=("05_quality",),
        tables={
            "tab_sweep": "KID by guidance, steps and level",
            "tab_sweep_changes": "guidance and steps: change from the study's own cell",
            "tab_sweep_contrasts": "guidance and steps: does a level change more",
        },
        figures={"fig_sweep": "KID by guidance, steps and level"},
        threads="network",
        digest=("sweep",),
    ),
    Notebook(
        "16_counterfactual",
        "Does the finding survive a change of group?",
        study="counterfactual",
        after=("05_quality",),
        tables={
            "tab_counterfactual": "what a change of the group's word does to images, by level",
            "tab_counterfactual_contrasts": "a change of the group's word: differences of levels",
        },
        figures={"fig_counterfactual": "what a change of the group's word does, by level"},
        threads="network",
        digest=("counterfactual",),
    ),
    Notebook(
        "17_label_stress",
        "How does the audit bear wrong group labels?",
        study="stress",
        after=("01_cohorts",),
        tables={"tab_stress": "audits with spoilt group labels: false alarms and misses"},
        figures={"fig_stress": "audits with spoilt group labels"},
        threads="machine",
        digest=("stress", "proof"),
    ),
    Notebook(
        "18_self_consuming",
        "Do models trained on each other's images drift apart by group?",
        study="loop",
        after=("05_quality",),
        arms="loop",
        tables={
            "tab_loop": "generations of a model: quality by level",
            "tab_loop_changes": "generations of a model: change from the first by level",
            "tab_loop_contrasts": "generations of a model: does a level change more",
        },
        figures={"fig_loop": "generations of a model: quality by level"},
        threads="network",
        digest=("retraining",),
    ),
    Notebook(
        "19_planted",
        "Does the audit find a generator that serves a group worse?",
        study="planted",
        after=("01_cohorts",),
        tables={
            "tab_planted": "planted fidelity: how often a difference is told",
            "tab_planted_runs": "planted fidelity: every run, truth and audit",
        },
        figures={"fig_planted": "planted fidelity: truth, audit, and how often it is found"},
        simulated_only=("19_planted", "tab_planted", "tab_planted_runs"),
        threads="network",
        minutes=720,
        digest=("planted",),
    ),
)
NOTEBOOKS: dict[str, Notebook] = {entry.notebook: entry for entry in _ALL}

# two notebooks have a second job, by other parameters
_TRAIN, _OPTIMISER = NOTEBOOKS["03_train"], NOTEBOOKS["06_perturbation"]
_DOSE = "dose-response: effect of each level's sigma"
_JOBS = {
    **{name: entry for name, entry in NOTEBOOKS.items() if entry.study},
    "03_train_base": replace(
        _TRAIN,
        after=("01_cohorts",),
        per_run=False,
        parameters={"method": BASE},
        minutes=1440,
        made="base",
    ),
    "06_perturbation_ablation": replace(
        _OPTIMISER,
        study="mechanism",
        after=("08_ablations",),  # whose runs are trained
        tables={**_OPTIMISER.tables, "tab_dose": _DOSE},
        figures={**_OPTIMISER.figures, "fig_dose": _DOSE},
        parameters={"ablation": "True"},
        place="ablation",
    ),
}
JOBS: dict[str, Notebook] = dict(sorted(_JOBS.items()))


def maker_of(name: str, parameters: Mapping[str, Any], kind: str = "") -> Notebook | None:
    """The job that makes a table or figure; ``kind``: of whose data set's own tables it is."""
    makers = [
        entry
        for entry in JOBS.values()
        if name in entry.titles or (kind and entry.of_dataset == kind)
    ]
    for entry in sorted(makers, key=lambda entry: -len(entry.parameters)):
        if all(str(parameters.get(key)) == value for key, value in entry.parameters.items()):
            return entry
    return None
