"""Pictures: opened as a viewer shows them, and looked at before a pixel is used.

What a file holds besides the picture (its format, its size, how strongly it was compressed) may go
with a patient group; then a difference between groups may be the files'.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, PngImagePlugin
from tqdm.auto import tqdm

from fairdiff_lib.settings.errors import InputError

# some programs write how they made a picture into it; Pillow by itself stops at 1 MB of text
PngImagePlugin.MAX_TEXT_CHUNK = 2**26
PngImagePlugin.MAX_TEXT_MEMORY = 2**28
# what Pillow turns into RGB by itself; of others it knows no way, or takes what fits
MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, struct.error, EOFError, OverflowError,
              IndexError, NotImplementedError,
              Image.DecompressionBombError, Image.DecompressionBombWarning)  # fmt: skip
LEAST_SIDE = 8  # pixels
BROKEN = "are truncated or not pictures"
_PNG_END = b"IEND\xaeB`\x82"
_JPEG_END, _BEHIND = b"\xff\xd9", bytes(range(0x11, 0xEE, 7))  # no marker in the latter
_SCAN = re.compile(rb"(?:[^\xff]|\xff[\x00\xd0-\xd7])*", re.DOTALL)  # a JPEG's coded bytes
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")
GAP, CLEAR, LEAST = 0.1, 4.0, 10  # shares of two levels differ; standard errors; images in a level


def open_picture(path: Path) -> Image.Image:
    """A picture as a viewer shows it, in RGB.

    It is turned as its EXIF tag says, and laid on black where it is transparent: whatever colour
    is hidden under an alpha of 0 is not seen. More than 8 bits per channel are refused.
    """
    try:
        with _opened(path) as file:
            fault = _fault(file)
            if fault:
                raise InputError(f"{path}: {fault.removeprefix('have ').removeprefix('hold ')}")
            with suppress(SyntaxError, TypeError, ValueError, struct.error):  # no readable tag
                ImageOps.exif_transpose(file, in_place=True)
            if not file.has_transparency_data:
                return file.convert("RGB")
            seen = file.convert("RGBA")
            ground = Image.new("RGBA", seen.size, "black")
            return Image.alpha_composite(ground, seen).convert("RGB")
    except FileNotFoundError:
        raise InputError(f"{path}: image not found") from None
    except UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: truncated or not an image ({error})") from None


def _opened(file: Path | io.BytesIO) -> Image.Image:
    """A picture whose header was read; as many pixels as an attack has are an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)  # of tags that nobody reads
        return Image.open(file)


# -- a look at files -------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What a picture's file says; of a faulty one, why it can't be used."""

    sha256: str = ""  # of its bytes
    fault: str = ""  # as "are truncated or not pictures"; empty = none
    format: str = ""  # as "JPEG"
    mode: str = ""  # Pillow's: "L" is grey
    profile: bool = False  # whether it brings a colour profile
    side: int = 0  # pixels of the shorter side
    step: float = 0.0  # mean step of a JPEG's quantisation: what is finer was thrown away


def look_at(path: Path) -> Seen:
    """A file's hash and what its header says; whether all of the picture is there."""
    try:
        raw = path.read_bytes()
    except OSError:
        return Seen(fault="can't be read")
    digest = hashlib.sha256(raw).hexdigest()
    try:
        with _opened(io.BytesIO(raw)) as file:
            fault = _fault(file, raw) or ("" if _has_end(raw) or _decodes(file) else BROKEN)
            if file.format == "JPEG" and not fault and _is_short(raw):
                fault = BROKEN
            if file.format == "PNG" and not fault:
                Image.open(io.BytesIO(raw)).verify()  # the sums of its parts
            tables = getattr(file, "quantization", None) or {0: [0]}
            kind = (file.format or "", file.mode, "icc_profile" in file.info, min(file.size))
            return Seen(digest, fault, *kind, float(np.mean(tables[min(tables)])))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Seen(digest, f"have more than {Image.MAX_IMAGE_PIXELS:,} pixels")
    except UNREADABLE as error:
        text = "TEXT" in str(error)  # Pillow's limit's name
        return Seen(digest, "hold more than 64 MB of text" if text else BROKEN)


