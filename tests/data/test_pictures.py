"""Files of pictures: what can't be used is known before the work, and what goes with a group."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fairdiff_lib.data.pictures import (
    BROKEN,
    FILE,
    Seen,
    file_gaps,
    look_at,
    look_at_all,
    open_picture,
    refuse_faults,
    twins,
)
from fairdiff_lib.settings.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
PICTURE = Image.fromarray(PIXELS)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def inserted(path: Path, more: bytes, *, behind: bool = False) -> None:
    """A PNG with another chunk before or behind its pixels."""
    PICTURE.save(path)
    raw = path.read_bytes()
    cut = raw.rindex(b"IEND") - 4 if behind else 33
    path.write_bytes(raw[:cut] + more + raw[cut:])


def _bomb(path: Path) -> None:
    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _damaged(path: Path) -> None:
    PICTURE.save(path)
    raw = bytearray(path.read_bytes())
    raw[200] ^= 1  # both ends are as they should be
    path.write_bytes(raw)


def _short(path: Path) -> None:
    """A JPEG that lost a fifth of its bytes on its way, not at its ends."""
    PICTURE.resize((400, 300), Image.Resampling.BICUBIC).save(path)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2] + raw[len(raw) * 7 // 10 :])


DEEP, SEVERAL = "have more than 8 bits per channel; expected 8", "hold several pictures"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.png": (lambda p: p.write_bytes(b""), BROKEN),
    "drawing.svg": (lambda p: p.write_text("<svg/>"), BROKEN),
    "damaged.png": (_damaged, BROKEN),
    "short.jpg": (_short, BROKEN),
    "folder.png": (lambda p: p.mkdir(), "can't be read"),
    "loop.png": (lambda p: p.symlink_to(p), "can't be read"),
    "bomb.png": (_bomb, "have more than 89,478,485 pixels"),
    "lab.tif": (lambda p: PICTURE.convert("LAB").save(p), "have colours of the kind LAB"),
    "deep.ppm": (lambda p: p.write_bytes(b"P6 40 40 65535\n" + bytes(40 * 40 * 6)), DEEP),
    "deep.jp2": (lambda p: Image.fromarray(PIXELS[..., 0].astype(np.uint16)).save(p), DEEP),
    "film.gif": (lambda p: PICTURE.save(p, save_all=True, append_images=[PICTURE.rotate(9)]),
                 SEVERAL),
    "pages.tif": (lambda p: PICTURE.save(p, save_all=True, append_images=[PICTURE]), SEVERAL),
    "dot.png": (lambda p: PICTURE.resize((1, 1)).save(p), "are too small; expected at least 8"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_can_not_be_used_is_said_before_any_work(name: str, tmp_path: Path) -> None:
    make, fault = FAULTS[name]
    make(tmp_path / name)
    seen = look_at_all([tmp_path / name], "look")
    assert seen[0].fault.startswith(fault)
    with pytest.raises(InputError, match=rf"here: 1 of 1 images .*, as {name}$"):
        refuse_faults(Path("here"), [name], seen)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp", "a.gif", "a.ppm", "a.jp2"])
def test_other_formats_are_pictures_too(name: str, tmp_path: Path) -> None:
    PICTURE.save(tmp_path / name)
    assert not look_at(tmp_path / name).fault
    assert open_picture(tmp_path / name).size == (50, 40)


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"quality": 5}, {"optimize": True},
                                 {"restart_marker_rows": 1}, {"subsampling": 0}])  # fmt: skip
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_whole_jpeg_is_no_short_one(mode: str, how: dict[str, int], tmp_path: Path) -> None:
    for number, picture in enumerate((PICTURE, Image.new("RGB", (43, 61), "navy"))):
        path = tmp_path / f"{number}.jpg"
        picture.convert(mode).save(path, **how)
        assert not look_at(path).fault


def test_pictures_in_ink_are_read_in_light(tmp_path: Path) -> None:
    Image.new("CMYK", (40, 40), (0, 255, 255, 0)).save(tmp_path / "red.tif")
    assert open_picture(tmp_path / "red.tif").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("behind", [False, True])
def test_text_and_profiles_in_a_picture_do_not_matter(behind: bool, tmp_path: Path) -> None:
    """Some programs write how they made a picture into it: more than Pillow's 1 MB."""
    path = tmp_path / "a.png"
    for kind in (b"zTXt", b"iCCP"):
        inserted(path, chunk(kind, b"x\0\0" + zlib.compress(b"node " * 400_000)), behind=behind)
        assert not look_at(path).fault
        assert np.array_equal(np.asarray(open_picture(path)), PIXELS)
    inserted(path, chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**26 + 1))))
    assert look_at(path).fault == "hold more than 64 MB of text"


def files_of(**columns: object) -> pd.DataFrame:
    """A table of 200 files; the first half belong to women."""
    plain = {"format": "PNG", "mode": "RGB", "profile": False, "side": 64, "step": 0.0}
    table = pd.DataFrame({**plain, **columns}, index=range(200))
    return table.assign(sex=["Female"] * 100 + ["Male"] * 100)[[*FILE, "sex"]]


HALVES = np.arange(200) < 100
GOES_WITH: dict[str, tuple[dict[str, object], str]] = {
    "format": ({"format": np.where(HALVES, "JPEG", "PNG")}, "JPEG files"),
    "mode": ({"mode": np.where(HALVES, "L", "RGB")}, "grey pictures"),
    "profile": ({"profile": HALVES}, "pictures with a colour profile"),
    "size": ({"side": np.where(HALVES, 600, 500)}, "more than 550 pixels"),
    "quality": ({"format": "JPEG", "step": np.where(HALVES, 20.0, 9.0)}, "stored more coarsely"),
}


@pytest.mark.parametrize("case", GOES_WITH)
def test_a_property_of_files_that_goes_with_a_group_is_named(case: str) -> None:
    columns, what = GOES_WITH[case]
    table = files_of(**columns)
    for found in (file_gaps(table, {"sex": ("Female", "Male")}),
                  file_gaps(table.astype(str), {"sex": ("Female", "Male")})):  # fmt: skip
        (gap,) = (gap for gap in found if what in gap.what)
        assert (gap.attribute, gap.most, gap.share) == ("sex", "Female", 1)
        assert (gap.least, gap.other) == ("Male", 0)


def test_no_property_goes_with_a_group_by_chance() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        columns = {"format": rng.choice(["JPEG", "PNG"], 200), "side": rng.integers(500, 600, 200)}
        assert not file_gaps(files_of(**columns), {"sex": ("Female", "Male")})
    assert not file_gaps(files_of().iloc[:0], {"sex": ("Female", "Male")})


def test_the_same_picture_under_two_names_is_found() -> None:
    seen = [Seen(sha) for sha in ("a", "b", "a", "c", "c", "")]
    assert twins(seen, ["S1", "S2", "S3", "S4", "S4", "S5"]) == [[0, 2]]  # S4's two are its own
