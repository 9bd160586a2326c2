"""Draws one dermatoscopic photograph from the parameters of a lesion, its skin and the camera.

Lengths are fractions of the image height; ``x`` grows to the right, ``y`` downwards, both from
the lesion's centre. It is a cartoon made for a measurable area, asymmetry and second colour; it
is no model of any dermatoscope.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

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
    strokes,
)

SKIN_LIGHT: Colour = (0.93, 0.76, 0.70)  # melanin 0
SKIN_DARK: Colour = (0.52, 0.35, 0.26)  # melanin 1
_WAVES = 7  # of the border

# dx -> colour of the body, and of its second colour (grey or blue: the brown or red is lost)
_BODY: dict[str, Colour] = {
    "akiec": (0.74, 0.42, 0.38),
    "bcc": (0.80, 0.48, 0.47),
    "bkl": (0.62, 0.42, 0.27),
    "df": (0.72, 0.50, 0.38),
    "mel": (0.36, 0.22, 0.15),
    "nv": (0.52, 0.32, 0.19),
    "vasc": (0.62, 0.13, 0.19),
}
_SECOND: dict[str, Colour] = {
    "akiec": (0.82, 0.80, 0.78),  # scale
    "bcc": (0.42, 0.44, 0.50),  # blue-grey nests
    "bkl": (0.55, 0.55, 0.56),
    "df": (0.86, 0.82, 0.80),  # white centre
    "mel": (0.44, 0.46, 0.52),  # blue-white veil
    "nv": (0.45, 0.44, 0.45),
    "vasc": (0.35, 0.33, 0.42),
}


@dataclass(frozen=True)
class Lesion:
    """Everything that decides a picture; lengths are fractions of the image height.

    Attributes
    ----------
    dx : str
        Diagnosis, as in HAM10000.
    x, y : float
        Centre, from the middle of the picture.
    radius : float
        Of the circle of equal area.
    aspect, angle : float
        Longer over shorter diameter; direction of the longer one in radians.
    irregularity : float
        Amplitude of the border's waves, share of the radius.
    asymmetry : float
        0 to 1: how far pigment and structure lie to one side.
    variegation : float
        Share of the lesion's area that has its second colour.
    network : float
        Strength of the pigment network, 0 to 1.
    shade : float
        Factor of the body's brightness.
    edge : float
        Width of the border.
    melanin : float
        Of the skin, 0 to 1.
    rosiness : float
        Of the skin; positive is redder.
    hairs : int
    hair_width : float
    vignette : float
        Light lost in the picture's corners, share.
    gain, tint, tilt : float, tuple, tuple
        Exposure, colour balance per channel, and slope of the light (x, y).
    noise, defocus : float
        Standard deviation of the camera's noise (share of full scale), and of its blur.
    shape_seed, texture_seed : int
        Of the lesion: the same in all of its pictures.
    hair_seed, noise_seed : int
        Of the picture.
    """

    dx: str
    x: float
    y: float
    radius: float
    aspect: float
    angle: float
    irregularity: float
    asymmetry: float
    variegation: float
    network: float
    shade: float
    edge: float
    melanin: float
    rosiness: float
    hairs: int
    hair_width: float
    vignette: float
    gain: float
    tint: Colour
    tilt: tuple[float, float]
    noise: float
    defocus: float
    shape_seed: int
    texture_seed: int
    hair_seed: int
    noise_seed: int


@dataclass(frozen=True)
class _Frame:
    """Where each pixel lies in the lesion.

    Attributes
    ----------
    u, v : float32 [height, width]
        Along and across the longer diameter, in radii of the border in that direction.
    depth : float32 [height, width]
        Radii inside the border; negative outside.
    body : float32 [height, width]
        0 outside, 1 inside, with a soft border.
    """

    u: Plane
    v: Plane
    depth: Plane
    body: Plane


def render(lesion: Lesion, height: int, width: int) -> Bytes:
    """The photograph of a lesion.

    Parameters
    ----------
    lesion : Lesion
    height, width : int
        Pixels.

    Returns
    -------
    uint8 [height, width, 3]
        The same for the same arguments.
    """
    grid_x, grid_y = grid(height, width)
    image = _skin(lesion, height, width)
    frame = _frame(lesion, grid_x, grid_y)
    _body(image, lesion, frame)
    _structures(image, lesion, frame)
    _second_colour(image, lesion, frame)
    _features(image, lesion, frame)
    _hairs(image, lesion)
    return _camera(image, lesion, grid_x, grid_y)


def _skin(lesion: Lesion, height: int, width: int) -> Picture:
    """Skin with faint mottling and fine furrows."""
    rng = np.random.default_rng(lesion.hair_seed)
    light = 1 + 0.022 * smooth_noise(rng, 4, height, width)
    light += 0.014 * smooth_noise(rng, 40, height, width)
    blush = 0.02 * smooth_noise(rng, 6, height, width) + np.float32(lesion.rosiness)
    image = np.empty((3, height, width), dtype=np.float32)
    for plane, bright, dark in zip(image, SKIN_LIGHT, SKIN_DARK, strict=True):
        np.multiply(light, np.float32(bright + (dark - bright) * lesion.melanin), out=plane)
    image[1] *= 1 - blush
    image[2] *= 1 - 0.8 * blush
    return image


def _frame(lesion: Lesion, x: Plane, y: Plane) -> _Frame:
    """The lesion's own coordinates: an ellipse whose border carries a few waves."""
    rng = np.random.default_rng(lesion.shape_seed)
    cos, sin = math.cos(lesion.angle), math.sin(lesion.angle)
    stretch = math.sqrt(lesion.aspect)
    right, down = x - lesion.x, y - lesion.y
    u = ((cos * right + sin * down) / (stretch * lesion.radius)).astype(np.float32)
    v = ((cos * down - sin * right) * (stretch / lesion.radius)).astype(np.float32)
    theta = np.linspace(-math.pi, math.pi, 361)
    waves, total = np.zeros_like(theta), 0.0
    for order in range(2, 2 + _WAVES):
        size, phase = rng.standard_normal() / order, rng.uniform(0, 2 * math.pi)
        waves += size * np.cos(order * theta + phase)
        total += size * size / 2
    # mean square 1, so that ``irregularity`` is the border's standard deviation
    around = np.maximum(1 + lesion.irregularity / math.sqrt(total) * waves, 0.45)
    around /= math.sqrt(1 + lesion.irregularity**2)
    border = np.interp(np.arctan2(v, u), theta, around).astype(np.float32)
    depth: Plane = border - np.hypot(u, v)
    body = ramp(depth * np.float32(lesion.radius), lesion.edge)
    return _Frame(u / border, v / border, depth, body)


