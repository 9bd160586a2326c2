"""Simulated dermatoscopy and chest films: read back as drawn, knobs apart, truth in the picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from fairdiff_lib.audit.quality import prompt_auc, reconstruction_r2
from fairdiff_lib.classify.runs import check_splits
from fairdiff_lib.data.chexpert import WITH, WITHOUT
from fairdiff_lib.data.cohort import Cohort, square
from fairdiff_lib.data.reading import read_truth
from fairdiff_lib.datasets import dataset_of, load_settings
from fairdiff_lib.disk.places import Places
from fairdiff_lib.settings.errors import InputError
from fairdiff_lib.sim import chest
from fairdiff_lib.sim import skin as dermatoscopy
from fairdiff_lib.sim.chest import ChestPopulation, Patient, draw_patient, simulate_chexpert
from fairdiff_lib.sim.fundus import fundus_config
from fairdiff_lib.sim.skin import LesionCase, SkinPopulation, draw_case, simulate_ham10000
from fairdiff_lib.studies.verdict.effects import planted
from fairdiff_lib.study import Study

# labels are what is drawn; what share_contradicted does has a test of its own
SKIN = SkinPopulation(lesions=110, image_height=32, image_width=43, share_contradicted=0.0)
CHEST = ChestPopulation(patients=110, image_height=32, image_width=32, share_contradicted=0.0)
CAMERA = {"noise", "defocus"}
# what a knob of heterogeneity may spread; labels, conditions, camera and seeds are not among them
SKIN_LOOKS = {"x", "y", "radius", "aspect", "shade", "melanin", "rosiness", "gain", "tint", "tilt"}
CHEST_LOOKS = {
    *("x", "y", "scale", "turn", "breadth", "heart", "haze", "ribs", "breast"),
    *("gain", "gamma", "tilt"),
}
Pictures = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def skin(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    root = tmp_path_factory.mktemp("skin") / "data"
    simulate_ham10000(SKIN, root)
    return dataset_of("ham10000_simulated").read(root)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    root = tmp_path_factory.mktemp("films") / "data"
    simulate_chexpert(CHEST, root)
    return dataset_of("chexpert_simulated").read(root)


def cases(config: SkinPopulation, count: int) -> list[LesionCase]:
    return [draw_case(config, index) for index in range(count)]


def patients(config: ChestPopulation, count: int) -> list[Patient]:
    return [draw_patient(config, index) for index in range(count)]


def changed(a: object, b: object) -> set[str]:
    """Names of the fields in which two pictures' parameters differ."""
    fields = dataclasses.fields(a)  # type: ignore[arg-type]
    return {f.name for f in fields if getattr(a, f.name) != getattr(b, f.name)}


# --- settings and folders ---


@pytest.mark.parametrize("dataset", ["ham10000_simulated", "chexpert_simulated"])
def test_a_knob_of_a_family_moves_its_own_folders(dataset: str) -> None:
    usual = load_settings("smoke", dataset)
    other = load_settings("smoke", dataset, {"simulator.seed": "1"})
    assert Places(usual).data != Places(other).data
    assert Places(usual).base != Places(other).base
    with pytest.raises(InputError, match=r"unknown setting 'simulator.fundus_height'"):
        load_settings("smoke", dataset, {"simulator.fundus_height": "64"})
    with pytest.raises(InputError, match="expected fairgenmed_simulated"):
        fundus_config(usual)


def test_what_was_planted_is_said_by_level() -> None:
    assert planted(ChestPopulation()) == {("race", "Black"): "noise and blur of the film x 3"}
    varied = SkinPopulation(difficulty_older=1.0, heterogeneity_male=2.0)
    assert planted(varied) == {("sex", "Male"): "spread of appearance x 2"}
    for config, name in ((ChestPopulation(), "chexpert"), (SkinPopulation(), "ham10000")):
        assert all(level in dataset_of(name).spec().levels(a) for a, level in config.knobs)


