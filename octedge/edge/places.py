"""Where a machine keeps what it finds out about a bundle: the user's cache, and the engines made for it."""

import os
import sys
from pathlib import Path

from octedge.edge.bundle import REFERENCE, Bundle


def cache_folder() -> Path:
    """$OCTEDGE_CACHE, or `octedge` in the system's folder for caches.

    Raises `RuntimeError` where the system knows no home folder.
    """
    if chosen := os.environ.get("OCTEDGE_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "octedge" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "octedge"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "octedge"


def engines_folder(bundle: Bundle) -> Path:
    """Where `octedge prepare` puts what it makes of a bundle: `engines` in its folder; the cache, if it is shipped or read-only."""
    inside = bundle.path / "engines"
    if inside.is_dir() or (bundle.path != REFERENCE and os.access(bundle.path, os.W_OK)):
        return inside
    try:
        return cache_folder() / "engines" / bundle.digest[:16]
    except RuntimeError:
        return inside