def _body(image: Picture, lesion: Lesion, frame: _Frame) -> None:
    """Pigment over the skin, with clouds; asymmetry shifts it to one side."""
    rng = np.random.default_rng(lesion.texture_seed)
    clouds = smooth_noise(rng, 6, *frame.u.shape)
    body = _BODY[lesion.dx]
    # dark skin darkens what lies in it, but less
    shade = lesion.shade * (1 - 0.25 * lesion.melanin)
    colour = (body[0] * shade, body[1] * shade, body[2] * shade)
    side = np.float32(0.30 * lesion.asymmetry) * np.clip(frame.u, -1, 1)
    strength = np.clip(0.88 + 0.08 * clouds + side, 0.25, 1.0)
    mix(image, colour, frame.body * strength)
    # blotches of darker pigment make the brown of irregular lesions uneven
    blotch = ramp(clouds + np.float32(0.9 * lesion.asymmetry) * frame.u - 0.7, 0.7)
    darken(image, (0.30, 0.36, 0.40), np.float32(lesion.asymmetry) * blotch * frame.body)


def _structures(image: Picture, lesion: Lesion, frame: _Frame) -> None:
    """Pigment network: brown meshes, wider and fading towards the border."""
    if not lesion.network:
        return
    rng = np.random.default_rng([lesion.texture_seed, 1])
    height, width = frame.u.shape
    warp = 0.035 * smooth_noise(rng, 7, height, width)
    # two families of lines that a slow noise bends, as cells between ridges
    pitch = rng.uniform(0.046, 0.058)
    mesh = np.zeros_like(frame.u)
    for turn in (0.0, math.pi / 3, 2 * math.pi / 3):
        along = math.cos(turn) * frame.u + math.sin(turn) * frame.v
        phase = 2 * math.pi / pitch * (np.float32(lesion.radius) * along + warp)
        mesh = np.maximum(mesh, np.cos(phase))
    lines = ramp(mesh - 0.72, 0.5)
    fade = np.clip(frame.depth / 0.35, 0, 1)
    if lesion.dx == "df":  # its delicate network is at the periphery
        fade = fade * np.clip(1.3 - 1.6 * frame.depth, 0, 1)
    side = np.clip(1 + lesion.asymmetry * frame.v, 0.1, 1.6)
    darken(image, (0.32, 0.40, 0.44), np.float32(0.8 * lesion.network) * lines * fade * side)


