"""Draws one frontal chest film from the parameters of a patient and an exposure.

Lengths are fractions of the image height; ``x`` grows to the picture's right (the patient's
left), ``y`` downwards, both from the middle of the chest. Densities add up and are exposed: more
density is whiter. It is a cartoon made for a measurable effusion; it is no model of X-rays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fairdiff_lib.sim.drawing import (
    Bytes,
    Plane,
    Points,
    grid,
    photograph,
    ramp,
    smooth_noise,
    strokes,
)

APEX = -0.37  # y of the lungs' tops
WALL = 0.375  # x of the inner chest wall at the lungs' bases
ANGLE = 0.285  # y of the costophrenic angles
DOME = 0.115  # height of the right half of the diaphragm above its angle
LEFT_LOWER = 0.02  # by which the left half of the diaphragm is lower in the middle
SPINE = 0.058  # half width of spine and great vessels
_TISSUE, _LUNG, _FLUID = 0.60, 0.17, 0.74  # densities


@dataclass(frozen=True)
class Film:
    """Everything that decides a picture; lengths are fractions of the image height.

    Attributes
    ----------
    effusion : float
        Height of the fluid at the chest wall above the costophrenic angle; 0 is none.
    right_sided : bool
        Whether the fluid is on the patient's right, the picture's left.
    x, y, scale, turn : float
        Centre of the chest, its size against the usual one, and rotation in radians.
    breadth : float
        Width of the chest against the usual one.
    heart : float
        Half width of the heart.
    haze : float
        Density added to the lungs.
    ribs : float
        Density of the ribs.
    breast : float
        Density of the breast shadows; 0 is none.
    pacemaker, tube, line, leads : bool
        Devices: a pacemaker with its wire, a tracheal tube, a central line, electrode wires.
    gain, gamma : float
        Exposure.
    tilt : tuple of float
        Slope of the exposure (x, y).
    collimation : float
        Width of the dark border at either side.
    noise, defocus : float
        Standard deviation of the noise (share of full scale), and of the blur.
    anatomy_seed, device_seed, noise_seed : int
    """

    effusion: float
    right_sided: bool
    x: float
    y: float
    scale: float
    turn: float
    breadth: float
    heart: float
    haze: float
    ribs: float
    breast: float
    pacemaker: bool
    tube: bool
    line: bool
    leads: bool
    gain: float
    gamma: float
    tilt: tuple[float, float]
    collimation: float
    noise: float
    defocus: float
    anatomy_seed: int
    device_seed: int
    noise_seed: int

    @property
    def devices(self) -> bool:
        """Whether there is any."""
        return self.pacemaker or self.tube or self.line or self.leads


def render(film: Film, height: int, width: int) -> Bytes:
    """The film of a patient.

    Parameters
    ----------
    film : Film
    height, width : int
        Pixels.

    Returns
    -------
    uint8 [height, width]
        Grey levels; the same for the same arguments.
    """
    grid_x, grid_y = grid(height, width)
    cos, sin = math.cos(film.turn), math.sin(film.turn)
    right, down = grid_x - film.x, grid_y - film.y
    x = ((cos * right + sin * down) / (film.scale * film.breadth)).astype(np.float32)
    y = ((cos * down - sin * right) / film.scale).astype(np.float32)
    body = _body(x, y)
    lung = _lungs(x, y)
    fluid = _fluid(film, x, y)
    air = lung * (1 - fluid)
    density = np.float32(_TISSUE) * body + _abdomen(x, y)
    density = density + air * (np.float32(_LUNG + film.haze) - density)
    density += np.float32(_FLUID - _TISSUE) * fluid * lung
    density += _markings(film, height, width) * air
    density += _ribs(film, x, y) * (0.35 + 0.65 * air) * body
    density = np.maximum(density, _mediastinum(film, x, y) * body)
    density += film.breast * _breasts(x, y)
    density += 0.11 * _bones(film, height, width)
    density += 0.45 * _devices(film, height, width)
    return _expose(film, density, grid_x, grid_y)


# -- anatomy ---------------------------------------------------------------------------------


def _body(x: Plane, y: Plane) -> Plane:
    """Neck, shoulders and trunk: 1 inside."""
    shoulder = -0.47 + 0.62 * np.clip(np.abs(x) - 0.13, 0, None) ** 1.35
    trunk = np.minimum(y - shoulder, 0.47 + 0.10 * np.clip(-y, 0, None) - np.abs(x))
    neck = 0.11 - np.abs(x)
    return ramp(np.maximum(trunk, neck), 0.03)


def diaphragm(x: Plane) -> Plane:
    """y of the lungs' lower border: a dome in each half, lowest at the chest wall."""
    across = (np.abs(x) - 0.15) / (WALL - 0.15)
    lower = LEFT_LOWER * (x > 0) * np.clip(1 - across, 0, 1)
    border: Plane = ANGLE - DOME * np.clip(1 - across * np.abs(across), 0, 1) + lower
    return border.astype(np.float32)


