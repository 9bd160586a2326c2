"""Pictures and tables as programs and archives hand them out: each is read for what it holds."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image

from fairdiff_lib.data.cohort import load_image
from fairdiff_lib.data.ham10000 import DX
from fairdiff_lib.data.pictures import look_at, open_picture
from fairdiff_lib.data.reading import UNKNOWN, ages, read_text_csv, refuse_respelt
from fairdiff_lib.datasets import dataset_of
from fairdiff_lib.settings.errors import InputError

Pixels = npt.NDArray[np.uint8]
HAM = dataset_of("ham10000")


@pytest.fixture
def disc() -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """A picture with a lens: grey inside, whatever outside."""
    y, x = np.mgrid[:64, :64]
    pixels = np.random.default_rng(0).integers(60, 200, (64, 64, 3)).astype(np.uint8)
    return pixels, (x - 32) ** 2 + (y - 32) ** 2 > 31**2


# -- pictures --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_colour_under_full_transparency_is_not_seen(
    name: str, disc: tuple[Pixels, npt.NDArray[np.bool_]], tmp_path: Path
) -> None:
    pixels, outside = disc
    seen = []
    for hidden in (0, 255):
        own = np.dstack([np.where(outside[..., None], hidden, pixels), np.where(outside, 0, 255)])
        options = {"lossless": True, "exact": True} if name.endswith("webp") else {}
        Image.fromarray(own.astype(np.uint8)).save(tmp_path / name, **options)
        seen.append(load_image(tmp_path / name, 64))
    assert np.array_equal(*seen)
    expected = np.where(outside[..., None], 0, pixels).transpose(2, 0, 1)
    assert np.array_equal(seen[0], expected)  # on black; what is opaque stays as it is


def test_half_transparent_and_palette_pictures_are_laid_on_black(tmp_path: Path) -> None:
    Image.new("LA", (40, 40), (200, 128)).save(tmp_path / "grey.png")
    assert np.abs(np.asarray(open_picture(tmp_path / "grey.png")).astype(int) - 100).max() <= 1
    palette = Image.new("P", (40, 40), 1)
    palette.putpalette([255, 255, 255, 10, 20, 30])
    palette.save(tmp_path / "palette.png", transparency=0)
    assert np.asarray(open_picture(tmp_path / "palette.png"))[0, 0].tolist() == [10, 20, 30]


def save_16_bits(path: Path, pixels: npt.NDArray[np.uint16]) -> None:
    """A colour PNG of 16 bits per channel, which Pillow can't write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width, _ = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def test_more_than_8_bits_per_channel_are_refused_in_grey_and_in_colour(tmp_path: Path) -> None:
    deep = np.full((40, 40), 2000, np.uint16)
    save_16_bits(tmp_path / "colour.png", np.dstack([deep] * 3))
    Image.fromarray(deep).save(tmp_path / "grey.png")
    Image.fromarray(deep).save(tmp_path / "grey.tif")
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "real.tif")
    for path in tmp_path.iterdir():
        with pytest.raises(InputError, match=f"{path.name}: more than 8 bits per channel"):
            open_picture(path)


def test_a_picture_that_its_tag_turns_is_read_upright(tmp_path: Path) -> None:
    pixels = np.zeros((90, 120, 3), np.uint8)
    pixels[:45] = 220  # bright above
    upright = Image.fromarray(pixels)
    upright.save(tmp_path / "a.png")
    for tag, turn in (
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_90),
        (8, Image.Transpose.ROTATE_270),
    ):
        exif = Image.Exif()
        exif[274] = tag
        upright.transpose(turn).save(tmp_path / "b.png", exif=exif)
        assert np.array_equal(
            load_image(tmp_path / "a.png", 64), load_image(tmp_path / "b.png", 64)
        )
    upright.save(tmp_path / "c.jpg", quality=95, exif=b"Exif\0\0not a tag at all")
    assert load_image(tmp_path / "c.jpg", 64)[0, 5].mean() > 200


def test_a_file_is_whole_by_its_ends_or_by_decoding(tmp_path: Path) -> None:
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    )
    for name in ("a.jpg", "a.png", "a.bmp"):
        path = tmp_path / name
        picture.save(path)
        assert not look_at(path).fault
        path.write_bytes(path.read_bytes()[:-100])
        assert look_at(path).fault == "are truncated or not pictures"
        with pytest.raises(InputError, match=rf"{name}: truncated or not an image"):
            open_picture(path)
    picture.save(tmp_path / "a.jpg")
    with (tmp_path / "a.jpg").open("ab") as stream:
        stream.write(b"written behind the end")
    assert not look_at(tmp_path / "a.jpg").fault


