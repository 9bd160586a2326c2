"""Audit of a user's own images: the planted disparity is found, bad input is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairdiff_lib.audit.audit import audit, rows_metric
from fairdiff_lib.audit.blur import blur_images
from fairdiff_lib.audit.kid import Kernel
from fairdiff_lib.classify.features import LITE_WEIGHTS, RandomConvExtractor, TextureExtractor
from fairdiff_lib.data.own import BLUR, numbers, read_own, read_set, write_example
from fairdiff_lib.datasets import load_settings
from fairdiff_lib.run.cli import main
from fairdiff_lib.run.notebook import plan_job, run_job
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.show.cards import own_card, own_facts, own_methods
from fairdiff_lib.show.words import about_files, finding
from fairdiff_lib.studies import own
from fairdiff_lib.studies.own import OwnAudit, audit_own, audit_read, write_audit
from fairdiff_lib.studies.quality import CORRUPTIONS

ATTRIBUTES = ["palette", "camera"]
Tables = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_example(tmp_path_factory.mktemp("own") / "example")


@pytest.fixture(scope="module")
def planted(example: tuple[Path, Path]) -> OwnAudit:
    return audited(*example, ATTRIBUTES, condition="shape")


def tables(example: tuple[Path, Path]) -> Tables:
    """The example's tables, paths made absolute, to be changed and written elsewhere."""
    found = {}
    for name, path in zip(("real", "generated"), example, strict=True):
        found[name] = pd.read_csv(path, dtype=str)
        found[name]["path"] = [str(path.parent / cell) for cell in found[name]["path"]]
    return found


def audited(
    real: Path, generated: Path, attributes: list[str], condition: str = "", train: Path | str = ""
) -> OwnAudit:
    """The audit of two files, with what the defaults say."""
    return audit_own(real, generated, attributes, condition, train)


def write(found: Tables, folder: Path) -> tuple[Path, Path]:
    for name, table in found.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder / "real.csv", folder / "generated.csv"


# -- what it finds ---------------------------------------------------------------------------


def test_the_planted_disparity_is_found_and_nothing_else(planted: OwnAudit) -> None:
    contrasts = planted.audit.contrasts.set_index("attribute")
    palette = contrasts.loc["palette"]
    assert (palette["level"], palette["reference"]) == ("warm", "cool")  # of equals, the first
    assert palette["high"] < 0 and palette["p_adjusted"] < 0.001
    assert contrasts.loc["camera", "p_adjusted"] > 0.05
    assert "worse for cool than for warm" in finding(planted.audit)
    assert "1 other comparison, levels are equal to within 0.13 KID" in finding(planted.audit)


def test_the_planted_blur_is_measured_in_its_own_unit(planted: OwnAudit) -> None:
    blur = planted.blur.by_group.set_index("level")
    assert blur.loc["cool", "value"] == pytest.approx(BLUR, abs=0.15)  # Pillow's blur is a box's
    assert blur.loc["warm", "value"] < 0.1
    row = planted.blur.contrasts.set_index("attribute").loc["palette"]
    assert row["high"] < 0 and row["p_better"] < 0.001
    assert planted.second is not None and planted.second.features == "lite0-penultimate"
    assert planted.second.contrasts.set_index("attribute").loc["palette", "high"] < 0
    assert set(planted.contrasts["metric"]) == {"kid", "equivalent_blur"}


def test_a_corruption_of_everybody_is_no_disparity_of_this_generator(planted: OwnAudit) -> None:
    assert set(planted.controls["corruption"]) == set(CORRUPTIONS)
    assert (planted.controls["kid"] > 0).all()
    told = planted.further.set_index(["metric", "level"])
    assert told.loc[("c2st_accuracy", "warm"), "value"] < 0.65
    assert (planted.further["metric"] == "near_identical").sum() == 7