def _lungs(x: Plane, y: Plane) -> Plane:
    """Both lung fields: 1 inside."""
    far = np.abs(x)
    height = np.clip((ANGLE - y) / (ANGLE - APEX), 0, 1)  # 0 at the base, 1 at the apex
    wall = WALL - 0.14 * height**2.2
    top = APEX + 3.0 * (far - 0.14) ** 2
    inside = np.minimum(wall - far, far - 0.045)
    inside = np.minimum(inside, np.minimum(y - top, diaphragm(x) - y))
    return ramp(inside.astype(np.float32), 0.018)


def _abdomen(x: Plane, y: Plane) -> Plane:
    """Added density below the diaphragm, with air in the stomach on the patient's left."""
    below = ramp(y - diaphragm(x), 0.02) * ramp(0.47 - np.abs(x), 0.02)
    bubble = ramp(1 - np.hypot((x - 0.19) / 0.075, (y - 0.275) / 0.038), 0.5)
    return 0.15 * below - 0.22 * bubble * below


def _mediastinum(film: Film, x: Plane, y: Plane) -> Plane:
    """Spine, great vessels, trachea and heart, as densities."""
    # widest where the great vessels leave the heart
    vessels = 0.016 * np.exp(-np.square((y + 0.06) / 0.10)) + 0.03 * np.clip(y, 0, None)
    spine = 0.69 * ramp(SPINE + vessels - np.abs(x), 0.04)
    spine -= 0.16 * np.exp(-np.square(x / 0.017)) * ramp(-0.13 - y, 0.06)  # air in the trachea
    discs = 0.012 * np.cos(2 * math.pi * y / 0.055)
    spine = spine + discs * (np.abs(x) < SPINE)
    knob = 0.66 * ramp(0.042 - np.hypot(x - 0.052, (y + 0.14) / 1.25), 0.035)
    # the apex of the heart points down to the patient's left
    heart_x = (x - 0.04 - 0.30 * np.clip(y - 0.10, -0.15, 0.1)) / film.heart
    heart = 0.72 * ramp(1 - np.hypot(heart_x, (y - 0.11) / 0.165), 0.20)
    return np.asarray(np.maximum(np.maximum(spine, knob), heart), dtype=np.float32)


def _ribs(film: Film, x: Plane, y: Plane) -> Plane:
    """Posterior ribs, nearly level, and fainter anterior ones that slope to the middle."""
    far = np.abs(x)
    back = (y - 0.55 * np.square(far) + 0.10 * far) / 0.074
    front = (y + 0.35 * far) / 0.092 + 0.3
    bands = np.clip(np.cos(2 * math.pi * back) - 0.1, 0, None)
    bands = bands + 0.45 * np.clip(np.cos(2 * math.pi * front) - 0.35, 0, None) * (far > 0.12)
    seen = ramp(0.43 - far, 0.05) * ramp(far - 0.03, 0.03)
    return np.asarray(film.ribs * bands * seen, dtype=np.float32)


def _breasts(x: Plane, y: Plane) -> Plane:
    """Soft shadows over the lower outer lungs."""
    return ramp(1 - np.hypot((np.abs(x) - 0.235) / 0.145, (y - 0.13) / 0.155), 0.5)


def _fluid(film: Film, x: Plane, y: Plane) -> Plane:
    """Effusion: 1 below a level that rises to the chest wall in a meniscus."""
    if film.effusion <= 0:
        return np.zeros_like(x)
    side = x < 0 if film.right_sided else x > 0
    return ramp(y - fluid_level(x, film.effusion), 0.03) * side


def fluid_level(x: Plane, height: float) -> Plane:
    """y of a fluid's surface that stands at ``height`` above the angle at the chest wall."""
    across = np.clip((np.abs(x) - SPINE) / (WALL - SPINE), 0, 1)
    return np.asarray(ANGLE - height * (0.72 + 0.28 * across**2), dtype=np.float32)


def _placed(film: Film, points: Points) -> Points:
    """Points of the chest's coordinates in the picture's."""
    cos, sin = math.cos(film.turn), math.sin(film.turn)
    own = points * (film.scale * film.breadth, film.scale)
    turned = np.stack(
        [cos * own[:, 0] - sin * own[:, 1], sin * own[:, 0] + cos * own[:, 1]], axis=1
    )
    return np.asarray(turned + np.array([film.x, film.y]))