def _second_colour(image: Picture, lesion: Lesion, frame: _Frame) -> None:
    """Grey, white or blue patches over exactly the stated share of the lesion's area."""
    inside = frame.depth > 0
    if lesion.variegation <= 0 or not inside.any():
        return
    rng = np.random.default_rng([lesion.texture_seed, 2])
    field = smooth_noise(rng, 7, *frame.u.shape)
    side = 1.2 * lesion.asymmetry * (0.8 * frame.u + 0.6 * frame.v)
    # the scar of a dermatofibroma is in the middle
    field = 3 * frame.depth if lesion.dx == "df" else (field + side).astype(np.float32)
    cut = np.quantile(field[inside], 1 - lesion.variegation)
    patch = ramp(field - np.float32(cut), 0.6) * frame.body
    grain = np.clip(0.86 + 0.07 * smooth_noise(rng, 24, *frame.u.shape), 0.6, 1)
    mix(image, _SECOND[lesion.dx], patch * grain)


def _features(image: Picture, lesion: Lesion, frame: _Frame) -> None:
    """What a diagnosis has of its own: vessels, lacunae, cysts, globules."""
    rng = np.random.default_rng([lesion.texture_seed, 3])
    height, width = frame.u.shape
    if lesion.dx == "bcc":
        lines, thick = _branches(rng, lesion)
        darken(image, (0.25, 0.62, 0.58), 0.9 * strokes(lines, thick, height, width))
    elif lesion.dx == "vasc":
        _dots(image, lesion, frame, rng, 16, (0.16, 0.26), (0.42, 0.05, 0.12), 0.75)
    elif lesion.dx == "bkl":
        _dots(image, lesion, frame, rng, 14, (0.035, 0.06), (0.93, 0.86, 0.68), 0.9)
    elif lesion.dx == "akiec":
        _dots(image, lesion, frame, rng, 20, (0.03, 0.05), (0.58, 0.16, 0.20), 0.7)
    elif lesion.dx == "mel":
        _dots(image, lesion, frame, rng, 12, (0.04, 0.08), (0.10, 0.07, 0.07), 0.8)
    elif rng.random() < 0.5:
        _dots(image, lesion, frame, rng, 14, (0.04, 0.06), (0.28, 0.16, 0.10), 0.6)


