"""Run `geosam segment` on jobs of a Slurm cluster.

    python docs/cluster/slurm.py --jobs 8 --cpus 16 --queue normal -- ortho.tif --out /shared/rivers.gpkg
    python docs/cluster/slurm.py --jobs 4 --gpu --dry-run -- ortho.tif --out /shared/rivers.gpkg

What stands behind `--` are the words of `geosam segment`. This process is the scheduler and makes the polygons; each
job is one worker with one model. The run begins with the first job that starts, and ends its jobs when it ends. A job
that Slurm ends, for its time or for another, costs its block only. `--dry-run` prints the job script and the command,
and asks Slurm for nothing. Needs: pip install 'geosam-rivers[cluster]' dask-jobqueue
"""

from __future__ import annotations

import argparse
import shlex
import sys

from dask_jobqueue import SLURMCluster

from geosam.cli import main as geosam


def options() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=4, help="jobs, one worker each (4)")
    parser.add_argument("--cpus", type=int, default=8, help="processors of a job (8)")
    parser.add_argument("--memory", default="16GB", help="memory of a job (16GB)")
    parser.add_argument("--walltime", default="02:00:00", help="longest time of a job (02:00:00)")
    parser.add_argument("--queue", help="partition")
    parser.add_argument("--account", help="account that pays")
    parser.add_argument("--interface", help="network that workers reach this machine by, such as ib0")
    parser.add_argument("--gpu", action="store_true", help="ask for one GPU a job")
    parser.add_argument("--dry-run", action="store_true", help="print what would be asked for, and end")
    parser.add_argument("segment", nargs="+", help="words of geosam segment, behind --")
    return parser.parse_args()


def cluster_of(asked: argparse.Namespace) -> SLURMCluster:
    """A scheduler in this process, and the recipe of a job; no job is asked for yet."""
    return SLURMCluster(
        queue=asked.queue,
        account=asked.account,
        interface=asked.interface,
        walltime=asked.walltime,
        memory=asked.memory,
        job_cpu=asked.cpus,
        # One task at a time, which takes all processors of the job: torch's threads, not dask's.
        cores=1,
        processes=1,
        job_script_prologue=[f"export OMP_NUM_THREADS={asked.cpus}"],
        job_extra_directives=["--gres=gpu:1"] if asked.gpu else [],
        worker_extra_args=["--resources", "GPU=1"] if asked.gpu else [],
        scheduler_options={"dashboard_address": "127.0.0.1:0"},
    )


def run() -> None:
    """Ask for jobs, and run on them."""
    asked = options()
    with cluster_of(asked) as cluster:
        words = ["segment", *asked.segment, "--dask", cluster.scheduler_address]
        if asked.dry_run:
            print(cluster.job_script())
            print(f"# {asked.jobs} of these jobs, and here:")
            print(shlex.join(["geosam", *words]))
            sys.exit(0)
        cluster.scale(jobs=asked.jobs)
        geosam(words)


if __name__ == "__main__":
    run()
