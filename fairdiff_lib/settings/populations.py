"""How much each simulator draws, and which disparity it plants: plain data, a class per family.

The knobs are the same three everywhere and do not touch one another: a group's ``share`` (size),
its ``heterogeneity`` (how varied it looks) and its ``difficulty`` (how noisy its images are).
"""

from __future__ import annotations

from dataclasses import dataclass

Knobs = dict[tuple[str, str], tuple[float, float]]  # (attribute, level): difficulty, heterogeneity


@dataclass(frozen=True)
class SimulatorConfig:
    """FairGenMed: fundus photographs. The prefixes train, val and test say who is where."""

    train: int = 1000  # subjects; the real set has 6,000
    val: int = 160  # subjects; the real set has 1,000
    test: int = 480  # subjects; the real set has 3,000
    fundus_height: int = 192  # pixels; the real scanner writes 512
    fundus_width: int = 249  # pixels; the real scanner writes 664
    # race shares follow the sister test set of 1,004 subjects (78 Asian, 132 Black)
    share_asian: float = 0.08  # fraction of subjects
    share_black: float = 0.13  # fraction of subjects
    share_hispanic: float = 0.04  # fraction of subjects
    heterogeneity_black: float = 1.0  # x the spread of appearance; 1 = as varied as White
    heterogeneity_asian: float = 1.0  # as above
    difficulty_black: float = 3.0  # x the camera noise; 1 = nothing planted
    difficulty_asian: float = 1.0  # as above
    difficulty_hispanic: float = 1.0  # as above
    seed: int = 20250411  # of the simulated subjects, not of any training

    @property
    def counts(self) -> dict[str, int]:
        """Subjects by the field that sets them."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @property
    def knobs(self) -> Knobs:
        """Difficulty and heterogeneity of every level that has a knob."""
        return {
            ("race", "Asian"): (self.difficulty_asian, self.heterogeneity_asian),
            ("race", "Black"): (self.difficulty_black, self.heterogeneity_black),
            ("ethnicity", "Hispanic"): (self.difficulty_hispanic, 1.0),
        }


@dataclass(frozen=True)
class DermatoscopyConfig:
    """HAM10000: dermatoscopic photographs, one to three of each lesion. Its reader splits."""

    lesions: int = 1800  # 70/10/20 by the reader; the real set has 7,470
    image_height: int = 192  # pixels; the real photographs have 450
    image_width: int = 256  # pixels; the real photographs have 600
    share_male: float = 0.54  # fraction of lesions, as in the real set
    share_older: float = 0.36  # fraction of lesions of patients of 60 or older
    share_contradicted: float = 0.05  # of lesions, looking like the other of benign and malignant
    heterogeneity_male: float = 1.0  # x the spread of appearance; 1 = as varied as Female
    heterogeneity_older: float = 1.0  # as above, against under 60
    difficulty_male: float = 1.0  # x the camera noise and blur
    difficulty_older: float = 3.0  # as above; 1 = nothing planted
    seed: int = 20250412  # of the simulated lesions, not of any training

    @property
    def counts(self) -> dict[str, int]:
        """Lesions by the field that sets them."""
        return {"lesions": self.lesions}

    @property
    def knobs(self) -> Knobs:
        """Difficulty and heterogeneity of every level that has a knob."""
        return {
            ("sex", "Male"): (self.difficulty_male, self.heterogeneity_male),
            ("age", "60 or older"): (self.difficulty_older, self.heterogeneity_older),
        }


@dataclass(frozen=True)
class ChestConfig:
    """CheXpert: frontal chest films in the public release's layout. Its reader splits."""

    patients: int = 1640  # 60/10/30 by the reader; the study samples 10,000
    image_height: int = 192  # pixels; the small release has 320 at the shorter side
    image_width: int = 192  # pixels
    # round numbers near the real shares among the three levels
    share_asian: float = 0.15  # fraction of patients
    share_black: float = 0.18  # more than the real set has, so that the level can be judged
    share_female: float = 0.42  # fraction of patients
    share_contradicted: float = 0.05  # of certain labels of an effusion, not what the film shows
    heterogeneity_asian: float = 1.0  # x the spread of appearance; 1 = as varied as White
    heterogeneity_black: float = 1.0  # as above
    difficulty_asian: float = 1.0  # x the noise and blur of the film
    difficulty_black: float = 3.0  # as above; 1 = nothing planted
    difficulty_female: float = 1.0  # as above, against Male
    seed: int = 20250413  # of the simulated patients, not of any training

    @property
    def counts(self) -> dict[str, int]:
        """Patients by the field that sets them."""
        return {"patients": self.patients}

    @property
    def knobs(self) -> Knobs:
        """Difficulty and heterogeneity of every level that has a knob."""
        return {
            ("race", "Asian"): (self.difficulty_asian, self.heterogeneity_asian),
            ("race", "Black"): (self.difficulty_black, self.heterogeneity_black),
            ("sex", "Female"): (self.difficulty_female, 1.0),
        }


Simulator = SimulatorConfig | DermatoscopyConfig | ChestConfig

# sizes by preset, where they are not a class's own
_SIZES: dict[str, dict[str, Simulator]] = {
    "fairgenmed_simulated": {
        "smoke": SimulatorConfig(96, 24, 64, fundus_height=64, fundus_width=83),
        "paper": SimulatorConfig(6000, 1000, 3000, fundus_height=512, fundus_width=664),
    },
    "ham10000_simulated": {
        # fewer would leave the rarest diagnoses out of the validation tenth
        "smoke": DermatoscopyConfig(300, image_height=64, image_width=85),
        "paper": DermatoscopyConfig(7470, image_height=450, image_width=600),
    },
    "chexpert_simulated": {
        "smoke": ChestConfig(184, image_height=64, image_width=64),
        "paper": ChestConfig(10_000, image_height=512, image_width=512),
    },
}
_USUAL: dict[str, Simulator] = {
    "ham10000_simulated": DermatoscopyConfig(),
    "chexpert_simulated": ChestConfig(),
}


def simulator_for(dataset: str, preset: str) -> Simulator:
    """What a preset simulates of a dataset; a real one, which uses none, has FairGenMed's."""
    sizes = _SIZES.get(dataset, _SIZES["fairgenmed_simulated"])
    return sizes.get(preset, _USUAL.get(dataset, SimulatorConfig()))