def _fault(file: Image.Image, raw: bytes = b"") -> str:
    """Why an opened picture can't be used as it is; empty where it can."""
    if _is_deep(file, raw):
        return "have more than 8 bits per channel; expected 8"
    if file.mode not in MODES:
        return f"have colours of the kind {file.mode}; expected grey or RGB"
    if getattr(file, "n_frames", 1) > 1 and file.format != "MPO":  # a phone's: a picture and its
        return "hold several pictures; expected one"  # preview
    return ""


def _is_deep(file: Image.Image, raw: bytes) -> bool:
    """Whether a picture has more than 8 bits per channel, of which Pillow would drop some."""
    # a 16-bit colour PNG says mode RGB, but its decoder says RGB;16B; a PPM's gives its largest
    tile = getattr(file, "tile", None)
    if file.mode.startswith(("I", "F")) or ";16" in repr(tile):
        return True
    if file.format == "PPM" and tile:
        return any(isinstance(x, int) and x > 255 for x in tile[0][3])
    if file.format == "JPEG2000" and b"\xff\x51" in raw:  # its SIZ marker: bits - 1, and a sign
        return raw[raw.index(b"\xff\x51") + 40] & 0x7F > 7
    return False


def _has_end(raw: bytes) -> bool:
    if raw[:2] == b"\xff\xd8":
        return raw[-2:] == b"\xff\xd9"
    return raw[:4] == b"\x89PNG" and raw[-8:] == _PNG_END


def _is_short(raw: bytes) -> bool:
    """Whether a JPEG's data end before its picture does: what is put behind them is then seen.

    The decoder only warns of that, which nobody is told, and paints the rest grey. Of pictures that
    lost bytes on their way most are found, of progressive ones two thirds; of whole ones none.
    """
    seen = []
    for own in (raw, _continued(raw)):
        with _opened(io.BytesIO(own)) as file:
            if not file.info.get("progressive"):
                file.draft(file.mode, (1, 1))  # every block is read, an eighth of it painted
            seen.append(file.tobytes())
    return seen[0] != seen[1]


def _continued(raw: bytes) -> bytes:
    """A JPEG with bytes behind each run of coded ones, which are skipped where the run is whole."""
    at, parts = 2, [raw[:2]]
    while raw[at : at + 1] == b"\xff" and raw[at : at + 2] != _JPEG_END:
        end = at + 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
        parts.append(raw[at:end])
        scan = _SCAN.match(raw, end) if raw[at : at + 2] == b"\xff\xda" else None
        if scan:
            parts.append(_RESTART.sub(lambda mark: _BEHIND + mark[0], scan[0]) + _BEHIND)
            end = scan.end()
        at = end
    return b"".join(parts) + raw[at:]


def _decodes(file: Image.Image) -> bool:
    """Some writers append bytes after the end marker, and other formats have none."""
    try:
        file.load()
    except UNREADABLE:
        return False
    return True


def look_at_all(files: Sequence[Path], words: str, least: int = LEAST_SIDE) -> list[Seen]:
    """:func:`look_at` of every file; one of fewer pixels than ``least`` on a side is faulty."""
    found = [look_at(file) for file in tqdm(files, desc=words, disable=None, leave=False)]
    small = f"are too small; expected at least {least} pixels on each side"
    return [replace(x, fault=small) if not x.fault and x.side < least else x for x in found]


def refuse_faults(where: Path, names: Sequence[str], seen: Sequence[Seen]) -> None:
    """Raise if a picture can't be used, with the count and the first names of one fault."""
    for fault in sorted({one.fault for one in seen} - {""}):
        bad = [name for name, one in zip(names, seen, strict=True) if one.fault == fault]
        first = ", ".join(map(str, bad[:3])) + ", ..." * (len(bad) > 3)
        raise InputError(f"{where}: {len(bad)} of {len(seen)} images {fault}, as {first}")