def test_only_simulated_datasets_are_simulated(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'chexpert' is not simulated"):
        dataset_of("chexpert").draw(None, tmp_path / "data")
    assert dataset_of("ham10000").ruler is None
    for dataset in ("fairgenmed_simulated", "ham10000_simulated", "chexpert_simulated"):
        ruler, spec = dataset_of(dataset).ruler, dataset_of(dataset).spec()
        assert ruler is not None
        assert {ruler.low, ruler.high} <= set(spec.levels(ruler.condition))
        assert ruler.condition in [condition.name for condition in spec.prompted]


@pytest.mark.parametrize(
    ("config", "changes", "word"),
    [
        (SKIN, {"lesions": 0}, "lesions=0: expected at least 1, at most 300000"),
        (SKIN, {"image_width": 31}, "image_width=31"),
        (SKIN, {"image_height": 64}, "at least the height"),
        (SKIN, {"difficulty_older": 0.0}, "difficulty_older=0.0: expected a positive factor"),
        (CHEST, {"patients": 100_000}, "patients=100000"),
        (CHEST, {"share_female": 1.2}, "share_female=1.2: expected a fraction"),
        (CHEST, {"share_black": 0.9}, "share_asian + share_black"),
        (CHEST, {"heterogeneity_asian": -1.0}, "heterogeneity_asian"),
    ],
)
def test_a_population_that_cannot_be_drawn_cannot_be_made(
    config: SkinPopulation | ChestPopulation, changes: dict[str, float], word: str
) -> None:
    with pytest.raises(InputError) as caught:
        dataclasses.replace(config, **changes)  # type: ignore[arg-type]
    assert word in str(caught.value) and "\n" not in str(caught.value)
    dataset = f"{'ham10000' if config is SKIN else 'chexpert'}_simulated"
    plain = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)} | changes
    with pytest.raises(InputError, match=r"simulator\."):
        load_settings("smoke", dataset, {f"simulator.{k}": str(v) for k, v in plain.items()})


# --- files ---


def test_lesions_read_back_as_drawn(skin: Cohort) -> None:
    drawn = {name: case for case in cases(SKIN, 110) for name in case.images}
    table = skin.table.set_index("image")
    assert set(table.index) == set(drawn)
    for image, row in table.iterrows():
        case = drawn[str(image)]
        assert (row["subject"], row["dx"], row["sex"]) == (case.name, case.dx, case.sex)
        assert row["age"] == ("60 or older" if case.age >= 60 else "under 60")
    several = skin.table.groupby("subject").size()
    assert several.max() > 1 and (skin.table.groupby("subject")["split"].nunique() == 1).all()
    truth = read_truth(skin.root).loc[skin.table["image"]]
    assert truth["dx"].tolist() == skin.table["dx"].tolist()
    malignant = (skin.table["malignant"] == "malignant").to_numpy()
    share = truth["variegation"].to_numpy()
    assert share[malignant].min() > share[~malignant].max()


def test_films_read_back_as_drawn(films: Cohort) -> None:
    drawn = {patient.name: patient for patient in patients(CHEST, 110)}
    assert films.table["subject"].is_unique and len(films) == 110
    for row in films.table.to_dict("records"):
        patient = drawn[row["subject"]]
        assert (row["race"], row["sex"]) == (patient.race, patient.sex)
        assert row["effusion"] == (WITH if patient.label == "1.0" else WITHOUT)
    truth = read_truth(films.root).loc[films.table["image"]]
    certain = truth["label"].astype(str) != "-1.0"
    ill = (films.table["effusion"] == WITH).to_numpy()
    assert (truth["effusion"][certain].to_numpy() > 0).tolist() == ill[certain].tolist()
    assert films.table["image"].str.contains("study2").any()


def test_a_larger_set_begins_with_the_same_bytes(
    skin: Cohort, films: Cohort, tmp_path: Path
) -> None:
    simulate_ham10000(dataclasses.replace(SKIN, lesions=12), tmp_path / "skin")
    simulate_chexpert(dataclasses.replace(CHEST, patients=12), tmp_path / "films")
    for cohort, name in ((skin, "skin"), (films, "films")):
        few = sorted((tmp_path / name).rglob("*.jpg"))
        assert len(few) >= 12
        for path in few:
            same = cohort.root / path.relative_to(tmp_path / name)
            assert path.read_bytes() == same.read_bytes()