def _markings(film: Film, height: int, width: int) -> Plane:
    """Vessels that spread from each hilum, and the lungs' fine texture."""
    rng = np.random.default_rng(film.anatomy_seed)
    lines: list[Points] = []
    thickness: list[float] = []
    s = np.linspace(0, 1, 8)[:, None]
    for side in (-1, 1):
        for heading in np.linspace(-1.25, 1.35, 9):
            angle = heading + rng.normal(0, 0.1)
            bow = rng.normal(0, 0.05) * np.sin(math.pi * s)
            ahead = np.array([side * math.cos(angle), math.sin(angle)])
            across = np.array([-ahead[1], ahead[0]])
            start = np.array([side * 0.075, -0.02 + 0.03 * heading])
            path = start + rng.uniform(0.14, 0.24) * s * ahead + bow * across
            lines += [_placed(film, path), _placed(film, path[:4])]
            thickness += [0.006, 0.014]
    texture = 0.014 * smooth_noise(rng, 14, height, width)
    return 0.16 * strokes(lines, thickness, height, width) + texture


def _bones(film: Film, height: int, width: int) -> Plane:
    """Clavicles."""
    s = np.linspace(0, 1, 10)
    lines = []
    for side in (-1, 1):
        bow = 0.018 * np.sin(2 * math.pi * s)
        points = np.stack([side * (0.035 + 0.33 * s), -0.295 - 0.075 * s + bow], axis=1)
        lines.append(_placed(film, points))
    return strokes(lines, [0.026, 0.026], height, width)


# -- devices and exposure --------------------------------------------------------------------


def _devices(film: Film, height: int, width: int) -> Plane:
    """Metal and plastic, and the marker of the patient's side that every film has."""
    rng = np.random.default_rng(film.device_seed)
    shift = rng.normal(0, 0.012, 2)
    # the marker stays where it is on the plate: an L beside the patient's left shoulder
    corner = np.array([0.40, -0.40]) + 0.5 * shift
    lines: list[Points] = [corner + np.array([[0, -0.03], [0, 0.02], [0.028, 0.02]])]
    thickness = [0.010]
    if film.pacemaker:
        box = np.array([[0.22, -0.27], [0.28, -0.25]]) + shift
        wire = np.array([[0.22, -0.25], [0.10, -0.30], [0.02, -0.20], [0.0, 0.0], [0.07, 0.16]])
        lines += [_placed(film, box), _placed(film, _curve(wire + shift))]
        thickness += [0.075, 0.008]
    if film.tube:
        lines.append(_placed(film, np.array([[0.008, -0.5], [0.002, -0.30], [0.0, -0.16]])))
        thickness.append(0.016)
    if film.line:
        path = np.array([[-0.16, -0.42], [-0.10, -0.30], [-0.045, -0.20], [-0.04, -0.02]])
        lines.append(_placed(film, _curve(path + shift)))
        thickness.append(0.009)
    if film.leads:
        for at in ((-0.24, -0.17), (0.26, -0.13), (0.24, 0.20)):
            pad = np.array(at) + rng.normal(0, 0.03, 2)
            way = pad + np.array([[0, 0], [0.03, 0.09], [-0.02, 0.22], [0.06, 0.40]])
            way[1:] += rng.normal(0, 0.025, (3, 2))
            dot = pad + np.array([[-0.008, 0], [0.008, 0]])
            lines += [_placed(film, dot), _placed(film, _curve(way))]
            thickness += [0.026, 0.005]
    return strokes(lines, thickness, height, width)


def _curve(points: Points) -> Points:
    """A smooth line through points: their polynomial over the distance walked."""
    steps = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    fine = np.linspace(0, steps[-1], 24)
    order = min(3, len(points) - 1)
    fits = [np.polyval(np.polyfit(steps, column, order), fine) for column in points.T]
    return np.stack(fits, axis=1)


def _expose(film: Film, density: Plane, x: Plane, y: Plane) -> Bytes:
    """Exposure, collimation, blur and noise."""
    light = film.gain * (1 + film.tilt[0] * x + film.tilt[1] * y)
    grey = np.clip(light * density, 0.015, 1) ** film.gamma
    edge = np.float32(x.max()) - np.abs(x)
    grey = grey * ramp(edge - np.float32(film.collimation), 0.006)
    picture = np.repeat(grey[None].astype(np.float32), 3, axis=0)
    taken = photograph(picture, defocus=film.defocus, noise=film.noise, seed=film.noise_seed)
    return np.ascontiguousarray(taken[:, :, 0])
