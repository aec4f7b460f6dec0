"""Exceptions, by what the caller does next.

    OctedgeError
    +-- UsageError    the call itself is wrong: correct the arguments             (exit status 2)
    +-- ScanError     this scan cannot be used: skip it, go on with the others    (exit status 1)
    +-- ModelError    the model or its engine cannot be used: stop                (exit status 3)
    |   +-- OutOfMemory   the engine has no memory for so much at a time: take less, else stop
    +-- OutputError   a result cannot be written (disk full, no permission): stop (exit status 1)
    +-- WorkerLost    a cluster's workers died of a job: leave it out, go on      (exit status 1)

Messages say what was got, what is needed and what to do; they never hold patient data.
"""


class OctedgeError(Exception):
    """Base of all errors octedge raises on purpose."""

    exit_status = 1


class UsageError(OctedgeError):
    """The call itself is wrong; the message says how to correct it."""

    exit_status = 2


class ScanError(OctedgeError):
    """This scan cannot be used; the message names the file and the reason. Other scans are not affected."""


class ModelError(OctedgeError):
    """The model bundle or its engine cannot be used."""

    exit_status = 3


class OutOfMemory(ModelError):
    """The engine has no memory for so many pixels at a time; with fewer it may."""


class OutputError(OctedgeError):
    """A result could not be written; nothing half-written is left behind."""


class WorkerLost(OctedgeError):
    """The workers of a cluster that a job was given to died, one after the other; other jobs are not affected."""
