"""One notebook: its parameters checked, run by papermill, its executed copy cleaned.

The only module that knows papermill. A notebook that fails leaves its executed copy, with the
traceback, where a successful one would lie.
"""

from __future__ import annotations

import ast
import base64
import fcntl
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from fairdiff_lib.datasets import load_settings
from fairdiff_lib.disk.files import atomic_file
from fairdiff_lib.disk.places import PROJECT_ROOT
from fairdiff_lib.disk.stamps import small_png
from fairdiff_lib.settings.errors import InputError, refuse_unknown
from fairdiff_lib.settings.methods import METHODS
from fairdiff_lib.settings.notebooks import BASE, NOTEBOOKS
from fairdiff_lib.settings.options import Settings, parse_overrides

SHARED = ("preset", "dataset", "overrides", "data_root", "runs_root", "figures_root")
OURS = "fairdiff: "  # begins each line that a job writes for people
VOLATILE = ("papermill", "execution", "widgets")  # metadata that differ from run to run
WIDGET = "application/vnd.jupyter.widget-view+json"
PROGRESS = re.compile(r"\d+%\|.*\|")  # a line of tqdm's


class NotebookFailed(RuntimeError):
    """A cell raised something other than :class:`InputError`; one line says which."""


@dataclass(frozen=True)
class Job:
    """A notebook with checked parameters."""

    path: Path  # the source notebook
    parameters: dict[str, Any]  # those that were given; its own defaults hold for the rest
    settings: Settings  # what preset, dataset and overrides amount to

    @property
    def title(self) -> str:
        """The notebook, and what distinguishes this job from others of it."""
        given = {k: v for k, v in self.parameters.items() if k in ("method", "seed")}
        if given.get("method") == BASE and not self.settings.base_per_seed:
            given.pop("seed", None)
        return " ".join([self.path.stem, *(f"{k}={v}" for k, v in given.items())])


def find_notebook(name: str) -> Path:
    """Path of a notebook named in full, with its suffix, or by its number alone."""
    stem = name.removesuffix(".ipynb")
    stem = {key.split("_")[0]: key for key in NOTEBOOKS}.get(stem, stem)
    refuse_unknown("notebook", stem, NOTEBOOKS)
    return PROJECT_ROOT / "notebooks" / f"{stem}.ipynb"


def _papermill() -> Any:
    # a part of jsonschema checks web addresses, which notebooks don't have, and takes two seconds
    # to build its grammar: half a minute over a study's jobs
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    import papermill

    return papermill


def known_parameters(path: Path) -> dict[str, Any]:
    """Name to default value of the parameters cell."""
    found = _papermill().inspect_notebook(str(path))
    if not found:
        raise InputError(f"{path.name}: no cell is tagged 'parameters'")
    try:
        return {name: ast.literal_eval(str(p["default"])) for name, p in found.items()}
    except ValueError as error:
        raise InputError(f"{path.name}: a default is no plain value ({error})") from error


def plan_job(name: str, given: Mapping[str, Any]) -> Job:
    """Check a notebook's name (:func:`find_notebook`) and every parameter, before it is started."""
    path = find_notebook(name)
    defaults = known_parameters(path)
    values: dict[str, Any] = {}
    for key, value in given.items():
        refuse_unknown(f"parameter of {path.stem}", key, defaults)
        values[key] = _convert(key, value, type(defaults[key]))
    full = defaults | values
    if full.get("seed", 0) < 0:
        raise InputError(f"parameter seed={full['seed']}: expected 0 or more")
    if full.get("method", BASE) != BASE:
        refuse_unknown("method", full["method"], METHODS)
    settings = load_settings(
        full.get("preset", "quick"),
        full.get("dataset", "fairgenmed_simulated"),
        parse_overrides(full.get("overrides", "")),
    )
    return Job(path, values, settings)


def _convert(name: str, value: Any, kind: type) -> Any:
    try:
        return {"true": True, "false": False}[str(value).lower()] if kind is bool else kind(value)
    except (KeyError, ValueError) as error:
        raise InputError(f"parameter {name}={value!r}: expected {kind.__name__}") from error


