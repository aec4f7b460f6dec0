"""What is said about the machine."""

import os
import platform

import pytest

from octedge.edge import machine


@pytest.fixture
def topology(tmp_path, monkeypatch):
    """Eight hardware threads on four cores, of which the process may use five threads on three cores."""
    for cpu in range(8):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(machine, "_CPU", tmp_path)
    monkeypatch.setattr(machine, "_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 4, 5}, raising=False)
    return tmp_path


def test_threads_of_one_core_count_once(topology):
    assert machine.cores() == 3


SHARES = [("200000 100000", 2), ("150000 100000", 2), ("max 100000", 3), ("900000 100000", 3), ("10000 100000", 1)]


@pytest.mark.parametrize(("quota", "cores"), SHARES)
def test_a_container_gets_no_more_threads_than_its_share(topology, quota, cores):
    (topology / "cpu.max").write_text(quota)
    assert machine.cores() == cores


@pytest.mark.parametrize(("said", "cores"), [("1", 1), ("2", 2), ("8", 3), ("0", 3), ("many", 3), ("2,1", 3)])
def test_a_worker_gets_no_more_threads_than_the_cluster_grants(topology, monkeypatch, said, cores):
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert machine.cores() == cores
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cores() == (int(said) if said.isdigit() else 0)


def test_without_topology_every_thread_is_a_core(topology, monkeypatch):
    monkeypatch.setattr(machine, "_CPU", topology / "nowhere")
    assert machine.cores() == 5


def test_a_system_that_does_not_tell_leaves_the_choice_to_the_engine(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert machine.cores() == 0


def test_the_description_names_the_kind_of_machine_not_this_one():
    words = machine.describe()
    assert platform.machine() in words
    assert platform.node() not in words