def test_the_methods_paragraph_says_what_was_run(planted: OwnAudit) -> None:
    said = own_methods(planted)
    wanted = (LITE_WEIGHTS, "816 features", "64 x 64 pixels", "240 in all", "cool 120, warm 120",
              f"bandwidth {planted.measured.kernel.bandwidth:.4g}", "Intervals are 95%",
              "largest (cool, A)", "at least 80 subjects", "No two generated images")  # fmt: skip
    assert [words for words in wanted if words not in said] == []
    assert said in unescape(own_card(planted))
    assert "bandwidth 1.236," in own_methods(
        replace(planted, measured=replace(planted.measured, kernel=Kernel(1.236)))
    )


def test_without_a_planted_disparity_none_is_reported(tmp_path: Path) -> None:
    result = audited(*write_example(tmp_path / "null", seed=1, blur=0.0), ATTRIBUTES)
    assert (result.audit.contrasts["p_adjusted"] > 0.05).all()
    assert "worse" not in finding(result.audit)
    low, high = result.audit.overall.interval()
    assert low < 0 < high  # the generator is the program that drew the real images


def test_a_generator_that_draws_one_picture_is_never_called_equal(tmp_path: Path) -> None:
    real, generated = write_example(tmp_path / "one")
    first, *others = (generated.parent / name for name in pd.read_csv(generated)["path"])
    for file in others:
        file.write_bytes(first.read_bytes())
    result = audited(real, generated, ATTRIBUTES)
    assert "equal" not in finding(result.audit)
    assert "240 of 240 generated images are nearly identical" in result.copies
    assert result.copies in own_facts(result).caveats
    assert result.audit.contrasts["p"].isna().all()


def test_of_a_collapsed_generator_whose_pictures_differ_a_little_no_levels_are_equal(
    tmp_path: Path,
) -> None:
    """Further off than any blur, in all groups alike: a share of its KID would be a wide margin."""
    real, generated = write_example(tmp_path / "dark")
    for shade, name in enumerate(pd.read_csv(generated)["path"]):
        Image.new("RGB", (64, 64), (0, shade, 1)).save(generated.parent / name)
    result = audited(real, generated, ATTRIBUTES)
    assert "nearly identical to another one" in result.blur.overall.note
    assert result.audit.contrasts["p_equivalence"].isna().all()
    why = "99% of its generated images are nearly identical to another one"
    assert finding(result.audit) == f"No comparison could be made: {why}."


def test_what_matters_in_kid_is_what_a_tenth_of_a_pixel_makes(planted: OwnAudit) -> None:
    sigma = planted.blur.overall.value
    less, more = (planted.curves.at(width)[0].value for width in (sigma, sigma + 0.1))
    assert more - less > planted.audit.overall.value  # far more than a tenth of the KID itself
    assert planted.audit.contrasts["smallest_effect"].tolist() == pytest.approx([more - less] * 2)


def test_the_order_of_rows_changes_nothing(
    example: tuple[Path, Path], planted: OwnAudit, tmp_path: Path
) -> None:
    found = tables(example)
    found["generated"] = found["generated"].sample(frac=1, random_state=0)
    again = audited(*write(found, tmp_path), ATTRIBUTES, condition="shape")
    for column in ("value", "low", "high"):
        np.testing.assert_allclose(again.by_group[column], planted.by_group[column], atol=1e-9)


def test_several_generated_images_of_a_subject_count_as_one_unit(
    example: tuple[Path, Path], tmp_path: Path
) -> None:
    found = tables(example)
    real, made = found["real"], found["generated"]
    twin = made.iloc[:120].assign(subject=made["subject"].iloc[120:].to_numpy())
    found["real"] = real.iloc[120:]
    found["generated"] = pd.concat([made.iloc[120:], twin])
    result = audited(*write(found, tmp_path), ["palette"])
    assert result.images.paired
    assert result.audit.overall.n == 120


def test_sets_without_common_subjects_are_compared_unpaired(
    example: tuple[Path, Path], tmp_path: Path
) -> None:
    found = tables(example)
    found["generated"]["subject"] = "G" + found["generated"]["subject"]
    result = audited(*write(found, tmp_path), ATTRIBUTES, condition="shape")
    assert not result.images.paired and result.standardised is None
    assert "worse for cool than for warm" in finding(result.audit)
    said = " ".join(own_facts(result).caveats)
    assert "share no subject" in said and "not standardised for shape" in said


