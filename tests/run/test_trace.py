"""Every link from the data to a table is checked: each is broken in turn, and said to be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fairdiff_lib.datasets import load_settings
from fairdiff_lib.disk.files import hash_file, read_json, write_json, write_table
from fairdiff_lib.disk.places import PROJECT_ROOT, Places
from fairdiff_lib.disk.stamps import git, make_stamp, publish_table
from fairdiff_lib.run import cli as study
from fairdiff_lib.run import links
from fairdiff_lib.run.stages import stages_of
from fairdiff_lib.run.trace import executed_copies, trace
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.settings.options import parse_overrides
from fairdiff_lib.studies import plans
from fairdiff_lib.studies.verdict.protocol import content_hash

DATA = "d" * 64
JOBS = ("02_simulators", "01_cohorts", "03_train_base", "03_train_none_seed0",
        "04_generate_none_seed0", "05_quality", "07_downstream")  # fmt: skip


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A tiny finished study of one method and seed: a table, and all that it rests on."""
    monkeypatch.setattr(links, "_exists", lambda commit: commit == "a" * 40)
    settings = load_settings("smoke", overrides={"methods": "none"})
    layout = Places(settings, "", str(tmp_path / "runs"), str(tmp_path / "figures"))
    given = {"preset": "smoke", "dataset": settings.dataset, "overrides": "methods=none"}
    stamp = make_stamp(settings, DATA, given) | {"commit": "a" * 40, "dirty": False}
    publish_table(pd.DataFrame({"value": [1.0]}), layout.figures / "tab05.csv", stamp)
    for job in JOBS:
        write_json(layout.executed / f"{job}.ipynb", executed(given, stamp))
    rule = {"seeds": [0]}
    declared = {"protocol": rule, "sha256": content_hash(rule), **stamp}
    write_json(layout.figures / "protocol.json", declared)
    write_json(layout.base / "run.json", {"stamp": stamp})
    write_json(layout.run("none", 0) / "run.json", {"stamp": stamp})
    write_json(layout.cohort / "cohort.json", {"data_hash": DATA, "mark": ""})
    images = layout.generated("none", 0) / "test"
    write_table(pd.DataFrame({"image": ["one"]}), images / "manifest.csv")
    (images / "one.png").touch()
    return layout


def executed(given: dict[str, Any], stamp: dict[str, Any]) -> dict[str, Any]:
    """A notebook that was given parameters and printed its stamp."""
    source = "\n".join(f"{name} = {value!r}" for name, value in given.items())
    printed = {key: stamp[key] for key in ("parameters", "data_hash", "commit", "dirty")}
    output = {"output_type": "execute_result", "data": {"text/plain": repr(printed)}}
    return {
        "cells": [
            {"cell_type": "markdown", "metadata": {}, "source": "# 07 Is it so?"},
            {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": source,
             "outputs": []},
            {"cell_type": "code", "metadata": {}, "source": "stamp", "outputs": [output]},
        ]
    }  # fmt: skip


def traced(layout: Places) -> dict[str, links.Link]:
    found = trace(layout.figures / "tab05.csv", layout.runs_root)
    return {link.name: link for link in found}


def made_with(layout: Places, name: str, notebook: str, overrides: str) -> dict[str, links.Link]:
    """The chain of a table that a later notebook made with overrides of its own."""
    settings = load_settings("smoke", overrides=parse_overrides(overrides))
    given = {"preset": "smoke", "dataset": settings.dataset, "overrides": overrides}
    stamp = make_stamp(settings, DATA, given) | {"commit": "a" * 40, "dirty": False}
    path = publish_table(pd.DataFrame({"value": [1.0]}), layout.figures / f"{name}.csv", stamp)
    write_json(layout.executed / f"{notebook}.ipynb", executed(given, stamp))
    return {link.name: link for link in trace(path, layout.runs_root)}


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_whole_chain_is_right_from_the_data_to_the_table(layout: Places) -> None:
    found = traced(layout)
    names = list(found)
    assert names[0] == "data" and names[-1] == "tab05.csv"
    assert [name for name in names if name in JOBS] == list(JOBS)
    states = {name: link.state for name, link in found.items()}
    cohort = f"{layout.cohort.name}/"
    assert states.pop(cohort) == links.UNVERIFIABLE  # its data aren't here any more
    assert set(states.values()) == {links.OK}, found
    assert f"{layout.run('none', 0).name}/" in states
    assert executed_copies(layout.figures / "tab05.csv") == [
        layout.executed / "07_downstream.ipynb"
    ]


