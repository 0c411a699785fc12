"""What docs/cluster says is what the programs take: manifests and the Slurm script, run dry."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from distributed.cli.dask_scheduler import main as dask_scheduler
from distributed.cli.dask_worker import main as dask_worker

from geosam.cli.segment import command as segment

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "cluster"
VERBS = {("dask", "scheduler"): dask_scheduler, ("dask", "worker"): dask_worker, ("geosam", "segment"): segment}


def manifests() -> list[dict[str, Any]]:
    return [one for path in sorted(FOLDER.glob("*.yaml")) for one in yaml.safe_load_all(path.read_text()) if one]


def of_kind(*kinds: str) -> list[dict[str, Any]]:
    return [one for one in manifests() if one["kind"] in kinds]


def pods() -> list[dict[str, Any]]:
    return [one["spec"]["template"] for one in of_kind("Deployment", "Job")]


def check(words: list[str]) -> Any:
    """Have a program read its command line, without doing anything."""
    return VERBS[words[0], words[1]].make_context(words[0], list(words[2:]))


def commands() -> list[list[str]]:
    """Command lines of the page, of blocks that begin with one."""
    blocks = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8").split("```")[1::2]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    bare = [[word for at, word in enumerate(line) if "=" not in word or at > 1 or word[0] == "-"] for line in words]
    return [line for line in bare if tuple(line[:2]) in VERBS]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_of_the_page_are_understood(words: list[str]) -> None:
    check(words)


def test_the_page_shows_every_program() -> None:
    assert {tuple(words[:2]) for words in commands()} == set(VERBS)


def test_manifests_are_whole_and_of_kinds_that_kubernetes_has() -> None:
    versions = {
        "PersistentVolumeClaim": "v1", "Service": "v1", "Deployment": "apps/v1", "Job": "batch/v1",
        "NetworkPolicy": "networking.k8s.io/v1",
    }  # fmt: skip
    assert {one["kind"] for one in manifests()} == set(versions)
    for one in manifests():
        assert one["apiVersion"] == versions[one["kind"]]
        assert one["metadata"]["name"].startswith("geosam")


def test_containers_run_what_the_programs_understand() -> None:
    for pod in pods():
        for container in pod["spec"]["containers"]:
            assert f"-t {container['image']} " in (FOLDER / "Dockerfile").read_text(encoding="utf-8")
            assert all(isinstance(word, str) for word in container["command"])
            check(container["command"])


def test_names_of_the_manifests_fit_each_other() -> None:
    labels = [pod["metadata"]["labels"] for pod in pods()]
    for one in of_kind("Deployment"):
        assert one["spec"]["selector"]["matchLabels"].items() <= one["spec"]["template"]["metadata"]["labels"].items()
    [service] = of_kind("Service")
    [chosen] = [pod for pod in pods() if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()]
    [port], [offered] = service["spec"]["ports"], chosen["spec"]["containers"][0]["ports"]
    assert (port["targetPort"], port["port"]) == (offered["name"], offered["containerPort"])
    address = f"tcp://{service['metadata']['name']}:{port['port']}"
    assert [address in pod["spec"]["containers"][0]["command"] for pod in pods()].count(True) == len(pods()) - 1
    [policy] = of_kind("NetworkPolicy")
    assert all(policy["spec"]["podSelector"]["matchLabels"].items() <= label.items() for label in labels)


def test_every_volume_that_is_mounted_is_there_and_the_shared_one_is_shared() -> None:
    [claim] = of_kind("PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for pod in pods():
        there = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        mounts = [mount for container in pod["spec"]["containers"] for mount in container.get("volumeMounts", [])]
        assert {mount["name"] for mount in mounts} == set(there)
        claims = [volume["persistentVolumeClaim"]["claimName"] for volume in there.values() if "emptyDir" not in volume]
        assert claims in ([], [claim["metadata"]["name"]])


@pytest.mark.parametrize("gpu", [False, True])
def test_the_slurm_script_says_dry_what_it_would_ask_for(gpu: bool) -> None:
    words = ["--dry-run", "--jobs", "3", "--cpus", "12", "--queue", "short", *(["--gpu"] if gpu else [])]
    done = subprocess.run(
        [sys.executable, str(FOLDER / "slurm.py"), *words, "--", "ortho.tif", "--out", "rivers.gpkg"],
        capture_output=True, text=True, check=True, timeout=240, env={**os.environ, "PATH": ""},
    )  # fmt: skip
    script, _, command = done.stdout.partition("# 3 of these jobs")
    lines = script.splitlines()
    assert lines[0].startswith("#!")
    assert {"#SBATCH -p short", "#SBATCH --cpus-per-task=12", "export OMP_NUM_THREADS=12"} <= set(lines)
    assert ("#SBATCH --gres=gpu:1" in lines) == gpu
    [start] = [shlex.split(line) for line in lines if "distributed.cli.dask_worker" in line]
    asked = dask_worker.make_context("dask worker", start[start.index("distributed.cli.dask_worker") + 1 :])
    assert asked.params["nthreads"] == 1
    assert asked.params["resources"] == ("GPU=1" if gpu else None)
    words = shlex.split(command.splitlines()[1])
    assert check(words).params["dask"] == start[start.index("distributed.cli.dask_worker") + 1]