def test_standardised_contrasts_stand_beside(planted: OwnAudit) -> None:
    assert planted.standardised is not None
    assert own_facts(planted).standardised is not None and own_facts(planted).mix == "shape"
    gap = planted.standardised.contrasts.set_index("attribute").loc["palette", "value"]
    raw = planted.audit.contrasts.set_index("attribute").loc["palette", "value"]
    assert gap == pytest.approx(raw, rel=0.1)  # shapes are equally frequent in all groups


def test_a_small_level_stays_visible_as_not_estimable(
    example: tuple[Path, Path], tmp_path: Path
) -> None:
    found = tables(example)
    few = found["real"]["subject"].iloc[:6]
    for table in found.values():
        table.loc[table["subject"].isin(few), "camera"] = "C"
    result = audited(*write(found, tmp_path), ATTRIBUTES)
    row = result.by_group.set_index("level").loc["C"]
    assert row["n"] == 6 and np.isnan(row["value"]) and "fewer than 10" in row["note"]
    assert any("C (n=6)" in caveat for caveat in own_facts(result).caveats)


def test_subjects_of_unknown_level_are_left_out_and_counted(
    example: tuple[Path, Path], tmp_path: Path
) -> None:
    found = tables(example)
    found["real"].loc[0, "palette"] = ""
    found["generated"].loc[1, "camera"] = "Unknown"
    result = audited(*write(found, tmp_path), ATTRIBUTES)
    assert result.audit.overall.n == 238
    said = "Subjects left out of the real and the generated images: 1 (camera unknown), 1 (palette"
    assert any(line.startswith(said) for line in own_facts(result).caveats)
    left = result.images.flow.groupby(["set", "step"])["units"].sum()
    assert left["real"].to_dict() == {
        "in the file": 240, "left: camera unknown": 1, "left: palette unknown": 1, "used": 238,
    }  # fmt: skip


def test_a_level_that_nobody_generated_is_in_the_headline(
    example: tuple[Path, Path], tmp_path: Path
) -> None:
    found = tables(example)
    made = found["generated"]
    found["generated"] = made[made["palette"] == "warm"].assign(subject="G" + made["subject"])
    result = audited(*write(found, tmp_path), ATTRIBUTES)
    assert "Not compared: palette cool (no generated image)." in finding(result.audit)


def test_a_difference_of_file_formats_is_named(example: tuple[Path, Path], tmp_path: Path) -> None:
    found = tables(example)
    for row, cells in found["real"].iterrows():
        if cells["palette"] == "warm":
            Image.open(cells["path"]).save(tmp_path / f"{row}.jpg", quality=75)
            found["real"].loc[row, "path"] = f"{row}.jpg"
    gaps = read_own(*write(found, tmp_path), ["palette", "camera"]).file_gaps
    (gap,) = gaps["real"]
    assert (gap.attribute, gap.what, gap.most, gap.share, gap.least, gap.other) == (
        "palette", "JPEG files", "warm", 1.0, "cool", 0.0,
    )  # fmt: skip
    assert not gaps["generated"]
    assert [(gap.most, gap.share, gap.other) for gap in gaps["both"]] == [("real", 0.5, 0.0)]
    assert any("real images: JPEG files are 100% of warm and 0% of cool" in line
               for line in about_files(gaps))  # fmt: skip


@pytest.mark.parametrize("sets", [3, 30])
def test_real_pictures_under_two_subjects_are_counted(
    sets: int, example: tuple[Path, Path], tmp_path: Path
) -> None:
    """Above 5% of a group they are no independent draws any more: no interval is given."""
    found = tables(example)
    real = found["real"]
    for row in range(sets):
        (tmp_path / f"{row}.png").write_bytes(Path(real.loc[row, "path"]).read_bytes())
        real.loc[row + 120, "path"] = f"{row}.png"
    result = audited(*write(found, tmp_path), ["palette"])
    assert f"{2 * sets} of 240 real images are byte for byte the same" in result.copies
    assert "generated" not in result.copies
    assert np.isnan(result.audit.overall.interval()[0]) == (sets == 30)


