"""Draws one fundus photograph from the parameters of an eye.

Coordinates: lengths are fractions of the image height. ``x`` grows towards the
temporal side (mirrored in right eyes), ``y`` downwards, both from the disc centre.
It is a cartoon of the anatomy, made for measurable disc, cup and defects; it is
no model of any camera.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from fairdiff_lib.sim.drawing import (
    Bytes,
    Colour,
    Picture,
    Plane,
    Points,
    darken,
    grid,
    mix,
    photograph,
    ramp,
    smooth_noise,
)

FUNDUS_LIGHT: Colour = (0.64, 0.35, 0.22)  # melanin 0
FUNDUS_DARK: Colour = (0.36, 0.225, 0.165)  # melanin 1
RIM: Colour = (0.83, 0.56, 0.37)
CUP: Colour = (1.0, 0.91, 0.72)
FIELD_RADIUS = 0.555  # of the round field; the corners of the central square stay dark
EDGE = 0.010  # width of the disc's border


@dataclass(frozen=True)
class Eye:
    """Everything that decides a picture; lengths are fractions of the image height.

    Attributes
    ----------
    cup_disc_ratio : float
        Square root of cup area over disc area, 0 to 1.
    disc_x, disc_y : float
        Disc centre, as fractions of the image's width and height.
    disc_radius, disc_aspect : float
        Radius of the circle of equal area; vertical over horizontal diameter.
    cup_shift : tuple of float
        Offset of the cup's centre (x, y), in disc radii.
    left_eye : bool
        The temporal side is on the picture's right in a left eye, on its left in a right one.
    loss : float
        Visual field loss, 0 to 1: nerve-fibre defects, lost sheen, mottling.
    crescent, ring : float
        Myopic peripapillary atrophy with tessellation; dark hyperopic margin. 0 to 1.
    melanin : float
        Pigmentation, 0 to 1.
    gain, tint, tilt : float, tuple, tuple
        Exposure, colour balance per channel, and illumination slope (x, y).
    tortuosity : float
        Radians by which a vessel's heading wanders.
    noise, defocus : float
        Standard deviation of the camera's noise (share of full scale), and of its
        blur (fraction of the height).
    vessel_seed, texture_seed, noise_seed : int
    """

    cup_disc_ratio: float
    disc_x: float
    disc_y: float
    disc_radius: float
    disc_aspect: float
    cup_shift: tuple[float, float]
    left_eye: bool
    loss: float
    crescent: float
    ring: float
    melanin: float
    gain: float
    tint: Colour
    tilt: tuple[float, float]
    tortuosity: float
    noise: float
    defocus: float
    vessel_seed: int
    texture_seed: int
    noise_seed: int


def render(eye: Eye, height: int, width: int) -> Bytes:
    """The photograph of an eye.

    Parameters
    ----------
    eye : Eye
    height, width : int
        Pixels.

    Returns
    -------
    uint8 [height, width, 3]
        The same for the same arguments.
    """
    grid_x, grid_y = grid(height, width)
    side = 1 if eye.left_eye else -1
    x = (grid_x - (eye.disc_x - 0.5) * width / height) * side
    y = grid_y - (eye.disc_y - 0.5)
    radius = np.hypot(x, y)
    angle = np.arctan2(-y, x)  # 0 = temporal, pi / 2 = up
    image = _background(eye, height, width)
    _nerve_fibres(image, eye, radius, angle)
    rows, columns = _window(eye, height, width)
    _margin(image[:, rows, columns], eye, x[rows, columns], y[rows, columns])
    _disc(image[:, rows, columns], eye, x[rows, columns], y[rows, columns])
    _vessels(image, eye, radius)
    return _camera(image, eye, grid_x, grid_y)


def _background(eye: Eye, height: int, width: int) -> Picture:
    """Pigmented fundus with choroidal texture, tessellation and loss mottling."""
    rng = np.random.default_rng(eye.texture_seed)
    clouds = smooth_noise(rng, 5, height, width)
    blotches = smooth_noise(rng, 14, height, width)
    light = 1 + 0.04 * clouds + 0.02 * smooth_noise(rng, 48, height, width)
    # ridges of smooth noise look like choroidal vessels between dark islands
    ridges = np.exp(-2.5 * np.abs(blotches + 0.4 * clouds))
    light += (0.09 * eye.crescent + 0.02) * (2.5 * ridges - 1)
    light *= 1 - 0.26 * eye.loss * np.clip(blotches + 0.5, 0, 1.6)
    image = np.empty((3, height, width), dtype=np.float32)
    for plane, bright, dark in zip(image, FUNDUS_LIGHT, FUNDUS_DARK, strict=True):
        np.multiply(light, np.float32(bright + (dark - bright) * eye.melanin), out=plane)
    # lost tissue also loses colour
    image += np.float32(0.35 * eye.loss) * (image.mean(axis=0) - image)
    return image


def _nerve_fibres(image: Picture, eye: Eye, radius: Plane, angle: Plane) -> None:
    """Arcuate sheen above and below the disc, and the dark wedges where fibres are lost."""
    rng = np.random.default_rng([eye.texture_seed, 1])
    outside = np.clip(radius - eye.disc_radius, 0, None)
    reach = np.clip(outside / 0.04, 0, 1)
    # bundles bend towards the temporal side as they leave the disc
    bent = np.abs(angle) + 0.9 * outside
    streaks = 0.75 + 0.25 * np.sin(46 * bent + 6 * radius)
    sheen = np.exp(-np.square((bent - 1.45) / 0.60) - outside / 0.30) * streaks * reach
    for plane, strength in zip(image, (0.8, 1.0, 0.75), strict=True):
        plane += 0.13 * (1 - 0.9 * eye.loss) * strength * sheen
    wedges = np.zeros_like(radius)
    for rank, up in enumerate((True, False, True)):
        wander = rng.standard_normal(2).tolist()
        # the first wedge opens with mild loss, the others as it grows
        depth = min(max((eye.loss - (0.10, 0.40, 0.70)[rank]) / 0.22, 0.0), 1.0)
        centre = (1.15, 1.20, 2.05)[rank] + 0.14 * wander[0]
        spread = (0.15 + 0.20 * eye.loss) * (1 + 0.15 * wander[1])
        if depth:
            half = angle > 0 if up else angle < 0
            shape = np.exp(-np.square(np.square((bent - centre) / spread))) * half
            np.maximum(wedges, depth * shape, out=wedges)
    darken(image, (0.46, 0.52, 0.50), wedges * reach)


def _window(eye: Eye, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns that hold the disc and its margin."""
    reach = 1.65 * eye.disc_radius * height
    middle_y, middle_x = eye.disc_y * height, eye.disc_x * width
    rows = slice(max(0, int(middle_y - reach)), int(middle_y + reach) + 1)
    return rows, slice(max(0, int(middle_x - reach)), int(middle_x + reach) + 1)


