"""Whose scan it is: the patient and the eye, by a rule on the path or by the file's header, of which only a hash is kept."""

import hashlib
import re

from pydicom import dcmread

from octedge.errors import ScanError, UsageError
from octedge.readers import Source
from octedge.readers._dicom_file import reading
from octedge.scan import Scan
from octedge.train.manifest import HEADER, Facts

_PATIENT_ID = slice(140, 161)  # of a .vol: the file header's PatientID, 21 characters
_EYES = {"r": "R", "od": "R", "right": "R", "l": "L", "os": "L", "left": "L"}


def patient_of(scan: Source, source: Facts) -> str:
    """The patient of a scan.

    Raises `UsageError` where the rule does not match, `ScanError` where the header names nobody.
    """
    if source.patient == HEADER:
        return _from_header(scan, source.name)
    return _first_group(source.patient, "patient", scan, source.name)


def eye_of(scan: Source, source: Facts, opened: Scan) -> str:
    """The eye, "R" or "L": by the source's rule, else as the file says, "" where nothing does.

    Raises `UsageError` where the rule gives something else.
    """
    if not source.eye:
        return opened.laterality or ""
    word = _first_group(source.eye, "eye", scan, source.name)
    if word.lower() not in _EYES:
        raise UsageError(f"source {source.name}: key `eye` finds {word!r} in {scan.name}; known are R, L, OD, OS, right, left")
    return _EYES[word.lower()]


def _first_group(pattern: str, key: str, scan: Source, name: str) -> str:
    found = re.search(pattern, scan.name)
    if not found or not found.groups() or not found[1]:
        raise UsageError(f"source {name}: {scan.name} does not match {pattern!r} with a group for the {key}; mend key `{key}`")
    return found[1]


def _from_header(scan: Source, name: str) -> str:
    path = scan.paths[0]
    if path.suffix.lower() == ".vol":
        try:
            with path.open("rb") as file:
                known = file.read(_PATIENT_ID.stop)[_PATIENT_ID].split(b"\0")[0].decode("latin-1").strip()
        except OSError as error:
            raise ScanError(f"{path.name}: cannot be read ({error.strerror})") from None
    else:
        with reading(path.name):
            known = str(dcmread(path, stop_before_pixels=True, specific_tags=["PatientID"]).get("PatientID") or "").strip()
    if not known:
        what = f"{name}: {path.name}: the header holds no PatientID"
        raise ScanError(f"{what}; give key `patient` as a regular expression on the file's path")
    return "id-" + hashlib.sha256(f"octedge patient\n{known}".encode()).hexdigest()[:12]