def run_job(job: Job, output: Path, threads: int = 0) -> None:
    """Run a notebook and write its executed copy, also when it fails.

    On so many threads of the numerical libraries; 0 leaves it to them. Bad input that the notebook
    met is an InputError with its line, anything else :class:`NotebookFailed`.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _environment(threads), _one_at_a_time(output):
            _execute(job, output)
    finally:
        if output.is_file():
            _rewrite_clean(output)


def _execute(job: Job, output: Path) -> None:
    papermill = _papermill()
    from nbclient.exceptions import DeadKernelError
    from traitlets.config import Config

    try:
        # sockets in a folder of their own: nothing listens on the network, and kernels
        # side by side don't meet (the default name is the same for all)
        with TemporaryDirectory(prefix="fairdiff-") as sockets:
            manager = {"transport": "ipc", "ip": f"{sockets}/kernel"}
            papermill.execute_notebook(
                str(job.path), str(output), parameters=job.parameters, kernel_name="python3",
                progress_bar=False, cwd=str(PROJECT_ROOT),
                config=Config({"KernelManager": manager}),
            )  # fmt: skip
    except papermill.PapermillExecutionError as error:
        line = " ".join(str(error.evalue).split())
        if error.ename == "InputError":
            raise InputError(line) from error
        raise NotebookFailed(f"cell {error.exec_count}: {error.ename}: {line}") from error
    except DeadKernelError as error:
        raise NotebookFailed("the kernel died; most often the memory was not enough") from error
    except RuntimeError as error:  # nbclient's, for a kernel that did not start in time
        raise NotebookFailed(str(error)) from error


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """What the kernel inherits at its start."""
    wanted = {"TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "0"}
    if threads:
        wanted |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


@contextmanager
def _one_at_a_time(output: Path) -> Iterator[None]:
    """Wait for a process of a killed run that still works on the same notebook."""
    with (output.parent / f".{output.stem}.lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{OURS}{output.stem}: waits for an earlier run's process", file=sys.stderr)
            fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            yield
        finally:
            Path(stream.name).unlink(missing_ok=True)


# -- executed copies -------------------------------------------------------------------------


def _rewrite_clean(path: Path) -> None:
    import nbformat

    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    clean(notebook)
    with atomic_file(path) as temporary:
        text = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
        temporary.write_text(text + "\n", encoding="utf-8")


def clean(notebook: Any) -> None:
    """Remove in place what changes from run to run: timings, random ids, this machine's paths.

    Pictures become small. Of a notebook of version 4; outputs, tags and execution counts stay.
    """
    for number, cell in enumerate(notebook.cells):
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.id = "injected-parameters"
            cell.source = re.sub(
                r"(?m)^(\w+_root) = ([\"'])(/|~|\.\.).*$", r'\1 = ""  # elsewhere', cell.source
            )
        elif cell.metadata.get("tags") and "papermill-error-cell-tag" in cell.metadata.tags:
            cell.id = f"papermill-error-{number}"
        cell.source = without_paths(cell.source)
        for output in cell.get("outputs", []):
            _clean_output(output)
        if "outputs" in cell:  # but an emptied stream and a progress bar's widget: nothing to read
            cell.outputs = [output for output in cell.outputs if output.get("text") != ""
                            and WIDGET not in output.get("data", {})]  # fmt: skip
    for holder in (notebook, *notebook.cells):
        for name in VOLATILE:
            holder.metadata.pop(name, None)


def _clean_output(output: Any) -> None:
    if output.get("output_type") == "stream":  # a bar that was drawn once stays at 0% for ever
        lines = re.split(r"(?<=[\n\r])", output["text"])
        output["text"] = "".join(line for line in lines if not PROGRESS.search(line))
    for name in ("text", "evalue"):
        if name in output:
            output[name] = without_paths(output[name])
    if "traceback" in output:
        output["traceback"] = [without_paths(line) for line in output["traceback"]]
    if "image/png" in output.get("data", {}):
        _shrink(output)
    for kind, data in output.get("data", {}).items():
        if kind.startswith("text/") and isinstance(data, str):
            output["data"][kind] = without_paths(data)


def _shrink(output: Any) -> None:
    """A page of pictures becomes a JPEG, another a PNG of few colours, whichever is smaller."""
    whole = base64.b64decode(output["data"]["image/png"])
    small, stream = small_png(whole), io.BytesIO()
    with Image.open(io.BytesIO(whole)) as page:
        page.convert("RGB").save(stream, format="JPEG", quality=80)
    photo = stream.getvalue()
    kind, data = ("image/jpeg", photo) if len(photo) < len(small) else ("image/png", small)
    del output["data"]["image/png"]
    output["data"][kind] = base64.b64encode(data).decode("ascii")
    if "image/png" in output.get("metadata", {}):  # width and alternative text
        output["metadata"][kind] = output["metadata"].pop("image/png")


def without_paths(text: str) -> str:
    """``text`` with this project's and the environment's folders cut from the paths in it."""
    text = re.sub(r"[\w./~-]*/site-packages/", "site-packages/", text)
    for folder, short in ((PROJECT_ROOT, ""), (Path.home(), "~/")):
        if folder.is_absolute() and folder != Path("/"):  # some containers' users live there
            # where a path begins: /mnt/home is not /home
            start = rf"(?:(?<=file://)|(?<![\w./~-])){re.escape(str(folder))}"
            text = re.sub(rf"{start}/", short, text)
            text = re.sub(rf"{start}(?![\w./-]*\w)", short.rstrip("/") or ".", text)
    return text
