"""The index lists what exists and links it, and says what was not run."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from fairdiff_lib.datasets import load_settings
from fairdiff_lib.disk.files import write_json
from fairdiff_lib.disk.places import Places
from fairdiff_lib.disk.stamps import publish_table
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.show.front import about_index, about_missing, about_state, collect_index
from fairdiff_lib.study import Study


def test_the_index_links_files_and_notebooks_that_exist(tmp_path: Path) -> None:
    settings = load_settings("smoke", "fairgenmed_simulated")
    places = Places(settings, figures_root=str(tmp_path))
    study = Study(settings, places)
    with pytest.raises(InputError, match="no table or figure yet"):
        collect_index(study)
    stamp = {"commit": "0123456789abcdef", "dirty": False}
    frame = pd.DataFrame({"value": [1]})
    publish_table(frame, places.figures / "tab02.csv", stamp)
    publish_table(frame, places.figures_all / "tab14.csv", {**stamp, "dirty": True})
    write_json(places.figures / "fig03.json", stamp)
    (places.figures / "fig03.png").write_bytes(b"png")
    write_json(places.figures / "card.json", stamp)
    (places.figures / "card.html").write_text("page")
    index = collect_index(study)
    assert set(index["id"]) == {"tab02", "card", "fig03", "tab14"}
    said = about_index(index)
    assert "[T14](../../all/tab14.csv)" in said and "](05_quality.ipynb)" in said
    for link in re.findall(r"\]\((\.\.[^)]*)\)", said):
        assert (places.executed / link).resolve().is_file()
    assert "fairdiff run --study ablation" in about_missing(index)
    assert "05" not in re.findall(r"^- (\d\d)", about_missing(index), re.MULTILINE)
    assert "commit 0123456789" in about_state(index) and "for 1 of them" in about_state(index)
