"""The states of SLURM jobs on a cluster that keeps no accounts (part of the door)."""

import shutil
import subprocess
import time

#: States in which a job has ended for good; it is requeued after none of them by itself.
_ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT")


def watch_queue_without_accounts() -> None:
    """Let submitit ask ``squeue`` for the states of jobs where ``sacct`` has no answers.

    submitit asks only ``sacct``. Where that fails it warns at each look, and waits forever for a job that was killed.
    """
    if shutil.which("squeue") is None or (
        shutil.which("sacct") and subprocess.run(["sacct", "-n", "-X"], capture_output=True).returncode == 0
    ):
        return
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    class Queue(SlurmInfoWatcher):
        """Jobs as the queue lists them, by the ids of their tasks."""

        def update(self) -> None:
            command = ["squeue", "--me", "-h", "-r", "-t", "all", "-o", "%i|%T"]
            asked = subprocess.run(command, capture_output=True, text=True)
            self._num_calls += 1
            self._last_status_check = time.time()
            if asked.returncode:
                return  # the controller does not answer now; it is asked again
            states = dict(line.split("|") for line in asked.stdout.splitlines())
            for job in self._registered - self._finished:
                state = states.get(job, "COMPLETED")  # the queue forgets a job some minutes after its end
                self._info_dict[job] = {"State": state if state in _ENDED else "RUNNING"}
                if self.is_done(job, mode="cache"):
                    self._finished.add(job)

    SlurmJob.watcher = Queue(delay_s=60)