# -- tables ----------------------------------------------------------------------------------


def test_blanks_around_a_cell_are_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,sex\n 7 ,Male \n")
    assert read_text_csv(path, ("id", "sex")).iloc[0].tolist() == ["7", "Male"]


TEXTS: dict[str, bytes] = {
    "a spreadsheet's mark": b"\xef\xbb\xbfid,sex,note\n7,Male,x\n",
    "semicolons": b"id;sex;note\n7;Male;a, b\n",
    "tabs": b"id\tsex\tnote\n7\tMale\ta, b\n",
    "UTF-16": "id\tsex\tnote\n7\tMale\tx\n".encode("utf-16"),
    "blanks": b" id , sex,note\n 7 , Male ,x\n",
    "a blank line": b"\nid,sex,note\n\n7,Male,x\n\n",
    "a break in a cell": b'id,sex,note\n7,Male,"two\nlines"\n',
    "quoted names": b'"id","sex","note, or not"\r\n"7","Male","x"\r\n',
    "an old Mac's": b"id,sex,note\r7,Male,x\r",
    "an index": b",id,sex\n0,7,Male\n",
    "empty columns": b"id,sex,,\n7,Male,,\n",
    "short rows": b"id,sex,note\n7,Male\n",
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_table_is_read_as_programs_write_it(case: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(TEXTS[case])
    assert read_text_csv(tmp_path / "a.csv", ("id", "sex"))[["id", "sex"]].to_numpy().tolist() == [
        ["7", "Male"]
    ]


NO_TABLES: dict[str, tuple[bytes, str]] = {
    "twice": (b"id,sex,sex\n7,Male,Female\n", "column 'sex' stands there twice"),
    "twice with blanks": (b"id,sex, sex\n7,Male,Female\n", "column 'sex' stands there twice"),
    "Latin 1": ("id,sex\n7,M\u00e4nnlich\n".encode("latin-1"), "expected UTF-8"),
    "long rows": (b"id,sex\n7,Male,1\n8,Male,2\n", "more cells than the header"),
    "a long row": (b"id,sex\n7,Male\n8,Male,2\n", "not readable as CSV"),
    "an open quote": (b'id,sex\n7,"Male\n', "not readable as CSV"),
    "nothing": (b"", "not readable as CSV"),
    "zeros": (bytes(300), "a.csv: "),
}


@pytest.mark.parametrize("case", NO_TABLES)
def test_what_is_no_table_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    content, expected = NO_TABLES[case]
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputError, match=expected) as caught:
        read_text_csv(tmp_path / "a.csv", ("id", "sex"))
    assert len(str(caught.value).splitlines()) == 1


def test_levels_that_differ_in_case_or_blanks_are_one_group_spelt_twice() -> None:
    refuse_respelt(["Female", "Male", "under 60", "-1", "1", "1-2", "12"], "a.csv: sex")
    for twice in (["Female", "female"], ["under 60", "under  60"], ["1", "1.0"], ["07", "7"],
                  ["caf\u00e9", "cafe\u0301"], ["a\u00a0b", "a b"],
                  ["40-60", "40\u201360"], ["Male", "Male\u200b"], ["Male", "Ma\u00adle"],
                  ["Crohn's", "Crohn\u2019s"], ["-1", "\u22121"]):  # fmt: skip
        with pytest.raises(InputError, match=r"a.csv: sex has .* and .*expected one spelling"):
            refuse_respelt(twice, "a.csv: sex")


def test_ages_turn_where_they_are_told_and_placeholders_are_none() -> None:
    names, at = ("under 60", "60 or older"), Path("a.csv")
    assert ages(["59.5", "60", "", "1"], names, at, "age", placeholders=(1,)) == [
        *names,
        UNKNOWN,
        UNKNOWN,
    ]
    assert ages(["60", "60.5"], names, at, "age", above=True) == list(names)
    with pytest.raises(InputError, match=r"a.csv, line 2, column 'age': '-3'"):
        ages(["-3"], names, at, "age")


# -- HAM10000 as archives hand it out --------------------------------------------------------


def ham(root: Path, folder: str = "", shade: int = 0) -> pd.DataFrame:
    """140 lesions with their pictures; the metadata are returned, not written."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    rows = []
    for n in range(140):
        colour = (n, shade, 90)  # no two are the same file
        Image.new("RGB", (40, 30), colour).save(root / folder / f"ISIC_{n}.jpg", comment=str(n))
        sex, age = ("male", "female")[n // 2 % 2], f"{40 + n // 2 % 40}.0"
        row = {"lesion_id": f"HAM_{n // 2}", "image_id": f"ISIC_{n}", "dx": DX[n // 2 % 7]}
        rows.append({**row, "age": age, "sex": sex})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("name", ["HAM10000_metadata.tab", "HAM10000_metadata"])
def test_the_table_of_dataverse_is_read_as_the_one_with_commas(name: str, tmp_path: Path) -> None:
    frame = ham(tmp_path)
    frame.to_csv(tmp_path / "HAM10000_metadata.csv", index=False)
    commas = HAM.read(tmp_path)
    (tmp_path / "HAM10000_metadata.csv").unlink()
    frame.to_csv(tmp_path / name, index=False, sep="\t", quoting=1)
    assert HAM.read(tmp_path).table.equals(commas.table)


def test_one_name_may_stand_for_one_picture_only(tmp_path: Path) -> None:
    ham(tmp_path, "HAM10000_images_part_1").to_csv(tmp_path / "HAM10000_metadata.csv", index=False)
    shutil.copytree(tmp_path / "HAM10000_images_part_1", tmp_path / "images")
    assert len(HAM.read(tmp_path)) == 140  # the same bytes twice, as Kaggle's archive has them
    ham(tmp_path, "images", shade=200)
    with pytest.raises(InputError, match=r"part_1/ISIC_0.jpg and images/ISIC_0.jpg are different"):
        HAM.read(tmp_path)


def test_two_tables_that_disagree_are_refused(tmp_path: Path) -> None:
    frame = ham(tmp_path)
    frame.to_csv(tmp_path / "HAM10000_metadata.csv", index=False)
    frame.to_csv(tmp_path / "HAM10000_metadata.tab", index=False, sep="\t")
    assert len(HAM.read(tmp_path)) == 140
    frame.assign(age="50").to_csv(tmp_path / "HAM10000_metadata.tab", index=False, sep="\t")
    with pytest.raises(InputError, match=r"metadata.csv and .*metadata.tab differ; expected one"):
        HAM.read(tmp_path)


def test_pictures_under_two_lesions_are_counted(tmp_path: Path) -> None:
    """A lesion in training may be in the test split under another name."""
    ham(tmp_path).to_csv(tmp_path / "HAM10000_metadata.csv", index=False)
    assert HAM.read(tmp_path).same_pictures == (0, 0)
    shutil.copy(tmp_path / "ISIC_4.jpg", tmp_path / "ISIC_5.jpg")  # of one lesion: its own affair
    assert HAM.read(tmp_path).same_pictures == (0, 0)
    for lesions, found in ((("train", "train"), (2, 0)), (("train", "test"), (4, 2))):
        table = HAM.read(tmp_path).table.drop_duplicates("subject").query("subject != 'HAM_2'")
        table = table[table["same_as"] == ""]
        one, two = (table[table["split"] == split].iloc[k] for k, split in enumerate(lesions))
        shutil.copy(tmp_path / one["path"], tmp_path / two["path"])
        cohort = HAM.read(tmp_path)
        assert cohort.same_pictures == found and not cohort.file_gaps


def test_a_lesion_spelt_twice_is_refused(tmp_path: Path) -> None:
    frame = ham(tmp_path)
    frame.loc[1, "lesion_id"] = "ham_0"
    frame.to_csv(tmp_path / "HAM10000_metadata.csv", index=False)
    with pytest.raises(InputError, match=r"subject has 'HAM_0' and 'ham_0', which are one name"):
        HAM.read(tmp_path)


def test_a_lesion_with_two_levels_of_an_attribute_has_none(tmp_path: Path) -> None:
    frame = ham(tmp_path)
    frame.loc[0, "sex"] = "female"  # HAM_0's other picture says male
    frame.loc[2, "age"] = ""  # HAM_1's other picture knows it
    frame.to_csv(tmp_path / "HAM10000_metadata.csv", index=False)
    table = HAM.read(tmp_path).table.set_index("image")
    assert (
        table.loc[["ISIC_0", "ISIC_1"], "excluded"].tolist()
        == ["sex differs within the subject"] * 2
    )
    assert table.loc[["ISIC_2", "ISIC_3"], "excluded"].tolist() == ["age unknown", ""]
    assert (table["excluded"] != "").sum() == 3 and table.loc["ISIC_0", "prompt"] == ""