@pytest.mark.parametrize("dataset", ["ham10000_simulated", "chexpert_simulated"])
def test_a_family_goes_from_the_simulator_to_prompts(dataset: str, tmp_path: Path) -> None:
    """As a study does it: simulate, read, split, prompt, load, and find it again."""
    settings = load_settings("smoke", dataset)
    layout = Places(settings, "", str(tmp_path / "runs"), str(tmp_path / "figures"))
    cohort = Study(settings, layout).cohort
    assert Study(settings, layout).cohort.table.equals(cohort.table)
    kept = cohort.included()
    for row in kept.table.to_dict("records"):
        if dataset == "ham10000_simulated":
            age = {"under 60": "Age under 60", "60 or older": "Age equal 60 or older"}[row["age"]]
            words = f"Dermoscopic image of a {row['sex']} {age} patient with the following "
            words += f"diagnostic category: {row['malignant']}"
        else:
            words = f"Chest Radiography image of a {row['sex']} {row['race']} patient "
            words += f"diagnosed with {row['effusion']}"
        assert row["prompt"] == words
    for split in ("train", "val", "test"):
        part = kept.split(split)
        assert part.codes().shape == (len(part), len(cohort.spec.attributes))
        assert part.condition_codes().shape == (len(part), len(cohort.spec.conditions))
    # every level is in every split, as the downstream classifiers need it
    check_splits(kept, {field.name: field.levels for field in cohort.spec.fields})
    test = kept.split("test")
    assert test.load_images(32, [0, 1]).shape == (2, 3, 32, 32)


def test_cuts_of_the_rulers_tell_the_drawn_levels_apart(skin: Cohort, films: Cohort) -> None:
    for cohort, dataset in ((skin, "ham10000_simulated"), (films, "chexpert_simulated")):
        ruler = dataset_of(dataset).ruler
        assert ruler is not None
        drawn = ruler.truth(cohort.root, cohort.table["image"].tolist())
        asked = [
            cohort.spec.levels(ruler.condition).index(x) for x in cohort.table[ruler.condition]
        ]
        certain = np.ones(len(drawn), dtype=bool)
        if dataset == "chexpert_simulated":  # an uncertain label was read as none
            labels = read_truth(cohort.root).loc[cohort.table["image"], "label"]
            certain = (labels.astype(str) != "-1.0").to_numpy()
        assert certain.mean() > 0.8
        assert np.array_equal(np.digitize(drawn, ruler.cuts)[certain], np.array(asked)[certain])


def test_a_known_share_of_labels_is_contradicted_by_the_picture_alike_in_all_groups() -> None:
    """Without it a small classifier is perfect, and nothing is left to compare."""
    bad = ("akiec", "bcc", "mel")
    skin = [
        (c.age >= 60, (c.dx in bad) != (c.views[0].dx in bad))
        for c in cases(SkinPopulation(), 3000)
    ]
    films = [
        (p.race == "White", (p.label == "1.0") != (p.films[0].effusion > 0))
        for p in patients(ChestPopulation(), 3000)
        if p.label != "-1.0"
    ]
    for found in (skin, films):
        share = pd.DataFrame(found).groupby(0)[1].mean()
        # four standard errors of the smaller group
        assert share.to_numpy() == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 700) ** 0.5)
    plain = dataclasses.replace(ChestPopulation(), share_contradicted=0.0)
    for a, b in zip(patients(plain, 200), patients(ChestPopulation(), 200), strict=True):
        assert (a.label, a.race, a.sex) == (b.label, b.race, b.sex)
        assert changed(a.films[0], b.films[0]) <= {"effusion"}


# --- groups and knobs ---


