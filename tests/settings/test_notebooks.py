"""The entries of notebooks fit each other and the files."""

from __future__ import annotations

from fairdiff_lib.datasets import contents
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.settings.notebooks import JOBS, NOTEBOOKS, STUDIES


def test_every_entry_has_its_file_and_every_file_its_entry() -> None:
    files = {path.stem for path in (PROJECT_ROOT / "notebooks").glob("*.ipynb")}
    assert set(NOTEBOOKS) == files
    assert {entry.notebook for entry in JOBS.values()} <= set(NOTEBOOKS)
    assert {entry.study for entry in NOTEBOOKS.values()} <= {"", *STUDIES}


def test_jobs_wait_for_jobs_and_never_in_a_circle() -> None:
    done: list[str] = []
    while len(done) < len(JOBS):
        ready = [
            name
            for name, entry in JOBS.items()
            if name not in done
            and all(own.partition("_none_seed")[0] in done for own in entry.after)
        ]
        assert ready, f"never ready: {set(JOBS) - set(done)}"
        done += ready


def test_an_id_means_one_thing() -> None:
    makers: dict[str, set[tuple[str, str]]] = {}
    for entry in JOBS.values():
        for name, title in entry.titles.items():
            makers.setdefault(name, set()).add((title, entry.notebook))
    assert all(len(own) == 1 for own in makers.values())
    assert set(makers) <= set(contents())
