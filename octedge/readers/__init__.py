"""Readers: files and folders -> `octedge.scan.Scan`, frames decoded one by one."""

from octedge.readers._sources import Source, find, read

__all__ = ["Source", "find", "read"]