@pytest.mark.parametrize("count", [60, 1000])
def test_groups_follow_their_shares_in_every_prefix(count: int) -> None:
    skin = cases(SkinPopulation(), count)
    assert sum(c.age >= 60 for c in skin) == pytest.approx(0.36 * count, abs=3)
    assert sum(c.sex == "Male" for c in skin) == pytest.approx(0.54 * count, abs=3)
    config = ChestPopulation()
    people = patients(config, count)
    shares = {"Black": config.share_black, "Asian": config.share_asian}
    for race, share in shares.items():
        assert sum(p.race == race for p in people) == pytest.approx(share * count, abs=3)


def test_difficulty_changes_the_camera_of_its_group_alone() -> None:
    easy = dataclasses.replace(SkinPopulation(), difficulty_older=1.0)
    for a, b in zip(cases(easy, 80), cases(SkinPopulation(), 80), strict=True):
        for before, after in zip(a.views, b.views, strict=True):
            assert changed(before, after) == (CAMERA if a.age >= 60 else set())
            if a.age >= 60:
                assert after.noise == pytest.approx(3 * before.noise)
    plain = dataclasses.replace(ChestPopulation(), difficulty_black=1.0)
    for c, d in zip(patients(plain, 80), patients(ChestPopulation(), 80), strict=True):
        for film, harder in zip(c.films, d.films, strict=True):
            assert changed(film, harder) == (CAMERA if c.race == "Black" else set())


def test_heterogeneity_spreads_appearance_alone() -> None:
    varied = dataclasses.replace(SkinPopulation(), heterogeneity_older=2.0)
    pairs = list(zip(cases(SkinPopulation(), 300), cases(varied, 300), strict=True))
    for a, b in pairs:
        assert changed(a.views[0], b.views[0]) <= (SKIN_LOOKS if a.age >= 60 else set())
    shades = [(a.views[0].rosiness, b.views[0].rosiness) for a, b in pairs if a.age >= 60]
    assert np.std(shades, axis=0)[1] == pytest.approx(2 * np.std(shades, axis=0)[0])
    wide = dataclasses.replace(ChestPopulation(), heterogeneity_asian=1.5)
    for c, d in zip(patients(ChestPopulation(), 80), patients(wide, 80), strict=True):
        assert changed(c.films[0], d.films[0]) <= (CHEST_LOOKS if c.race == "Asian" else set())


def test_size_changes_the_shares_alone() -> None:
    many = dataclasses.replace(ChestPopulation(), share_black=0.4)
    pairs = list(zip(patients(ChestPopulation(), 300), patients(many, 300), strict=True))
    assert sum(b.race == "Black" for _, b in pairs) == pytest.approx(120, abs=3)
    for before, after in pairs:
        if before.race == after.race:
            assert before == after


def test_conditions_are_distributed_nearly_alike() -> None:
    skin = pd.DataFrame([(c.age >= 60, c.dx, c.sex) for c in cases(SkinPopulation(), 3000)])
    malignant = skin[1].isin(["mel", "bcc", "akiec"])
    assert malignant.groupby(skin[0]).mean().to_numpy() == pytest.approx([0.30, 0.36], abs=0.04)
    assert malignant.groupby(skin[2]).mean().to_numpy() == pytest.approx([0.32, 0.32], abs=0.04)
    chests = pd.DataFrame(
        [(p.race, p.films[0].effusion > 0) for p in patients(ChestPopulation(), 3000)]
    )
    shares = chests.groupby(0)[1].mean()
    # four standard errors of the smallest group
    assert shares.to_numpy() == pytest.approx([0.42, 0.38, 0.40], abs=4 * 0.5 / 300**0.5)


def test_the_views_of_a_lesion_are_of_one_lesion() -> None:
    several = [c for c in cases(SkinPopulation(), 60) if len(c.views) > 1]
    own = {"dx", "aspect", "irregularity", "asymmetry", "variegation", "melanin", "shape_seed"}
    for case in several:
        first, second = case.views[:2]
        assert not own & changed(first, second)
        assert {"noise_seed", "hair_seed", "angle"} <= changed(first, second)


# --- pictures ---


