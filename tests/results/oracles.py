"""What checks DICOM results independently of octedge: dciodvfy, dcmqi, and the standard's module tables that highdicom ships."""

import gzip
import json
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset


def tool(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"{name} (package {package}) is not installed")
    return found


def dciodvfy(path: Path) -> list[str]:
    """The errors that dciodvfy reports; it must know what the file is."""
    command = [tool("dciodvfy", "dicom3tools"), "-new", "-allpffgitems", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    assert "Segmentation" in [line.strip() for line in lines]
    return [line for line in lines if line.startswith(("Error", "Abort"))]


def dcmqi(path: Path, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels (F, H, W) as dcmqi reads them, and the centres (F, 3) in mm of their frames' first pixels."""
    command = [tool("segimage2itkimage", "dcmqi"), "--inputDICOM", str(path), "--outputDirectory", str(folder), "--outputType", "nrrd"]
    done = subprocess.run([*command, "--mergeSegments", "--prefix", "q"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    header, _, data = (folder / "q-1.nrrd").read_bytes().partition(b"\n\n")
    entries = dict(line.split(": ", 1) for line in header.decode().splitlines() if ": " in line)
    assert entries["encoding"] == "gzip"
    columns, rows, count = map(int, entries["sizes"].split())
    kind = {"unsigned char": "u1", "short": "<i2", "unsigned short": "<u2"}[entries["type"]]
    labels = np.frombuffer(gzip.decompress(data), kind).reshape(count, rows, columns)
    start = np.array(re.findall(r"[-\d.e]+", entries["space origin"]), float)
    steps = np.array(re.findall(r"[-\d.e]+", entries["space directions"]), float).reshape(3, 3)
    return labels, start + np.arange(count)[:, None] * steps[2]


@cache
def _tables() -> tuple[dict, dict, dict]:
    folder = files("highdicom") / "_standard"
    names = ("sop_class_iod_map", "iod_module_map", "module_attribute_map")
    return tuple(json.loads((folder / f"{name}.json").read_text()) for name in names)


GROUPS = {"SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"}


def module_faults(dataset: Dataset) -> list[str]:
    """What the module tables of the SOP class find: type 1 and 2 attributes that are missing (or empty), and unknown ones.

    Conditions (1C, 2C) are not in the tables; conditional and user modules count where one of their own attributes is there.
    """
    iods, modules, attributes = _tables()
    used = [(module["key"], module["usage"]) for module in modules[iods[dataset.SOPClassUID]]]
    faults, known = [], set()
    for key, usage in used:
        table = attributes[key]
        known |= {(*entry["path"], entry["keyword"]) for entry in table}
        own = [entry["keyword"] for entry in table if not entry["path"] and entry["type"] in "12"]
        if usage != "M" and not any(keyword in dataset for keyword in own):
            continue
        for entry in table:
            if entry["type"] not in ("1", "2") or (entry["path"] and entry["path"][-1] in GROUPS):
                continue
            for holder in _holders(dataset, entry["path"]):
                if entry["keyword"] not in holder or (entry["type"] == "1" and _empty(holder[entry["keyword"]].value)):
                    faults.append(f"{key}: {'/'.join([*entry['path'], entry['keyword']])} type {entry['type']}")
    return faults + [f"unknown: {'/'.join(path)}" for path in sorted(set(_paths(dataset, ())) - known)]


def _empty(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, list | bytes) and not value)


def _holders(dataset: Dataset, path: list[str]) -> list[Dataset]:
    found = [dataset]
    for keyword in path:
        found = [item for holder in found for item in (holder.get(keyword) or ())]
    return found


def _paths(dataset: Dataset, above: tuple[str, ...]) -> list[tuple[str, ...]]:
    found = []
    for element in dataset:
        path = (*above, element.keyword)
        found.append(path)
        if element.VR == "SQ":
            found += [below for item in element.value for below in _paths(item, path)]
    return found