def _elliptic(eye: Eye, x: Plane, y: Plane) -> Plane:
    """Radius in which the disc's border is a circle of ``disc_radius``."""
    stretch = math.sqrt(eye.disc_aspect)
    rho: Plane = np.hypot(x * stretch, y / stretch)
    return rho


def _margin(image: Picture, eye: Eye, x: Plane, y: Plane) -> None:
    """Pale temporal crescent of myopia, or the dark ring of hyperopia, around the disc."""
    rho = _elliptic(eye, x, y)
    toward: Plane = np.clip((x / np.maximum(rho, 1e-4) + 0.1) / 1.1, 0, 1)
    outer: Plane = np.float32(eye.disc_radius) * (1 + np.float32(0.50 * eye.crescent) * toward)
    crescent = 0.85 * min(1.0, 3 * eye.crescent) * ramp(outer - rho, 0.012)
    # sclera shines through: paler than the fundus, but less red than the rim
    mix(image, (0.67, 0.53, 0.39), crescent * (toward > 0))
    ring = np.exp(-(((rho - 1.10 * eye.disc_radius) / (0.10 * eye.disc_radius)) ** 2))
    darken(image, (0.34, 0.40, 0.36), eye.ring * ring)


def _disc(image: Picture, eye: Eye, x: Plane, y: Plane) -> None:
    """Neuroretinal rim and the brighter cup inside it."""
    rho = _elliptic(eye, x, y)
    shade = 1 - 0.10 * eye.melanin
    rim = (RIM[0] * shade, RIM[1] * shade, RIM[2] * shade)
    mix(image, rim, ramp(eye.disc_radius - rho, EDGE))
    shift_x, shift_y = (s * eye.disc_radius for s in eye.cup_shift)
    cup = _elliptic(eye, x - shift_x, y - shift_y)
    mix(image, CUP, 0.97 * ramp(eye.cup_disc_ratio * eye.disc_radius - cup, 1.4 * EDGE))


# --- vessels: tapering polygons along curves that branch ---

_PIECES = 36  # of a vessel's path
# four arcades: heading in radians (counter-clockwise from temporal), bend, length
_HEADINGS = np.array([1.45, -1.45, 2.15, -2.15])
_BENDS = np.array([-0.95, 0.95, 0.55, -0.55])
_LENGTHS = np.array([1.0, 1.0, 0.75, 0.75])