def as_seen(pictures: list[Pictures]) -> Pictures:
    """Pictures as the models see them.  # -> uint8 [n, 3, 64, 64]"""
    small = [np.asarray(square(Image.fromarray(p).convert("RGB"), 64)) for p in pictures]
    return np.stack([image.transpose(2, 0, 1) for image in small])


def blurred(images: Pictures) -> Pictures:
    """As an autoencoder may leave them."""
    soft = ndimage.gaussian_filter(images.astype(np.float64), (0, 0, 1.5, 1.5))
    return np.asarray(soft.round().astype(np.uint8))


@pytest.mark.parametrize(
    ("dataset", "sharp", "soft"),
    [("ham10000_simulated", 0.88, 0.80), ("chexpert_simulated", 0.95, 0.92)],
)
def test_truth_is_read_from_the_picture(dataset: str, sharp: float, soft: float) -> None:
    """Both the easy and the difficult group are among the 56, and no reading is calibrated."""
    ruler = dataset_of(dataset).ruler
    assert ruler is not None
    if dataset == "ham10000_simulated":
        views = [case.views[0] for case in cases(SkinPopulation(), 56)]
        images = as_seen([dermatoscopy.render(view, 192, 256) for view in views])
        truth = np.array([view.variegation for view in views])
        high = truth > 0.2
    else:
        own = [patient.films[0] for patient in patients(ChestPopulation(), 56)]
        images = as_seen([chest.render(film, 192, 192) for film in own])
        truth = np.array([film.effusion for film in own])
        high = truth > 0
    assert reconstruction_r2(ruler.measure(images), truth) > sharp
    assert reconstruction_r2(ruler.measure(blurred(images)), truth) > soft
    assert prompt_auc(ruler.measure(images), high) > 0.95
    order = np.arange(8)[::-1]
    assert np.array_equal(ruler.measure(images[order]), ruler.measure(images[:8])[::-1])


@pytest.mark.parametrize("dataset", ["ham10000_simulated", "chexpert_simulated"])
def test_nothing_is_measured_where_nothing_is(dataset: str) -> None:
    ruler = dataset_of(dataset).ruler
    assert ruler is not None
    blank = np.full((2, 3, 64, 64), 120, np.uint8)
    assert np.isnan(ruler.measure(blank)).all()
    assert ruler.measure(blank[:0]).shape == (0,)


def test_fluid_changes_its_own_side_below_its_level_alone() -> None:
    film = dataclasses.replace(draw_patient(ChestPopulation(), 3).films[0], effusion=0.0, turn=0.0)
    film = dataclasses.replace(film, noise=0.0, right_sided=True, x=0.0)
    full = dataclasses.replace(film, effusion=0.3)
    difference = chest.render(full, 128, 128).astype(float) - chest.render(film, 128, 128)
    rows, columns = np.nonzero(np.abs(difference) > 12)
    assert len(rows) > 200
    assert columns.max() <= 64  # the patient's right is the picture's left
    top = (rows.min() / 128 - 0.5 - film.y) / film.scale
    assert top == pytest.approx(chest.ANGLE - 0.3, abs=0.04)
    assert difference[rows, columns].mean() > 30  # fluid is whiter than air


def test_the_second_colour_covers_what_it_says() -> None:
    view = draw_case(SkinPopulation(), 1).views[0]
    plain = dataclasses.replace(
        view, dx="mel", variegation=0.0, asymmetry=0.3, noise=0.0, hairs=0, network=0.0, radius=0.3
    )
    covered = dermatoscopy.render(dataclasses.replace(plain, variegation=0.4), 192, 256).astype(
        float
    )
    bare = dermatoscopy.render(plain, 192, 256).astype(float)
    change = np.abs(covered - bare)[:, :, 2]  # blue, which the brown has least of
    usual = np.median(change[change > 0.1 * change.max()])
    lesion = np.pi * 0.3**2 * 192 * 192  # pixels
    assert (change > usual / 2).sum() / lesion == pytest.approx(0.4, abs=0.06)