BREAKS: dict[str, tuple[str, Callable[[Places], None], str]] = {
    "an edited table": (
        "tab05.csv",
        lambda own: change(own.figures / "tab05.csv", "1.0", "2.0"),
        "edited, or of another run",
    ),
    "a stamp without its file": (
        "tab05.csv",
        lambda own: change(own.figures / "tab05.json", "tab05.csv", "tab04.csv"),
        "says none",
    ),
    "another commit": (
        "stamp",
        lambda own: change(own.figures / "tab05.json", "a" * 40, "b" * 40),
        "does not exist",
    ),
    "code that was not committed": (
        "stamp",
        lambda own: change(own.figures / "tab05.json", '"dirty": false', '"dirty": true'),
        "differed from its commit",
    ),
    "a notebook of other parameters": (
        "07_downstream",
        lambda own: change(
            own.executed / "07_downstream.ipynb", "preset = 'smoke'", "preset = 'x'"
        ),
        "parameter preset is 'x' in the notebook and 'smoke' in the stamp",
    ),
    "a notebook of another commit": (
        "07_downstream",
        lambda own: change(own.executed / "07_downstream.ipynb", "a" * 40, "c" * 40),
        "the notebook printed cccccccccc",
    ),
    "a run on other data": (
        "03_train_none_seed0",
        lambda own: change(own.executed / "03_train_none_seed0.ipynb", DATA, "e" * 64),
        "ran on data eeeeeeeeeeeeeeee",
    ),
    "a lost notebook": (
        "04_generate_none_seed0",
        lambda own: (own.executed / "04_generate_none_seed0.ipynb").unlink(),
        "no executed copy",
    ),
    "a changed protocol": (
        "protocol",
        lambda own: change(own.figures / "protocol.json", '"protocol": {', '"protocol": {"x": 1,'),
        "doesn't have the hash",
    ),
    "a model of other data": (
        "run",
        lambda own: change(own.run("none", 0) / "run.json", DATA, "e" * 64),
        "was trained on data",
    ),
    "a cohort of other data": (
        "cohort",
        lambda own: change(own.cohort / "cohort.json", DATA, "e" * 64),
        "is of data",
    ),
    "a lost image": (
        "images",
        lambda own: (own.generated("none", 0) / "test" / "one.png").unlink(),
        "1 listed images are missing, as one.png",
    ),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_link_is_reported(
    how: str, layout: Places, capsys: pytest.CaptureFixture[str]
) -> None:
    name, damage, words = BREAKS[how]
    places = {"run": f"{layout.run('none', 0).name}/", "cohort": f"{layout.cohort.name}/"}
    places["images"] = f"{layout.run('none', 0).name}/{layout.generated('none', 0).name}/"
    damage(layout)
    found = traced(layout)[places.get(name, name)]
    assert found.state == links.BROKEN and words in found.detail
    table = str(layout.figures / "tab05.csv")
    assert study.main(["trace", table, "--runs-root", layout.runs_root]) == 1
    said = capsys.readouterr().err.splitlines()
    assert any(line.startswith(f"fairdiff: {table}: ") and words in line for line in said)


def test_an_override_matters_only_to_the_jobs_that_depend_on_it(layout: Places) -> None:
    found = made_with(layout, "tab_matrix", "13_matrix", "methods=none matrix.shares=0.1,1.0")
    assert links.broken(found.values()) == []
    assert {*JOBS, "13_matrix"} <= set(found)
    found = made_with(layout, "tab_matrix", "13_matrix", "methods=none training.steps=7")
    hit = {"03_train_none_seed0", "04_generate_none_seed0", "05_quality", "07_downstream"}
    assert {link.name for link in links.broken(found.values())} == hit
    words = "parameter overrides is 'methods=none' in the notebook and 'methods=none training.ste"
    assert all(words in found[name].detail for name in hit)
    found = made_with(layout, "tab_matrix", "13_matrix", "methods=none matrix.seeds=0,1")
    assert links.broken(found.values()) == []
    copy = layout.executed / "01_cohorts.ipynb"
    change(copy, "'methods=none'", "'methods=none no.such=1'")  # not to be compared any more
    assert traced(layout)["01_cohorts"].state == links.BROKEN


def test_the_matrix_rests_on_its_classifiers(layout: Places) -> None:
    text = "methods=none matrix.method=none matrix.shares=0.5,1.0"
    own = Places(load_settings("smoke", overrides=parse_overrides(text)), "", layout.runs_root)
    name = f"{own.matrix.name}/"
    folders = [plans.folder_of(own, run, "sex")
               for run in plans.matrix_runs(own.settings.matrix)]  # fmt: skip
    for folder in folders[1:]:
        write_json(folder / "run.json", {"data_hash": DATA, "arm": "real", "seed": 0})
    few = made_with(layout, "tab_matrix", "13_matrix", text)[name]
    many = len(folders)
    assert few.state == links.UNVERIFIABLE and f"{many - 1} of {many} classifiers" in few.detail
    write_json(folders[0] / "run.json", {"data_hash": DATA, "arm": "real", "seed": 0})
    assert made_with(layout, "tab_matrix", "13_matrix", text)[name].state == links.OK
    write_json(folders[0] / "run.json", {"data_hash": "e" * 64, "arm": "real", "seed": 0})
    other = made_with(layout, "tab_matrix", "13_matrix", text)[name]
    assert other.state == links.BROKEN and "1 classifiers are of other data" in other.detail


def test_later_studies_know_what_they_rest_on(layout: Places) -> None:
    found = made_with(layout, "tab_privacy", "14_privacy", "methods=none privacy.draws=3")
    assert links.broken(found.values()) == []
    assert "05_quality" in found and "07_downstream" not in found
    found = made_with(layout, "tab_sweep", "15_sweep", "methods=none sweep.method=none")
    assert links.broken(found.values()) == []
    assert any("/sweep-" in name for name in found)
    (layout.executed / "05_quality.ipynb").unlink()
    found = made_with(layout, "tab_sweep", "15_sweep", "methods=none sweep.method=none")
    assert [link.name for link in links.broken(found.values())] == ["05_quality"]
    chosen = {"dataset": "ham10000", "methods": ["none", "random"], "seeds": [0, 1]}
    assert stages_of("06_perturbation", chosen)[-1] == "03_train_random_seed1"
    assert stages_of("08_ablations", chosen, ablation=True) == ["01_cohorts", "03_train_base"]


def test_a_table_kept_apart_is_unverifiable_and_one_of_a_study_broken(layout: Places) -> None:
    apart = layout.figures.parents[1] / "sensitivity" / "other" / "tab05.csv"
    for kind in (".csv", ".json"):
        apart.parent.mkdir(parents=True, exist_ok=True)
        apart.with_suffix(kind).write_bytes((layout.figures / f"tab05{kind}").read_bytes())
    found = {link.name: link for link in trace(apart, layout.runs_root)}
    assert found["07_downstream"].state == links.UNVERIFIABLE
    assert found["tab05.csv"].state == links.OK
    (layout.executed / "07_downstream.ipynb").unlink()
    assert traced(layout)["07_downstream"].state == links.BROKEN


def test_an_old_stamp_is_unverifiable_not_right(layout: Places) -> None:
    path = layout.figures / "tab05.json"
    old = read_json(path)
    del old["files"]
    write_json(path, old)
    assert traced(layout)["tab05.csv"].state == links.UNVERIFIABLE


def test_what_isnt_there_is_one_line(layout: Places) -> None:
    with pytest.raises(InputError, match=r"tab99.csv: missing"):
        trace(layout.figures / "tab99.csv")
    (layout.figures / "tab05.json").unlink()
    (only,) = trace(layout.figures / "tab05.csv")
    assert only.state == links.BROKEN and "no stamp beside it" in only.detail


def test_a_verdict_names_the_protocol_of_its_dataset(layout: Places) -> None:
    stamp = read_json(layout.figures / "tab05.json")
    del stamp["files"]
    digest = read_json(layout.figures / "protocol.json")["sha256"]
    write_json(layout.executed / "09_verdict.ipynb", executed(stamp["parameters"], stamp))
    path = layout.figures_all / "tab14.csv"
    for named, state in ((digest, links.OK), ("f" * 64, links.BROKEN)):
        dataset = layout.settings.dataset
        rows = pd.DataFrame({"dataset": [dataset], "claim": ["C1"], "protocol": [named]})
        whole = {"datasets": {dataset: stamp}, "commit": "a" * 40, "dirty": False}
        publish_table(rows, path, whole)
        found = {link.name: link for link in trace(path, layout.runs_root)}
        assert found["protocol"].state == state
        assert found["09_verdict"].state == links.OK


def test_a_verdict_that_cites_the_ablation_rests_on_it(layout: Places) -> None:
    stamp = read_json(layout.figures / "tab05.json")
    del stamp["files"]
    write_json(layout.executed / "09_verdict.ipynb", executed(stamp["parameters"], stamp))

    def chain(study: str) -> dict[str, links.Link]:
        rows = pd.DataFrame({"claim": ["C2"], "study": [study], "protocol": [""]})
        path = publish_table(rows, layout.figures / "tab_verdict.csv", stamp)
        return {link.name: link for link in trace(path, layout.runs_root)}

    assert not {"08_ablations", "tab_c2.csv"} & set(chain("main"))
    assert chain("ablation")["tab_c2.csv"].state == links.BROKEN  # it isn't there
    copy = layout.ablation / "executed" / "08_ablations.ipynb"
    write_json(copy, executed(stamp["parameters"], stamp))
    publish_table(pd.DataFrame({"value": [1.0]}), layout.figures / "tab_c2.csv", stamp)
    found = chain("ablation")
    assert found["08_ablations"].state == found["tab_c2.csv"].state == links.OK
    change(layout.figures / "tab_c2.csv", "1.0", "2.0")
    assert chain("ablation")["tab_c2.csv"].state == links.BROKEN


def test_every_file_that_a_stamp_names_is_checked(tmp_path: Path) -> None:
    stamp = {"commit": "a" * 40, "dirty": False}
    (tmp_path / "fig01.png").write_bytes(b"p")
    (tmp_path / "fig01.pdf").write_bytes(b"q")
    names = ("fig01.png", "fig01.pdf")
    files = {name: hash_file(tmp_path / name) for name in names}
    write_json(tmp_path / "fig01.json", {**stamp, "files": files})

    def state() -> str:
        return {link.name: link.state for link in links.stamp_links(tmp_path)}["fig01.pdf"]

    assert state() == links.OK
    (tmp_path / "fig01.pdf").write_bytes(b"other")
    assert state() == links.BROKEN
    (tmp_path / "fig01.pdf").unlink()
    assert state() == links.BROKEN


def test_commits_are_looked_up_in_git() -> None:
    head = git("rev-parse", "HEAD")
    if head is None:
        pytest.skip("needs a git checkout")
    assert links.commit_link("it", {"commit": head, "dirty": False}).state == links.OK
    gone = links.commit_link("it", {"commit": "0" * 40, "dirty": False})
    assert gone.state in (links.BROKEN, links.UNVERIFIABLE)  # a shallow clone can't tell
    assert links.commit_link("it", {"commit": None, "dirty": None}).state == links.BROKEN


def test_committed_stamps_name_commits_of_this_repository() -> None:
    found = links.stamp_links(PROJECT_ROOT / "figures")
    assert found and not links.broken(found), json.dumps([x.detail for x in links.broken(found)])


def test_no_committed_chain_is_broken() -> None:
    """One table of every study; the stamps of all are checked above."""
    figures = PROJECT_ROOT / "figures"
    tables = sorted(figures.glob("*/*/tab_matrix.csv")) + sorted(figures.glob("*/*/tab_gates.csv"))
    tables += sorted(figures.glob("sensitivity/*/tab02.csv"))
    tables += sorted(figures.glob("*/*/tab_privacy.csv")) + sorted(
        figures.glob("*/*/tab_sweep.csv")
    )
    assert tables
    for table in tables:
        assert links.broken(trace(table)) == [], table