@dataclass(frozen=True)
class _Vessels:
    """n vessels of one generation: first points [n, 2]; heading, bend, length, thickness [n]."""

    start: Points
    heading: Points
    bend: Points
    length: Points
    thickness: Points

    def paths(self, rng: np.random.Generator, tortuosity: float) -> tuple[Points, Points, Points]:
        """Points [n, p, 2], headings [n, p] and thickness [n, p] along wandering paths."""
        n = len(self.heading)
        s = np.linspace(0, 1, _PIECES) * self.length[:, None]  # [n, p]
        phase = rng.uniform(0, 2 * np.pi, (2, n, 1))
        pitch = rng.uniform(0.10, 0.24, (2, n, 1))
        wander = (np.sin(2 * np.pi * s / pitch + phase) - np.sin(phase)).sum(axis=0)
        heading = self.heading[:, None] + tortuosity * wander
        heading += self.bend[:, None] * (1 - np.exp(-s / 0.40))
        step = (self.length / _PIECES)[:, None, None]
        points = np.cumsum(np.stack([np.cos(heading), -np.sin(heading)], axis=2) * step, axis=1)
        thickness = self.thickness[:, None] * np.linspace(1.0, 0.45, _PIECES)
        return self.start[:, None] + points, heading, thickness


def _offspring(
    rng: np.random.Generator, count: int, parents: _Vessels, paths: tuple[Points, Points, Points]
) -> _Vessels:
    """``count`` branches of each parent, leaving to alternate sides."""
    points, heading, thickness = paths
    n = len(heading)
    place = np.linspace(0.30, 0.85, count) + rng.uniform(-0.06, 0.06, (n, count))
    which, at = np.repeat(np.arange(n), count), (place * _PIECES).astype(int).ravel()
    sides = rng.choice((-1.0, 1.0), (n, 1)) * (-1.0) ** np.arange(count)
    side = sides.ravel()
    rest = parents.length[which] * (1 - place.ravel())
    return _Vessels(
        start=points[which, at],
        heading=heading[which, at] + side * rng.uniform(0.45, 0.85, n * count),
        bend=-0.35 * side,
        length=rest * rng.uniform(0.6, 1.0, n * count) + 0.08,
        thickness=thickness[which, at] * rng.uniform(0.50, 0.70, n * count),
    )


def _tree(rng: np.random.Generator, eye: Eye, vein: bool) -> list[Points]:
    """Outlines [2 p, 2] of the arteries or the veins, relative to the disc centre."""
    up = np.sign(_HEADINGS)
    begin = np.stack([np.full(4, -0.16 if vein else -0.08), -0.10 * up], axis=1)
    vessels = _Vessels(
        start=eye.disc_radius * begin,
        heading=_HEADINGS + (0.22 if vein else -0.10) * up + 0.10 * rng.standard_normal(4),
        bend=_BENDS * rng.uniform(0.8, 1.25, 4),
        length=_LENGTHS,
        thickness=(0.0265 if vein else 0.0195) * rng.uniform(0.9, 1.1, 4),
    )
    outlines: list[Points] = []
    for count in (4, 2, 0):
        paths = vessels.paths(rng, eye.tortuosity)
        points, heading, thickness = paths
        normal = np.stack([np.sin(heading), np.cos(heading)], axis=2) * thickness[..., None] / 2
        outlines.extend(np.concatenate([points + normal, (points - normal)[:, ::-1]], axis=1))
        if count:
            vessels = _offspring(rng, count, vessels, paths)
    return outlines


def _coverage(outlines: list[Points], eye: Eye, height: int, width: int) -> Plane:
    """Share of each pixel that the outlines cover."""
    rows = max(2, -(-512 // height)) * height  # drawn at 512 rows at least, then averaged down
    canvas = Image.new("L", (round(rows * width / height), rows))
    draw = ImageDraw.Draw(canvas)
    scale = np.array([rows if eye.left_eye else -rows, rows])
    centre = np.array([eye.disc_x * canvas.width, eye.disc_y * canvas.height])
    for outline in outlines:
        draw.polygon((outline * scale + centre).ravel().tolist(), fill=255)
    small = canvas.resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / np.float32(255)


def _vessels(image: Picture, eye: Eye, radius: Plane) -> None:
    """Veins, then arteries over them; paler on the disc, where no pigment lies behind them."""
    rng = np.random.default_rng(eye.vessel_seed)
    strength = 1 - 0.60 * ramp(eye.disc_radius - radius, 0.03)
    for vein, colour in ((True, (0.42, 0.58, 0.50)), (False, (0.20, 0.48, 0.46))):
        darken(image, colour, strength * _coverage(_tree(rng, eye, vein), eye, *radius.shape))


# --- camera ---


def _camera(image: Picture, eye: Eye, x: Plane, y: Plane) -> Bytes:
    """Illumination, round field, defocus, noise."""
    from_middle: Plane = x * x + y * y
    light = 1.04 - 0.95 * from_middle + eye.tilt[0] * x + eye.tilt[1] * y
    field = ramp(np.float32(FIELD_RADIUS) - np.sqrt(from_middle), 0.012)
    light *= field
    for plane, strength in zip(image, eye.tint, strict=True):
        plane *= light * (eye.gain * strength)
    return photograph(image, defocus=eye.defocus, noise=eye.noise, seed=eye.noise_seed, field=field)
