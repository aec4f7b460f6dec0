"""Results on their way out: to a folder, by C-STORE (PS3.4 annex B), or by DICOMweb STOW-RS (PS3.18 section 10.5).

An *item* is a result, and its files are alternatives in the order of preference: NAME.seg.dcm, then NAME.seg-binary.dcm where a
peer does not take the first. A destination gets one of them, chosen and committed before it is sent: after a crash it is sent
again under the same SOP Instance UID, never as another one. Bytes go out as they are in the file.

STOW-RS is urllib and 30 lines: dicomweb-client encodes data sets anew, logs UIDs, and retries in a loop of its own.
"""

import json
import secrets
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from octedge.errors import OctedgeError
from octedge.readers._dicom_file import reading
from octedge.results.files import atomic, make_folder, sync_folder
from octedge.service.settings import Peer, Settings, Web
from octedge.service.spool import Spool
from octedge.service.tls import client_tls

OPTIONAL = ("heightmap",)  # few archives take it; nothing else says less without it
VERIFICATION = "1.2.840.10008.1.1"
STORED = (0x0000, 0xB000, 0xB006, 0xB007)  # PS3.4 table B.2-1: success, and warnings about what is stored all the same
NOT_SUPPORTED = 0x0122  # PS3.7 annex C: SOP class not supported


class Unreachable(OctedgeError):
    """Nobody answers, or asks to wait: the same may go well later."""


class Refused(OctedgeError):
    """The destination takes no alternative of an item: only its settings, or ours, can change that."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """The results of a job for one destination: item -> its alternatives; what was chosen and sent is committed to the spool."""

    spool: Spool
    job: str
    destination: str
    items: Mapping[str, tuple[Path, ...]]

    def open(self) -> dict[str, tuple[Path, ...]]:
        """What the destination does not have yet; what was chosen has no alternative any more."""
        chosen = self.spool.chosen(self.job, self.destination)
        left = {}
        for item, files in self.items.items():
            name, sent = chosen.get(item, ("", False))
            if not sent:
                left[item] = tuple(file for file in files if file.name == name) or files
        return left

    def choose(self, item: str, file: Path) -> None:
        """It is this file that is sent."""
        self.spool.choose(self.job, self.destination, item, file.name)

    def refused(self, item: str) -> None:
        """The destination does not support the class of the chosen file, and says so."""
        self.spool.unchoose(self.job, self.destination, item)

    def sent(self, item: str) -> None:
        """It has arrived."""
        self.spool.sent(self.job, self.destination, item)


class Destination(Protocol):
    """Where results go. `deliver` hands over what is open, and returns what it left out, and why.

    Raises `Unreachable`, `Refused`, and `OutputError` for a folder.
    """

    name: str

    def deliver(self, parcel: Parcel) -> list[str]: ...


def destinations(settings: Settings) -> list[Destination]:
    """All that the settings name. Raises `UsageError` for certificates that cannot be used."""
    folder: list[Destination] = [Folder(Path(settings.out))] if settings.out else []
    return [*folder, *map(Archive, settings.peer), *map(DicomWeb, settings.web)]


def dicom_items(folder: Path) -> dict[str, tuple[Path, ...]]:
    """The DICOM files of a job's results: NAME.KIND.dcm and NAME.KIND-OTHER.dcm are alternatives of the item KIND, in this order."""
    items: dict[str, tuple[Path, ...]] = {}
    for path in sorted(folder.glob("*.dcm"), key=lambda path: (len(path.name), path.name)):
        kind = path.name.split(".")[-2].partition("-")[0] if path.name.count(".") > 1 else path.stem
        items[kind] = (*items.get(kind, ()), path)
    return items


class Folder:
    """Results as files, each named after its scan; a folder takes every first alternative."""

    def __init__(self, folder: Path) -> None:
        self.name, self._folder = "folder", folder

    def deliver(self, parcel: Parcel) -> list[str]:
        """Copy what is not there yet, whole or not at all."""
        source, name = parcel.spool.results / parcel.job, parcel.spool.name(parcel.job)
        others = {path for files in parcel.items.values() for path in files[1:]}
        for path in sorted(path for path in source.rglob("*") if path.is_file() and path not in others):
            relative = path.relative_to(source).as_posix()
            target = self._folder / (name + relative.removeprefix(parcel.job))
            make_folder(target.parent)
            with atomic(target) as file, path.open("rb") as results:
                shutil.copyfileobj(results, file)
            for folder in target.parents[1 : len(target.relative_to(self._folder).parts)]:
                sync_folder(folder)  # the folders made on the way are to last as well
        return []


