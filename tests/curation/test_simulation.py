"""The simulation of a cluster, by hand."""

import importlib
import sys
from pathlib import Path

import pytest

from hbr.config import ConfigError

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
simulation = importlib.import_module("curation_simulation")
Cluster, Costs, simulate = simulation.Cluster, simulation.Costs, simulation.simulate

COSTS = Costs(cpu_ms=20, gpu_ms=0, crop_gpu_ms=0, crops=0.5, megabytes=0, driver_ms=0, row_ms=0,
              spread=0)  # fmt: skip


def test_a_simulation_by_hand():
    """12,800 images of 20 ms on 4 cores: 64 s, where nothing else costs."""
    out = simulate(12_800, COSTS, Cluster(1, cores=4, start=0))
    assert out.hours * 3600 == pytest.approx(64)
    assert out.bound_by == "cores"
    assert out.busy["cores"] == pytest.approx(1)
    # the last chunk of an odd number waits for no other: 5 chunks on 4 cores take two rounds
    assert simulate(5 * 128, COSTS, Cluster(1, 4, start=0)).hours * 3600 == pytest.approx(5.12)
    # one GPU for all crops
    slow = Costs(1, 0, 100, 0.5, 0, 0, 0, 0)
    out = simulate(12_800, slow, Cluster(1, cores=4, start=0))
    assert out.bound_by == "GPUs"
    assert out.hours * 3600 == pytest.approx(640, rel=0.01)
    # storage that all share does not grow with the cluster
    disk = Costs(1, 0, 0, 0.5, 1.0, 0, 0, 0)
    hours = [simulate(12_800, disk, Cluster(n, 4, storage=100, start=0)).hours for n in (1, 64)]
    assert hours[0] == pytest.approx(hours[1], rel=0.01)
    assert hours[0] * 3600 == pytest.approx(128, rel=0.02)


def test_more_machines_are_never_slower():
    costs = Costs(14, 0.2, 45, 0.5)
    hours = [simulate(200_000, costs, Cluster(n)).hours for n in (1, 2, 8, 64)]
    assert hours == sorted(hours, reverse=True)
    again = simulate(200_000, costs, Cluster(8))
    assert again.hours == hours[2]
    with pytest.raises(ConfigError, match="gpus is 0"):
        Cluster(0)