def test_training_reals_fix_the_scale(example: tuple[Path, Path], tmp_path: Path) -> None:
    found = tables(example)
    first = found["real"]["subject"] < "S080"
    found["train"] = found["real"][first]
    found["real"], found["generated"] = found["real"][~first], found["generated"][~first]
    real, generated = write(found, tmp_path)
    result = audited(real, generated, ["palette"], train=tmp_path / "train.csv")
    assert not any("bandwidth" in caveat for caveat in own_facts(result).caveats)
    assert ("Training images", "train.csv: 80 images of 80 subjects") in own_facts(result).compared
    with pytest.raises(InputError, match=r"train.csv: subject 'S000' is also in"):
        audited(*example, ["palette"], train=tmp_path / "train.csv")


def test_an_encoder_is_trained_on_the_training_reals(
    example: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "load_settings", lambda _: load_settings("smoke"))
    found = tables(example)
    first = found["real"]["subject"] < "S080"
    found["train"] = found["real"][first]
    found["real"], found["generated"] = found["real"][~first], found["generated"][~first]
    real, generated = write(found, tmp_path)
    images = read_own(real, generated, ["palette"], "shape", tmp_path / "train.csv")
    result = audit_read(images, features="encoder", image_size=32)
    assert result.audit.features == "encoder"
    assert np.isfinite(result.by_group["value"]).all()


# -- features --------------------------------------------------------------------------------


def test_texture_sees_a_blur_that_random_convolutions_hardly_see(
    example: tuple[Path, Path],
) -> None:
    """In units of the spread between pictures, the largest shift of a feature's mean."""
    files = read_set(example[0], "subject", []).files[:60]
    pictures = np.stack([np.asarray(Image.open(f)).transpose(2, 0, 1) for f in files])
    shifts = []
    for extractor in (TextureExtractor(), RandomConvExtractor()):
        sharp, soft = extractor(pictures), extractor(blur_images(pictures, 1.5))
        spread = np.maximum(sharp.std(axis=0), 1e-6)
        shifts.append(float(np.abs((soft - sharp).mean(axis=0) / spread).max()))
    assert shifts[0] > 3 * shifts[1]


def test_features_depend_on_the_image_alone_and_are_finite_when_flat() -> None:
    extractor = TextureExtractor()
    pictures = np.random.default_rng(0).integers(0, 256, (5, 3, 33, 33)).astype(np.uint8)
    pictures[4] = 128
    together = extractor(pictures)
    assert together.shape == (5, extractor.width) and np.isfinite(together).all()
    np.testing.assert_allclose(together[2:3], extractor(pictures[2:3]), atol=1e-5)


def test_batches_do_not_change_features(example: tuple[Path, Path]) -> None:
    few = read_set(example[0], "subject", []).take([True] * 20 + [False] * 220)
    found = [own.extract_files([TextureExtractor()], few, 48, batch)[0] for batch in (7, 20)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)


# -- metrics of one's own --------------------------------------------------------------------


def test_a_user_audits_own_functions_and_scores(planted: OwnAudit) -> None:
    made = planted.images.generated
    score = numbers(made, "score")
    metric = rows_metric(own.statistic(score, np.mean))
    found = audit(
        metric, planted.generated_groups, planted.audit.attributes, metric="score", better="high"
    )
    assert found.overall.value == pytest.approx(score.mean())
    with pytest.raises(InputError, match=r"lacks the column nonsense; has path"):
        numbers(made, "nonsense")
    with pytest.raises(InputError, match=r"palette of S000.png is 'cool'; expected a finite"):
        numbers(made, "palette")
    with pytest.raises(InputError, match=r"values: row 1 has a value that is not finite"):
        own.statistic(np.array([0.0, np.nan]), np.mean)


# -- bad input: one line, exit code 2, nothing written ---------------------------------------


def _drop(name: str, column: str) -> Callable[[Tables, Path], None]:
    return lambda found, _: found.update({name: found[name].drop(columns=column)})