def hash_images(root: Path, paths: Sequence[str], seen: Sequence[Seen]) -> str:
    """SHA-256 over the sorted relative names and contents of images."""
    pairs = sorted((name, one.sha256) for name, one in zip(paths, seen, strict=True))
    return hashlib.sha256("".join(f"{n}\0{h}\n" for n, h in pairs).encode()).hexdigest()


# -- what goes with a group ------------------------------------------------------------------


FILE = ("format", "mode", "profile", "side", "step")  # of Seen: columns of a table of images
_MODES = {"L": "grey pictures", "P": "pictures with a palette", "CMYK": "pictures in CMYK"}


@dataclass(frozen=True)
class FileGap:
    """A property of files of which one level of an attribute has more than another."""

    attribute: str
    what: str  # as "JPEG files"
    most: str  # level
    share: float  # of its images
    least: str  # level
    other: float


def file_table(seen: Sequence[Seen]) -> pd.DataFrame:
    """What files say, as columns ``FILE``; a row per picture."""
    return pd.DataFrame([[getattr(one, name) for name in FILE] for one in seen], columns=[*FILE])


def file_gaps(table: pd.DataFrame, attributes: Mapping[str, Sequence[str]]) -> list[FileGap]:
    """Properties of files that go with a group: per attribute and property the widest gap.

    Those of at least ``GAP`` in shares and ``CLEAR`` standard errors, of levels with at least
    ``LEAST`` images. The table has the columns ``FILE`` and the attributes, a row per image.
    """
    found = []
    for kind in _properties(table):
        for name, levels in attributes.items():
            widest = max((_widest(table[name], levels, what, has) for what, has in kind.items()),
                         key=lambda gap: gap.share - gap.other, default=None)  # fmt: skip
            if widest and widest.share - widest.other >= GAP:
                found.append(widest)
    return found


def _properties(table: pd.DataFrame) -> list[dict[str, pd.Series[bool]]]:
    """Kinds of properties; of each, words and which images have it (others are not in it)."""
    side, step = (pd.to_numeric(table[name]) for name in ("side", "step"))
    jpeg, half = table["format"] == "JPEG", int(side.median()) if len(side) else 0
    coarse = step[jpeg]
    return [
        {f"{name} files": table["format"] == name for name in sorted(set(table["format"]))},
        {_MODES.get(m, f"{m} pictures"): table["mode"] == m for m in sorted(set(table["mode"]))},
        {"pictures with a colour profile": table["profile"].astype(str) == "True"},
        {f"pictures of more than {half} pixels on the shorter side": side > half},
        {"JPEG files stored more coarsely than most": coarse > coarse.median()},
    ]


def _widest(
    column: pd.Series[str], levels: Sequence[str], what: str, has: pd.Series[bool]
) -> FileGap:
    """The widest clear gap between two levels; 0 where there is none."""
    own = column[has.index]
    counts = {level: int((own == level).sum()) for level in levels}
    shares = {level: float(has[own == level].mean()) for level in levels if counts[level] >= LEAST}
    none = FileGap(str(column.name), what, "", 0.0, "", 0.0)
    if len(shares) < 2:
        return none
    most, least = max(shares, key=lambda x: shares[x]), min(shares, key=lambda x: shares[x])
    n, m = counts[most], counts[least]
    pooled = (n * shares[most] + m * shares[least]) / (n + m)
    error = (pooled * (1 - pooled) * (1 / n + 1 / m)) ** 0.5
    gap = FileGap(none.attribute, what, most, shares[most], least, shares[least])
    return gap if gap.share - gap.other > CLEAR * error else none


# -- one picture, several files --------------------------------------------------------------


def twins(seen: Sequence[Seen], owners: Sequence[object]) -> list[list[int]]:
    """Sets of rows whose files have the same bytes, of more than one owner each."""
    rows: dict[str, list[int]] = {}
    for row, one in enumerate(seen):
        if one.sha256:
            rows.setdefault(one.sha256, []).append(row)
    return [own for own in rows.values() if len({owners[row] for row in own}) > 1]
