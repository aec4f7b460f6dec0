"""Which tools take our DICOM objects: each result of one phantom, tried with a validator, archives and readers; what happened, as Markdown.

    python -m benchmarks.objects

Archives as they are installed, nothing switched on: dcmtk's storescp, Orthanc by C-STORE (offered each object's own class and
transfer syntax) and by STOW-RS. dciodvfy is called with -new -allpffgitems. "reads back" means: voxel for voxel the NPZ's labels, or its
surfaces.
"""

import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from pydicom import dcmread
from pynetdicom import AE

from benchmarks.facts import facts, row
from octedge.batch import Job, Options, run_one
from octedge.edge.model import open_model
from octedge.phantom import Phantom
from octedge.phantom_files import write_dicom
from octedge.phantom_look import LOOKS
from octedge.readers import Source
from tests.results import oracles
from tests.service.parts import orthanc, storescp

KINDS = {
    "source": "OPT, the phantom", "seg": "SEG LABELMAP, RLE", "seg-binary": "SEG BINARY", "heightmap": "Height Map",
    "sr": "Comprehensive SR, TID 1500",
}  # fmt: skip
KNOWN = ("InConcatenation", "ConcatenationFrameOffsetNumber")  # OPT: rules of dciodvfy that no file can keep


@click.command()
@click.option("--size", default="496x512", show_default=True, help="Rows x columns.")
@click.option("--frames", default=5, show_default=True, type=click.IntRange(2))
def main(size: str, frames: int) -> None:
    """Print the table."""
    rows, columns = map(int, size.split("x"))
    with tempfile.TemporaryDirectory() as made:
        files, labels, surfaces = results(Path(made), (rows, columns), frames)
        tries: dict[str, Callable[[str, Path], str]] = {
            "dciodvfy": lambda kind, path: validated(path),
            "highdicom": lambda kind, path: by_highdicom(kind, path, labels, surfaces),
            "dcmqi": lambda kind, path: by_dcmqi(kind, path, labels, Path(made)),
        }
        with storescp(Path(made) / "scp") as scp, orthanc(Path(made) / "orthanc") as (dicom, http):
            tries |= {
                "storescp": lambda kind, path: stored(path, scp, "PACS"),
                "Orthanc, C-STORE": lambda kind, path: stored(path, dicom, "ORTHANC"),
                "Orthanc, STOW-RS": lambda kind, path: stowed(path, http),
            }
            print(f"{facts('pydicom', 'pynetdicom', 'highdicom', 'dcmqi', 'dicom3tools')}; {tool('storescp')}; {tool('Orthanc')}\n")
            print(row("object", *tries))
            print(f"|{'---|' * (len(tries) + 1)}")
            for kind, path in files.items():
                print(row(KINDS[kind], *(attempt(kind, path) for attempt in tries.values())))


def results(folder: Path, size: tuple[int, int], frames: int) -> tuple[dict[str, Path], Any, Any]:
    """The phantom and its results by kind, labels (F, H, W) and surfaces (F, L, W)."""
    look = replace(LOOKS["spectralis"], rows=size[0], columns=size[1], lateral_um=6000 / size[1])
    source = Source((folder / "scan.dcm",), "scan")
    write_dicom(Phantom(look, frames, 1), source.paths[0])
    formats = tuple(kind for kind in KINDS if kind != "source")
    outcome = run_one(source, Job(open_model(), folder, Options(("npz", *formats))))
    if outcome.status != "done":
        raise SystemExit(f"the phantom was refused: {outcome.error}")
    with np.load(folder / "scan.npz", allow_pickle=False) as found:
        return (
            {kind: folder / f"scan.{kind}.dcm" if kind in formats else source.paths[0] for kind in KINDS},
            found["labels"],
            found["surfaces"],
        )


def validated(path: Path) -> str:
    """What dciodvfy says."""
    command = [oracles.tool("dciodvfy", "dicom3tools"), "-new", "-allpffgitems", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    if any("Information Object Not found" in line for line in lines):
        return "does not know it"
    errors = [line for line in lines if line.startswith(("Error", "Abort"))]
    others = [line for line in errors if not any(word in line for word in KNOWN)]
    return f"{len(others)} errors" + f", {len(errors) - len(others)} that contradict each other" * (len(errors) > len(others))


def by_highdicom(kind: str, path: Path, labels: Any, surfaces: Any) -> str:
    """Whether highdicom reads the same back."""
    import highdicom

    if kind in ("seg", "seg-binary"):
        read = highdicom.seg.segread(path)
        uid = read.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID
        frames = list(range(1, len(labels) + 1))
        found = read.get_pixels_by_source_frame(uid, frames, combine_segments=True, ignore_spatial_locations=True)
        return told(np.array_equal(found - 1, labels))
    if kind == "heightmap":
        return told(np.array_equal(highdicom.imread(path).pixel_array, surfaces.transpose(1, 0, 2)))
    if kind == "sr":
        content: Any = highdicom.sr.srread(path).content
        return f"{len(content.get_image_measurement_groups())} groups of measurements"
    return "opens" if highdicom.imread(path).number_of_frames == len(labels) else "other frames"


def by_dcmqi(kind: str, path: Path, labels: Any, folder: Path) -> str:
    """Whether dcmqi reads the same back; it reads segmentations only."""
    if kind not in ("seg", "seg-binary"):
        return "not its object"
    found, centres = oracles.dcmqi(path, folder)
    frames = [item.PlanePositionSequence[0].ImagePositionPatient for item in dcmread(path).PerFrameFunctionalGroupsSequence]
    order = [int(np.argmin(np.abs(centres - np.array(frame, float)).sum(1))) for frame in frames[:: len(frames) // len(labels)]]
    return told(np.array_equal(found[order] - 1, labels))


def told(same: bool) -> str:
    return "reads back equal" if same else "READS OTHER VALUES"


def stored(path: Path, port: int, title: str) -> str:
    """What an archive answers to C-STORE."""
    dataset = dcmread(path)
    entity = AE("OCTEDGE")
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title=title)
    if not association.is_established:
        return "does not take it"
    status = association.send_c_store(path).get("Status")
    association.release()
    return "stored" if status == 0 else "no answer" if status is None else f"status {status:04X}"


def stowed(path: Path, http: int) -> str:
    """What Orthanc answers to STOW-RS."""
    mark = "octedge-boundary"
    body = f"--{mark}\r\nContent-Type: application/dicom\r\n\r\n".encode() + path.read_bytes() + f"\r\n--{mark}--\r\n".encode()
    head = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={mark}', "Accept": "application/dicom+json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{http}/dicom-web/studies", body, head), timeout=60) as answer:
            return "stored" if answer.status == 200 else f"status {answer.status}"
    except urllib.error.HTTPError as error:
        return f"status {error.code}"


def tool(name: str) -> str:
    """Name and version of an installed program."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if path is None:
        raise SystemExit(f"{name} is not installed; Debian: apt-get install dcmtk orthanc orthanc-dicomweb")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout.splitlines()
    words = (said or [""])[0].replace("$", "").split()
    return f"{name} {next((word for word in words if word.strip('v')[:1].isdigit()), '')}"


if __name__ == "__main__":
    main()