def _set(name: str, row: int, column: str, value: str) -> Callable[[Tables, Path], None]:
    def change(found: Tables, _: Path) -> None:
        found[name].loc[row, column] = value

    return change


def _picture(mode: str, side: int) -> Callable[[Tables, Path], None]:
    def change(found: Tables, folder: Path) -> None:
        Image.new(mode, (side, 70)).save(folder / "odd.png")
        found["generated"].loc[3, "path"] = "odd.png"

    return change


def _broken(found: Tables, folder: Path) -> None:
    for row in (2, 5):
        (folder / f"broken{row}.png").write_bytes(b"not a picture")
        found["generated"].loc[row, "path"] = f"broken{row}.png"


def _truncated(found: Tables, folder: Path) -> None:
    whole = Path(found["real"].loc[0, "path"]).read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    found["real"].loc[0, "path"] = "cut.png"


def _few(found: Tables, _: Path) -> None:
    for name in found:
        found[name] = found[name].iloc[:16]


def _many_levels(found: Tables, _: Path) -> None:
    for table in found.values():
        table["palette"] = [f"{number % 40}" for number in range(len(table))]


def _one_level(found: Tables, _: Path) -> None:
    for table in found.values():
        table["palette"] = "cool"


def _listed_twice(found: Tables, _: Path) -> None:
    found["real"].loc[9, "path"] = found["real"].loc[0, "path"]


def _mixed(found: Tables, _: Path) -> None:
    found["generated"].loc[4, "subject"] = "G004"


def _same_file(found: Tables, _: Path) -> None:
    found["generated"].loc[7, "path"] = found["real"].loc[3, "path"]


def _same_bytes(found: Tables, folder: Path) -> None:
    (folder / "other.png").write_bytes(Path(found["real"].loc[3, "path"]).read_bytes())
    found["generated"].loc[7, "path"] = "other.png"


def _alias(found: Tables, folder: Path) -> None:
    (folder / "link.png").symlink_to(found["real"].loc[0, "path"])
    found["real"].loc[9, "path"] = "sub/../link.png"


def _numbered(found: Tables, _: Path) -> None:
    found["real"]["subject"] = [str(n) for n in range(240)]
    found["generated"]["subject"] = [f"{n}.0" for n in range(240)]


def _spelt(found: Tables, _: Path) -> None:
    found["generated"]["palette"] = found["generated"]["palette"].str.upper()


def _film(found: Tables, folder: Path) -> None:
    first, second = (Image.open(found["real"].loc[row, "path"]) for row in (0, 1))
    first.save(folder / "film.gif", save_all=True, append_images=[second])
    found["real"].loc[0, "path"] = "film.gif"


def _commas(found: Tables, _: Path) -> None:
    for table in found.values():
        table["palette"] = table["palette"].map({"cool": "a, b", "warm": "a"})
        table["camera"] = table["camera"].map({"A": "c", "B": "b, c"})


