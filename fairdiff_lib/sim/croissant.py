"""Croissant metadata of a simulated folder, so that catalogues and loaders can read it.

Source: MLCommons, Croissant format specification 1.0.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
from pandas.api import types

from fairdiff_lib.disk.files import hash_file

NAME = "croissant.json"
_LICENCE = "https://www.apache.org/licenses/LICENSE-2.0"
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "includes": "cr:includes",
    "recordSet": "cr:recordSet",
    "source": "cr:source",
}


def describe(folder: Path, title: str, version: str) -> dict[str, Any]:
    """Its tables with their columns and hashes, and one set of files per kind of picture.

    Parameters
    ----------
    folder : Path
        What a simulator has written, whole.
    title : str
        Of the data set, as a person reads it.
    version : str
        Of the simulator.

    Returns
    -------
    dict
        JSON-LD that conforms to Croissant 1.0.
    """
    tables = sorted(folder.glob("*.csv"))
    kinds = sorted({path.suffix for path in folder.rglob("*") if path.suffix in (".jpg", ".npz")})
    objects = [
        {
            "@type": "cr:FileObject",
            "@id": table.name,
            "name": table.name,
            "contentUrl": table.name,
            "encodingFormat": "text/csv",
            "sha256": hash_file(table),
        }
        for table in tables
    ]
    encoding = {".jpg": "image/jpeg", ".npz": "application/zip"}
    sets = [
        {
            "@type": "cr:FileSet",
            "@id": f"files{kind}",
            "name": f"files{kind}",
            "encodingFormat": encoding[kind],
            "includes": f"**/*{kind}",
        }
        for kind in kinds
    ]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": title,
        "description": f"{title}: drawn by a program; no pixel and no label comes from a person.",
        "license": _LICENCE,
        "version": version,
        "distribution": [*objects, *sets],
        "recordSet": [_records(table) for table in tables],
    }


def _records(table: Path) -> dict[str, Any]:
    """A table's rows: one field per column, of the type that its values have."""
    values = pd.read_csv(table)
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"{table.stem}/{_plain(name)}",
            "name": str(name),
            "dataType": _type(values[name]),
            "source": {"fileObject": {"@id": table.name}, "extract": {"column": str(name)}},
        }
        for name in values
    ]
    return {"@type": "cr:RecordSet", "@id": table.stem, "name": table.stem, "field": fields}


def _plain(name: object) -> str:
    return re.sub(r"\W+", "_", str(name))


def _type(column: pd.Series) -> str:
    if types.is_bool_dtype(column):
        return "sc:Boolean"
    if types.is_integer_dtype(column):
        return "sc:Integer"
    return "sc:Float" if types.is_float_dtype(column) else "sc:Text"
