"""The settings: errors say which, and what is needed."""

from pathlib import Path

import pytest

from octedge.errors import UsageError
from octedge.service import settings as module
from octedge.service.settings import Peer, read_settings
from octedge.service.systemd import unit

FULL = """
spool = "spool"
[receive]
ae_title = "OCTEDGE"
host = "192.0.2.10"
allow = ["CIRRUS1"]
[[peer]]
ae_title = "PACS"
host = "192.0.2.20"
port = 104
[[web]]
url = "https://pacs.example/dicom-web"
"""


def write(folder, text):
    path = folder / "octedge.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_file_with_options_before_it(tmp_path):
    got = read_settings(write(tmp_path, FULL), {"receive.port": 104, "out": "results"})
    assert (got.receive.port, got.receive.allow, got.out) == (104, ("CIRRUS1",), "results")
    assert got.peer == (Peer(ae_title="PACS", host="192.0.2.20", port=104),)


def test_the_example_in_the_docstring_is_valid(tmp_path):
    assert module.__doc__ is not None
    example = module.__doc__.partition("\n\n")[2]
    assert read_settings(write(tmp_path, example), {}).web[0].url == "https://pacs.example/dicom-web"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out": "x"}, "missing required field `spool`"),
        ({"spool": "x"}, "results go nowhere"),
        ({"spool": "x", "out": "x", "colour": "red"}, "unknown field `colour`"),
        ({"spool": "x", "out": "x", "receive.port": 70000}, r"<= 65535 - at `\$.receive.port`"),
        ({"spool": "x", "out": "x", "receive.ae_title": "LONGER THAN SIXTEEN"}, r"\$.receive.ae_title"),
        ({"spool": "x", "out": "x", "receive.ae_title": "BACK\\SLASH"}, r"\$.receive.ae_title"),
        ({"spool": "x", "out": "x", "receive.host": "0.0.0.0"}, "name who may send in receive.allow"),
        ({"spool": "x", "web": [{"url": "ftp://pacs"}]}, r"\$.web"),
        ({"spool": "x", "web": [{"url": "http://a"}, {"url": "http://a"}]}, "named twice"),
        ({"spool": "x", "out": "x", "receive.tls": {}}, "needs a certificate"),
        ({"spool": "x", "out": "x", "receive.tls": {"certificate": "a.pem"}}, "certificate and key together"),
    ],
)
def test_what_is_wrong_is_named(options, words):
    with pytest.raises(UsageError, match=words):
        read_settings(None, options)


@pytest.mark.parametrize(
    ("text", "words"),
    [("spool = ", "no TOML file"), ("receive = 3", "receive is not a table"), ("spool = 3", r"Expected `str`, got `int` - at `\$.spool`")],
)
def test_a_file_that_is_wrong_is_named(tmp_path, text, words):
    with pytest.raises(UsageError, match=words):
        read_settings(write(tmp_path, text), {"receive.port": 1, "out": "x"})


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_settings(tmp_path / "missing.toml", {})


def test_loopback_needs_no_list_of_senders():
    for host in ("127.0.0.1", "::1", "localhost"):
        assert read_settings(None, {"spool": "x", "out": "x", "receive.host": host}).receive.allow == ()


def test_the_unit_writes_only_where_it_must(tmp_path):
    path = write(tmp_path, FULL)
    lines = unit(read_settings(path, {"out": "results"}), path, "/usr/lib/octedge/bin/python")
    assert f"ExecStart=/usr/lib/octedge/bin/python -m octedge serve --config {path.absolute()}" in lines
    assert f"ReadWritePaths={Path('spool').absolute()} {Path('results').absolute()}" in lines
    assert {"ProtectSystem=strict", "NoNewPrivileges=yes", "UMask=0077", "CapabilityBoundingSet="} <= set(lines)