BAD_TABLES: dict[str, tuple[Callable[[Tables, Path], None], str]] = {
    "no path": (_drop("real", "path"), r"real.csv: lacks the column(s) path; has subject"),
    "no subject": (_drop("generated", "subject"), r"generated.csv: lacks the column(s) subject"),
    "unequal names": (_drop("generated", "camera"), r"generated.csv: lacks the column(s) camera"),
    "missing image": (
        _set("generated", 1, "path", "nowhere.png"),
        "generated.csv: 1 of 240 images are missing, as nowhere.png (line 3)",
    ),
    "no pictures": (
        _broken,
        "2 of 240 images are truncated or not pictures, as broken2.png (line 4), broken5.png",
    ),
    "truncated": (_truncated, "1 of 240 images are truncated or not pictures, as cut.png (line 2)"),
    "too small": (_picture("RGB", 20), "too small; expected at least 32 pixels on each side, as"),
    "16 bits": (_picture("I;16", 70), "more than 8 bits per channel; expected 8, as odd.png"),
    "blank subject": (_set("real", 2, "subject", " "), "real.csv, line 4: blank 'subject'"),
    "blank path": (_set("real", 2, "path", ""), "real.csv, line 4: blank 'path'"),
    "listed twice": (_listed_twice, "real.csv, line 11, column 'path': duplicate"),
    "other name": (_same_bytes, "other.png is also on line 5 of"),
    "alias": (_alias, "real.csv, line 11, column 'path': duplicate"),
    "1 and 1.0": (_numbered, "subject has '0' and '0.0', which are one name spelt twice"),
    "cool and COOL": (_spelt, "palette has 'cool' and 'COOL', which are one name spelt twice"),
    "commas": (_commas, "'a, b, c' may be two crossings of palette, camera; expected levels with"),
    "a film": (_film, "real.csv: 1 of 240 images hold several pictures; expected one, as film.gif"),
    "same file": (_same_file, "generated.csv, line 9: S003.png is also on line 5 of"),
    "two levels": (_set("generated", 0, "palette", "warm"), "subject 'S000' has palette 'warm'"),
    "one level": (_one_level, "real.csv: palette has one level, 'cool'; expected two or more"),
    "many levels": (_many_levels, "palette has 40 levels; expected at most 20"),
    "too few": (_few, "no attribute has two levels of at least 10 subjects in both sets"),
    "mixed": (_mixed, "generated.csv: subject 'G004' is not in"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_bad_tables_are_one_line_and_code_2(
    case: str, example: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, expected = BAD_TABLES[case]
    found = tables(example)
    change(found, tmp_path)
    real, generated = write(found, tmp_path)
    refused(capsys, tmp_path, ["--real", str(real), "--generated", str(generated)], expected)


BAD_OPTIONS: dict[str, tuple[list[str], str]] = {
    "no attribute": (["--attributes", "sex"], "lacks the column(s) sex; has path, subject"),
    "empty name": (["--attributes", "palette,,camera"], "expected one or more column names"),
    "twice": (["--attributes", "palette,palette"], "'palette': expected a column of its own"),
    "overall": (["--attributes", "overall"], "'overall': expected a column of its own"),
    "a loop": (["--real", "loop.csv"], "loop.csv: missing; expected a CSV table"),
    "long name": (["--real", f"{'x' * 300}.csv"], "xxx.csv: missing; expected a CSV table"),
    "the unit": (["--attributes", "subject"], "'subject': expected a column of its own"),
    "condition": (["--condition", "dx"], "lacks the column(s) dx"),
    "unit": (["--unit", "patient"], "lacks the column(s) patient"),
    "features": (["--features", "magic"], "unknown features 'magic'; known: lite0, lite0-"),
    "encoder": (["--features", "encoder"], "expected --train with real images and --condition"),
    "image size": (["--image-size", "900"], "image size 900: expected 32 to 64 pixels"),
    "no file": (["--real", "nowhere.csv"], "nowhere.csv: missing; expected a CSV table"),
}


@pytest.mark.parametrize("case", BAD_OPTIONS)
def test_bad_options_are_one_line_and_code_2(
    case: str, example: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, expected = BAD_OPTIONS[case]
    places = ["--real", str(example[0]), "--generated", str(example[1])]
    refused(capsys, tmp_path, [*places, *words], expected)


def refused(
    capsys: pytest.CaptureFixture[str], folder: Path, words: list[str], expected: str
) -> None:
    before = sorted(folder.iterdir())
    output = ["--output", str(folder / "out")]
    assert main(["audit", "--attributes", "palette,camera", *words, *output]) == 2
    said = capsys.readouterr()
    line = said.err.rsplit("\r", 1)[-1].splitlines()[-1]  # progress bars come before it
    assert line.startswith("fairdiff: ") and expected in line
    assert said.out == ""
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\xff", "not readable as CSV"),
        (b"", "not readable as CSV"),
        (b"path,subject,palette\n", "no rows under the header"),
        (b"path;subject;palette\na;b;c\n", "palette has one level, 'c'; expected two or more"),
        (b"path,subject,palette\na,b,c,d\n", "more cells than the header"),
    ],
)
def test_what_is_no_csv_is_refused(
    content: bytes, expected: str, example: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "real.csv").write_bytes(content)
    with pytest.raises(InputError, match=expected) as caught:
        audited(tmp_path / "real.csv", example[1], ["palette"])
    assert "real.csv" in str(caught.value) and "\n" not in str(caught.value)


def test_one_file_without_the_other_is_refused(example: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="generated_csv is given without real_csv"):
        own.csv_files("", "mine.csv", tmp_path)
    assert own.csv_files(*map(str, example), tmp_path) == example
    assert not any(tmp_path.iterdir())


# -- what it writes --------------------------------------------------------------------------


def test_the_command_writes_a_whole_folder(
    example: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    words = ["--real", str(example[0]), "--generated", str(example[1]), "--output", str(output)]
    words += ["--attributes", "palette, camera", "--condition", "shape"]
    assert main(["audit", *words]) == 0
    assert "worse for cool than for warm" in capsys.readouterr().out
    assert {path.name for path in output.iterdir()} == {
        "card.html", "by_group.csv", "contrasts.csv", "contrasts_standardised.csv",
        "summary.csv", "intersections.csv", "flow.csv", "stamp.json", "methods.txt",
        "equivalent_blur.csv", "controls.csv", "further.csv",
    }  # fmt: skip
    stamp = json.loads((output / "stamp.json").read_text())
    assert stamp["simulated"] is True
    assert set(stamp) >= {"parameters", "content", "data_hash", "versions", "hardware", "commit"}
    for name in ("card.html", "stamp.json", "by_group.csv"):
        text = (output / name).read_text()
        assert str(tmp_path) not in text and str(example[0].parent) not in text
    assert main(["audit", *words]) == 2
    assert "holds an earlier audit" in capsys.readouterr().err
    assert main(["audit", *words, "--force"]) == 0


def test_a_folder_that_is_no_audit_is_never_replaced(planted: OwnAudit, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    inside = write_audit(planted, tmp_path / "audit", own_card(planted)) / "notes.txt"
    inside.write_text("what I think of it")  # beside an earlier audit
    for place in (tmp_path, inside.parent):
        for force in (False, True):
            with pytest.raises(InputError, match="holds something other than an audit"):
                write_audit(planted, place, own_card(planted), force=force)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert inside.read_text() == "what I think of it"


def test_of_two_audits_into_one_folder_the_first_stays(
    planted: OwnAudit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found it empty; the second must not replace what nobody told it to."""
    first = write_audit(planted, tmp_path / "out", own_card(planted))
    monkeypatch.setattr(own, "refuse_taken", lambda *_: None)
    with pytest.raises(InputError, match=r"out: cannot be written \(Directory not empty\)"):
        write_audit(planted, tmp_path / "out", "another page")
    assert (first / "card.html").read_text() != "another page"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_content_hash_follows_the_images(example: tuple[Path, Path], tmp_path: Path) -> None:
    before = read_set(example[0], "subject", [])
    found = tables(example)
    Image.new("RGB", (64, 64)).save(tmp_path / "other.png")
    found["real"].loc[0, "path"] = "other.png"
    real, _ = write(found, tmp_path)
    first = read_set(real, "subject", [])
    Image.new("RGB", (64, 64), "red").save(tmp_path / "other.png")
    assert len({one.content for one in (before, first, read_set(real, "subject", []))}) == 3


@pytest.mark.parametrize("attributes", ["palette, camera", ["palette", "camera"]])
def test_attributes_come_as_a_text_or_a_list(
    attributes: str | list[str], example: tuple[Path, Path]
) -> None:
    """As a command line has them, or papermill's -f from YAML."""
    assert list(read_own(*example, attributes).attributes) == ["palette", "camera"]


def test_the_notebook_audits_its_example(tmp_path: Path) -> None:
    job = plan_job("11", {"output": str(tmp_path / "audit")})
    run_job(job, tmp_path / "out.ipynb", threads=1)
    text = (tmp_path / "out.ipynb").read_text()
    assert "worse for cool than for warm" in text
    assert "AUC of the score for shape" in text
    assert (tmp_path / "audit" / "card.html").is_file()