def _dots(
    image: Picture,
    lesion: Lesion,
    frame: _Frame,
    rng: np.random.Generator,
    count: int,
    sizes: tuple[float, float],
    colour: Colour,
    strength: float,
) -> None:
    """Round spots inside the lesion; sizes in radii of the lesion."""
    height, width = frame.u.shape
    turn = rng.uniform(0, 2 * math.pi, count)
    far = np.sqrt(rng.uniform(0, 0.6, count)) * lesion.radius
    centre = np.stack([lesion.x + far * np.cos(turn), lesion.y + far * np.sin(turn)], axis=1)
    radius = rng.uniform(*sizes, count) * lesion.radius
    x, y = grid(height, width)
    for (at_x, at_y), size in zip(centre.tolist(), radius.tolist(), strict=True):
        reach = (size + 0.02) * height
        row, column = (at_y + 0.5) * height, at_x * height + width / 2
        rows = slice(max(0, int(row - reach)), int(row + reach) + 2)
        columns = slice(max(0, int(column - reach)), int(column + reach) + 2)
        gap = np.hypot(x[rows, columns] - at_x, y[rows, columns] - at_y)
        share = strength * ramp(np.float32(size) - gap, 0.012) * frame.body[rows, columns]
        mix(image[:, rows, columns], colour, share)


def _branches(rng: np.random.Generator, lesion: Lesion) -> tuple[list[Points], list[float]]:
    """Arborising vessels: stems that run inwards over the lesion, and their branches."""
    lines: list[Points] = []
    thickness: list[float] = []
    centre = np.array([lesion.x, lesion.y])
    for stem in range(5):
        start_angle = rng.uniform(0, 2 * math.pi)
        start = centre + 0.95 * lesion.radius * np.array(
            [math.cos(start_angle), math.sin(start_angle)]
        )
        heading = start_angle + math.pi + rng.uniform(-0.7, 0.7)
        path = _wander(rng, start, heading, lesion.radius * rng.uniform(0.8, 1.3))
        lines.append(path)
        thickness.append(0.011 - 0.001 * stem)
        for at in (5, 9):
            side = heading + rng.choice((-1.0, 1.0)) * rng.uniform(0.5, 1.0)
            lines.append(_wander(rng, path[at], side, lesion.radius * rng.uniform(0.3, 0.6)))
            thickness.append(0.006)
    return lines, thickness


def _wander(rng: np.random.Generator, start: Points, heading: float, length: float) -> Points:
    """Points [14, 2] of a winding line."""
    headings = heading + np.cumsum(rng.normal(0, 0.28, 14))
    steps = np.stack([np.cos(headings), np.sin(headings)], axis=1) * length / 14
    path: Points = start + np.cumsum(steps, axis=0)
    return path


def _hairs(image: Picture, lesion: Lesion) -> None:
    """Dark hairs that cross the picture in bows."""
    if not lesion.hairs:
        return
    rng = np.random.default_rng([lesion.hair_seed, 1])
    height, width = image.shape[1:]
    lean = rng.uniform(0, math.pi)
    s = np.linspace(-0.5, 0.5, 16)[:, None]
    lines, thick = [], []
    for _ in range(lesion.hairs):
        heading = lean + rng.normal(0, 0.35)
        ahead = np.array([math.cos(heading), math.sin(heading)])
        across = np.array([-ahead[1], ahead[0]])
        middle = rng.uniform(-0.5, 0.5, 2) * (width / height, 1)
        length, bow = rng.uniform(0.5, 1.3), rng.normal(0, 0.25)
        lines.append(middle + length * s * ahead + bow * (s**2) * across)
        thick.append(lesion.hair_width * rng.uniform(0.7, 1.2))
    darken(image, (0.68, 0.72, 0.72), strokes(lines, thick, height, width))


def _camera(image: Picture, lesion: Lesion, x: Plane, y: Plane) -> Bytes:
    """Uneven light, dark corners, colour balance, blur and noise."""
    half = max(float(x.max()), 0.5)
    from_middle = (x * x + y * y) / np.float32(half * half + 0.25)
    light = 1 - np.float32(lesion.vignette) * from_middle**2
    light = light + lesion.tilt[0] * x + lesion.tilt[1] * y
    for plane, strength in zip(image, lesion.tint, strict=True):
        plane *= light * (lesion.gain * strength)
    return photograph(image, defocus=lesion.defocus, noise=lesion.noise, seed=lesion.noise_seed)
