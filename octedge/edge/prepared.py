"""What `octedge prepare` found out about a bundle on this machine: which variants may serve, how fast they are, and the chosen one."""

from pathlib import Path

import msgspec

from octedge.errors import ModelError
from octedge.results.files import make_folder, write_bytes

SCHEMA = 1
NAME = "prepared.json"


class Prepared(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The variants with a certificate and their ms for one B-scan of 1024 x 512, the fastest, and why others may not serve."""

    schema: int = SCHEMA
    bundle: str
    machine: str
    chosen: str
    ms: dict[str, float]
    refused: dict[str, str] = {}

    def fastest(self, engine: str) -> str | None:
        """The fastest variant of an engine; None if it has none."""
        own = [name for name in self.ms if name.partition("-")[0] == engine]
        return min(own, key=self.ms.__getitem__, default=None)


def read_prepared(folder: Path) -> Prepared | None:
    """What was found out; None if the bundle was not prepared here.

    Raises `ModelError` if the file is damaged or from another version: what was chosen is then not known.
    """
    try:
        return msgspec.json.decode((folder / NAME).read_bytes(), type=Prepared)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{NAME} of the prepared engines cannot be read ({error}); run octedge prepare BUNDLE again") from error


def write_prepared(folder: Path, prepared: Prepared) -> None:
    """Keep it. Raises `OutputError` where it cannot be written."""
    make_folder(folder)
    write_bytes(folder / NAME, msgspec.json.format(msgspec.json.encode(prepared), indent=1) + b"\n")
