"""The DICOM receiver: C-ECHO and C-STORE (PS3.4 annexes A and B) into the spool; success is answered when no crash can lose it.

pynetdicom's chunked mode writes a data set to a file while it comes, so memory does not grow with it. That file is the spool's:
of mode 0600, on the disk that `os.replace` needs, and swept after a crash. Nothing is segmented in here.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Any

from octedge.errors import OutputError, UsageError
from octedge.readers.dicom import OPT
from octedge.service.intake import described, settle
from octedge.service.monitor import Monitor
from octedge.service.send import VERIFICATION
from octedge.service.series import Series
from octedge.service.settings import Receive
from octedge.service.spool import Receipt, Spool
from octedge.service.tls import server_tls

# PS3.4 B.5: only these are agreed to; what a device must not send here it learns before it does.
CLASSES = (OPT,)
# PS3.5 annex A and PS3.6: what devices send OPT in. What octedge cannot decode is kept, in quarantine, with the reason.
SYNTAXES = tuple(
    f"1.2.840.10008.1.2{ending}"
    for ending in ("", ".1", ".2", ".1.99", ".5", *(f".4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91, 201, 202, 203)))
)
PDU = 131072  # bytes; pynetdicom's 16382 takes twice as long
SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700  # PS3.4 table B.2-1


class Sink:
    """The file that pynetdicom writes a data set to. Where the disk is low or full nothing is written, and `full` says so."""

    def __init__(self, spool: Spool, low: bool) -> None:
        self._file = None if low else spool.temporary()
        self.name = os.fspath(self._file.name) if self._file else ""
        self.full = low
        self.file = self  # pynetdicom flushes the file inside NamedTemporaryFile

    def write(self, data: bytes) -> int:
        """A chunk; a full disk must not end the association before it can be answered."""
        if not self.full and self._file is not None:
            try:
                view = memoryview(data)
                while view:
                    view = view[self._file.write(view) :]
            except OSError:
                self.full = True
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def tell(self) -> int:
        """Where the next chunk goes."""
        return 0 if self._file is None else self._file.tell()

    def close(self) -> None:
        """No more is written."""
        if self._file is not None:
            self._file.close()


class Receiver:
    """A running SCP. `stop` ends it; what was acknowledged stays acknowledged."""

    def __init__(self, spool: Spool, series: Series, settings: Receive, monitor: Monitor) -> None:
        self.spool, self.series, self.settings, self.monitor = spool, series, settings, monitor
        self._server: Any = None

    @property
    def port(self) -> int:
        """The TCP port that is listened on."""
        return int(self._server.socket.getsockname()[1])

    def start(self) -> None:
        """Listen. Raises `UsageError` if the address is taken or a certificate cannot be used."""
        from pynetdicom import AE, _config, dimse_messages, evt

        _config.STORE_RECV_CHUNKED_DATASET = True
        _config.LOG_HANDLER_LEVEL = "none"  # or it formats every PDU for a log that nobody reads
        module: Any = dimse_messages
        module.NamedTemporaryFile = self._sink  # the one way to say where, and to write nothing where the disk is low
        entity = AE(self.settings.ae_title)
        entity.maximum_pdu_size = PDU
        entity.maximum_associations = self.settings.associations
        entity.require_called_aet = True
        entity.require_calling_aet = list(self.settings.allow)
        entity.network_timeout = entity.dimse_timeout = self.settings.timeout_s
        entity.add_supported_context(VERIFICATION)
        for uid in CLASSES:
            entity.add_supported_context(uid, list(SYNTAXES))
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store), (evt.EVT_CONN_OPEN, self._opened), (evt.EVT_CONN_CLOSE, self._closed),
            (evt.EVT_REJECTED, self._rejected), (evt.EVT_ABORTED, self._aborted),
        ]  # fmt: skip
        address = self.settings.host, self.settings.port
        try:
            self._server = entity.start_server(address, block=False, ssl_context=server_tls(self.settings.tls), evt_handlers=handlers)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise UsageError(f"{address[0]}:{address[1]}: cannot listen ({why}); choose another host or port") from error

    def stop(self) -> None:
        """Take no more; associations under way are aborted, and their senders try again."""
        if self._server is not None:
            self._server.ae.shutdown()
            self._server = None

    # What pynetdicom calls

    def _sink(self, **_: object) -> Sink:
        return Sink(self.spool, low=free_bytes(self.spool.folder) < self.settings.free_mb * 1_000_000)

    def _store(self, event: Any) -> int:
        begun = time.perf_counter()
        sink = event.request._dataset_file
        if sink.full:
            sink.close()
            self.monitor.event("refused", status=f"{OUT_OF_RESOURCES:04X}", why="disk")
            if sink.name:
                Path(sink.name).unlink(missing_ok=True)
            return OUT_OF_RESOURCES
        path = Path(sink.name)
        try:
            sink.close()  # Windows moves no open file
            size = path.stat().st_size
            receipt = self.spool.arrive(path, described(path, settle(path), str(event.request.AffectedSOPInstanceUID)))
        except (OSError, OutputError) as error:
            path.unlink(missing_ok=True)
            self.monitor.event("refused", status=f"{OUT_OF_RESOURCES:04X}", why=type(error).__name__)
            return OUT_OF_RESOURCES
        self.series.came(receipt, event.assoc)
        self._tell(receipt, str(event.request.AffectedSOPInstanceUID), size, begun)
        return SUCCESS

    def _tell(self, receipt: Receipt, uid: str, size: int, begun: float) -> None:
        ms = round(1000 * (time.perf_counter() - begun), 1)
        event = "received" if receipt.new else "repeated"
        self.monitor.event(event, job=receipt.job, object=self.spool.hashed(uid)[:16], bytes=size, ms=ms)
        if receipt.new and receipt.quarantined:
            self.monitor.event("quarantined", job=receipt.job, why="same-uid-or-late")

    def _opened(self, event: Any) -> None:
        self.monitor.event("connected")

    def _closed(self, event: Any) -> None:
        self.series.left(event.assoc)
        sink = event.assoc.dimse.message and event.assoc.dimse.message._data_set_file
        if sink:  # the sender died in the middle
            sink.close()
            if sink.name:
                Path(sink.name).unlink(missing_ok=True)
            self.monitor.event("broken-off")

    def _rejected(self, event: Any) -> None:
        self.monitor.event("rejected")

    def _aborted(self, event: Any) -> None:
        self.monitor.event("aborted")


def free_bytes(folder: Path) -> int:
    """What the disk of the spool has left."""
    return shutil.disk_usage(folder).free