class Archive:
    """A peer that speaks DICOM: one association for all that a job has for it."""

    def __init__(self, peer: Peer) -> None:
        self.name, self._peer, self._tls = f"{peer.ae_title}@{peer.host}:{peer.port}", peer, client_tls(peer.tls)

    def deliver(self, parcel: Parcel) -> list[str]:
        """Send each item as the first alternative that the peer agreed to."""
        left_out = []
        items = parcel.open()
        kinds = {file: _kind(file) for files in items.values() for file in files}
        if not items:
            return []
        with self._association(set(kinds.values())) as association:
            agreed = {(context.abstract_syntax, context.transfer_syntax[0]) for context in association.accepted_contexts}
            for item, files in items.items():
                if any(self._send(association, parcel, item, file) for file in files if kinds[file] in agreed):
                    continue
                if item not in OPTIONAL:
                    sop_class, syntax = kinds[files[0]]
                    raise Refused(f"{self.name} takes no {item} ({sop_class} as {syntax}); let it accept this, then retry")
                left_out.append(f"{item} left out: {self.name} does not take it")
        return left_out

    def _send(self, association: Any, parcel: Parcel, item: str, file: Path) -> bool:
        """Whether the peer has it now; False if it does not support the class, which some say only when it comes."""
        parcel.choose(item, file)
        with reading(file.name):
            status = association.send_c_store(file).get("Status")
        if status in STORED:
            parcel.sent(item)
            return True
        if status == NOT_SUPPORTED:
            parcel.refused(item)
            return False
        answer = "no answer" if status is None else f"status {status:04X}"
        raise Unreachable(f"{self.name}: {item} was not stored, {answer}")

    @contextmanager
    def _association(self, kinds: set[tuple[str, str]]) -> Iterator[Any]:
        from pynetdicom import AE, _config

        _config.STORE_SEND_CHUNKED_DATASET = True
        peer = self._peer
        entity = AE(peer.calling)
        entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = peer.timeout_s
        entity.add_requested_context(VERIFICATION)  # so that who takes none of the others still answers for each
        for sop_class, syntax in sorted(kinds):
            entity.add_requested_context(sop_class, syntax)
        tls = (self._tls, peer.host) if self._tls else None
        association = entity.associate(peer.host, peer.port, ae_title=peer.ae_title, max_pdu=131072, tls_args=tls)
        if not association.is_established:
            nothing = "it agrees to nothing" if association.rejected_contexts else "nobody answers"
            why = "it rejects us" if association.is_rejected else nothing
            raise Unreachable(f"{self.name}: no association, {why}")
        try:
            yield association
        finally:
            association.release()


class DicomWeb:
    """A DICOMweb service: one request for each item."""

    def __init__(self, web: Web) -> None:
        self.name, self._web, self._tls = web.url, web, client_tls(web.tls)

    def deliver(self, parcel: Parcel) -> list[str]:
        """Store each item as its first alternative that the service takes."""
        left_out = []
        for item, files in parcel.open().items():
            if any(self._stored(parcel, item, file) for file in files):
                continue
            if item not in OPTIONAL:
                raise Refused(f"{self.name} takes no {item}; let it accept this SOP class, then retry")
            left_out.append(f"{item} left out: {self.name} does not take it")
        return left_out

    def _stored(self, parcel: Parcel, item: str, file: Path) -> bool:
        parcel.choose(item, file)
        mark = secrets.token_hex(16)
        head = f"--{mark}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        request = urllib.request.Request(f"{self._web.url.rstrip('/')}/studies", head + file.read_bytes() + f"\r\n--{mark}--\r\n".encode())
        request.add_header("Content-Type", f'multipart/related; type="application/dicom"; boundary={mark}')
        request.add_header("Accept", "application/dicom+json")
        if self._web.token_file:
            request.add_header("Authorization", f"Bearer {Path(self._web.token_file).read_text('utf-8').strip()}")
        status, reasons = self._asked(request)
        if status == 200 and not reasons:
            parcel.sent(item)
            return True
        if NOT_SUPPORTED in reasons or status == 415:
            parcel.refused(item)
            return False
        raise Unreachable(f"{self.name}: {item} was not stored, status {status}{''.join(f', reason {reason:04X}' for reason in reasons)}")

    def _asked(self, request: urllib.request.Request) -> tuple[int, list[int]]:
        """The status, and the failure reasons (0008,1197) of what was not stored."""
        try:
            with urllib.request.urlopen(request, timeout=self._web.timeout_s, context=self._tls) as response:
                return response.status, _reasons(response.read())
        except urllib.error.HTTPError as error:
            return error.code, _reasons(error.read())
        except OSError as error:
            raise Unreachable(f"{self.name}: {getattr(error, 'reason', type(error).__name__)}") from error


def _reasons(body: bytes) -> list[int]:
    """(0008,1198) FailedSOPSequence / (0008,1197) FailureReason of a STOW-RS answer (PS3.18 annex I)."""
    try:
        failed = json.loads(body).get("00081198", {}).get("Value", [])
        return [int(item.get("00081197", {}).get("Value", [0])[0]) for item in failed]
    except (ValueError, AttributeError, TypeError, LookupError):
        return []


def _kind(file: Path) -> tuple[str, str]:
    """SOP class and transfer syntax of a file (PS3.10 section 7.1)."""
    from pydicom.filereader import read_file_meta_info

    with reading(file.name):
        meta = read_file_meta_info(file)
        return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
