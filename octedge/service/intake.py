"""What is found out about a file before the spool takes it: the digest of its content, and what its header says."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydicom.filereader import read_file_meta_info

from octedge.errors import ScanError
from octedge.readers._dicom_file import reading
from octedge.readers.dicom import summary
from octedge.service.spool import Arrival


def settle(path: Path) -> str:
    """Bring a file to the disk; the SHA-256 of its content, in a DICOM file that of the data set: who wrote group 0002 says nothing.

    Raises `OSError`.
    """
    with path.open("r+b") as file, ThreadPoolExecutor(1) as pool:
        synced = pool.submit(os.fsync, file.fileno())  # the disk works while the digest is made
        head = file.read(144)
        file.seek(_start_of_data(head))
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        synced.result()
    return digest


def described(path: Path, content: str, uid: str = "") -> Arrival:
    """What a DICOM header says; a damaged file is a job of its own, and the reader will say what is wrong with it."""
    try:
        told = summary(path)
        return Arrival(content=content, uid=uid or _instance(path), series=told.series if told.single else "")
    except ScanError:
        return Arrival(content=content, uid=uid)


def _start_of_data(head: bytes) -> int:
    """After preamble, mark and group 0002, whose length is its first element (PS3.10 section 7.1); 0 in other files."""
    return 144 + int.from_bytes(head[140:144], "little") if head[128:138] == b"DICM\2\0\0\0UL" else 0


def _instance(path: Path) -> str:
    with reading(path.name):
        return str(read_file_meta_info(path).get("MediaStorageSOPInstanceUID", ""))
