"""jobs/ on a real Slurm cluster: preempted, out of time, signalled, cancelled, on lost nodes; and always finished."""

import concurrent.futures
import functools
import os
import re
import signal
import subprocess
import sys
import unittest

from harness import BIN, ENVIRONMENT, ROOT, run

from slurm_cluster import HOME, Cluster, enter_namespaces
from waiting import wait_for

JOBS = ROOT / "jobs"
STEPS, SAVE_EVERY = 80, 10
TRAINING = ["--layers", "1", "--width", "16", "--heads", "2", "--context", "16", "--batch", "4", "--parallel", "zero",
            "--steps", str(STEPS), "--save-every", str(SAVE_EVERY), "--log-every", "1"]
DONE = re.compile(r"^done step=\d+ loss=\S+ params_digest=([0-9a-f]{32})$", re.M)
STOPPED = re.compile(r"^stopped step=(\d+) .*params_digest=([0-9a-f]{32})$", re.M)
RESUMED = re.compile(r"^resumed step=(\d+) params_digest=([0-9a-f]{32}) ", re.M)
ELSEWHERE = "--nodelist=n2,n3"  # not on n1, where a job is preempted, nor on n4 to n8, where nodes are lost
LONG = 240  # seconds until something that should take a few has failed

ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL")

SCENARIOS = []


def scenario(body):
    """A test that starts together with all others, as jobs on a cluster do; most of its time it waits for Slurm."""
    SCENARIOS.append(body)

    @functools.wraps(body)
    def outcome(self):
        self.outcomes[body.__name__].result()
    return outcome


class Job:
    def __init__(self, cluster, name, number, log):
        self.cluster, self.name, self.number, self.log = cluster, name, number, log

    def text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def field(self, name):
        shown = self.cluster.command("scontrol", "-o", "show", "job", self.number)
        return re.search(rf"(?:^| ){name}=(\S*)", shown)[1]

    def wait(self, what, condition):
        def reached():
            ended = self.field("JobState") in ENDED  # asked first: what it wrote before that counts
            if not (value := condition()) and ended:
                raise AssertionError(f"job {self.name} ended before: {what}")
            return value
        try:
            return wait_for(f"job {self.name}: {what}", reached, LONG)
        except AssertionError as error:
            raise AssertionError(f"{error}\nstate {self.field('JobState')}\n{self.text()}") from None

    def wait_for_step(self, step, start=0):
        """Until the start number `start` has taken that step or a later one."""
        self.wait(f"step {step}", lambda: len(self.starts()) > start and
                  any(int(taken) >= step for taken in re.findall(r"^step=(\d+) ", self.starts()[start], re.M)))

    def wait_until_ended(self):
        return self.wait("ended", lambda: (state := self.field("JobState")) in ENDED and state)

    def starts(self):
        """What each start of the job wrote."""
        return re.split(r"^== .*, restart \d+, on .*$", self.text(), flags=re.M)[1:]


class Slurm(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster(8)
        cls.cluster.start()
        undisturbed = [cls.undisturbed(seed) for seed in (1, 2)]
        cls.expected = dict(enumerate(undisturbed, 1))
        cls.pool = concurrent.futures.ThreadPoolExecutor(len(SCENARIOS))
        cls.outcomes = {body.__name__: cls.pool.submit(body, cls(body.__name__)) for body in SCENARIOS}

    @classmethod
    def tearDownClass(cls):
        cls.pool.shutdown()
        if any(outcome.exception() for outcome in cls.outcomes.values()):
            print(cls.cluster.logs(), file=sys.stderr)
        cls.cluster.stop()

    @classmethod
    def undisturbed(cls, seed):
        """The last line of an undisturbed training on 2 ranks."""
        done = run([BIN / "train_lm", *TRAINING, "--seed", str(seed), "--dir", HOME / f"runs/undisturbed-{seed}"],
                   ranks=2, timeout=200)
        if not (found := DONE.search(done.stdout)):
            raise AssertionError(done.stdout + done.stderr)
        return found[0]

    def environment(self, name, **variables):
        return {**ENVIRONMENT, "CAIRN_ROOT": str(ROOT), "CAIRN_BIN": str(BIN), "OMPI_MCA_mpi_yield_when_idle": "1",
                "OMP_NUM_THREADS": "1", "CAIRN_RUN_DIR": str(HOME / "runs" / name), **variables}

    def submit(self, name, options, *words, run=None, **variables):
        """A job on 2 nodes, with a rank on each unless `options` say otherwise."""
        log = HOME / "runs" / f"{name}.log"
        number = self.cluster.command(
            "sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=1", f"--output={log}", f"--job-name={name}",
            *options, *words, env=self.environment(run or name, **variables)).strip()
        return Job(self.cluster, name, number, log)

    def train(self, name, *options, flags=(), pace=200, **more):
        return self.submit(name, options, JOBS / "train.sbatch", *TRAINING, "--step-ms", str(pace), *flags, **more)

    def assert_finished(self, job, restarts, seed=1):
        """Ended well, after so many restarts, with the parameters of a training that nothing disturbed."""
        self.assertEqual(job.wait_until_ended(), "COMPLETED", job.text())
        # A signal that comes after the last line has it requeued, and then it says so once more.
        self.assertEqual(set(DONE.findall(job.text())), {DONE.search(self.expected[seed])[1]}, job.text())
        if restarts is not None:
            self.assertEqual(len(job.starts()) - 1, restarts, job.text())
        self.assert_goes_on_where_it_was(job)

    def assert_goes_on_where_it_was(self, job, lost=0):
        reached = 0
        for start in job.starts():
            taken = [int(step) for step in re.findall(r"^step=(\d+) ", start, re.M)]
            found = RESUMED.search(start)
            if not taken and not found:
                continue  # ended while it still started
            begun = int(found[1]) if found else 0
            self.assertLessEqual(reached - begun, lost, job.text())
            reached = max([begun, *taken])

    @scenario
    def test_preempted_by_a_partition_of_higher_priority(self):
        for partition, outcome in (("main", "stopped early: requeued"), ("abrupt", "left to Slurm")):
            with self.subTest(partition=partition):
                job = self.train(partition, f"--partition={partition}", "--nodelist=n1,n2")
                job.wait_for_step(SAVE_EVERY + 2)
                urgent = self.submit("urgent", ["--partition=urgent", "--nodes=1", "--nodelist=n1", "--exclusive"],
                                     "--wrap=sleep 1")
                self.assert_finished(job, restarts=1)
                self.assertEqual(urgent.wait_until_ended(), "COMPLETED")
                self.assertIn(outcome, job.text())
                self.assertRegex(job.text(), r"cairn: a save takes \S+ s; for this job: --signal=B:USR1@\d+\n")

    @scenario
    def test_out_of_time(self):
        job = self.train("time", ELSEWHERE, "--time=1", "--signal=B:USR1@30", pace=500)
        self.assert_finished(job, restarts=None)
        self.assertIn("signal USR1: the program is to save and stop", job.text())
        self.assertGreaterEqual(len(job.starts()), 2, job.text())

    @scenario
    def test_out_of_time_without_a_signal(self):
        setup = HOME / "runs" / "setup.sh"
        setup.write_text('[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || sleep 15\n')  # of a minute, that is the least
        job = self.train("clock", ELSEWHERE, "--time=1", "--signal=B:CONT@1", pace=600, CAIRN_SETUP=str(setup))
        self.assert_finished(job, restarts=None)
        self.assertIn("reason=time limit exit=85", job.starts()[0])

    @scenario
    def test_ended_by_the_time_limit_itself(self):
        """Nothing warns, and the trainer takes the end for far away: TERM to all, and KILL after KillWait."""
        setup = HOME / "runs" / "late-setup.sh"  # Slurm looks every half minute: the job must last for 90 s and more
        setup.write_text('[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || sleep 45\n')
        config = HOME / "runs" / "far.yaml"
        config.write_text("save: {preemption: {time_limit: 1000000}}\n")
        job = self.train("limit", ELSEWHERE, "--time=1", "--signal=B:CONT@1", pace=600, CAIRN_SETUP=str(setup),
                         flags=["--config", config])
        self.assert_finished(job, restarts=None)
        self.assertGreaterEqual(len(job.starts()), 2, job.text())
        self.assertIn("reason=signal exit=85", job.starts()[0])
        self.assertIn("stopped early: requeued", job.starts()[0])

    @scenario
    def test_a_limit_that_is_raised_while_the_job_runs(self):
        job = self.train("raised", ELSEWHERE, "--time=1", "--signal=B:CONT@1", pace=900)  # 72 s of steps
        job.wait_for_step(2)
        self.cluster.command("scontrol", "update", f"JobId={job.number}", "TimeLimit=10")
        self.assert_finished(job, restarts=0)
        self.assertRegex(job.text(), r"cairn: the time limit of this job was changed: it ends in 5\d\d s")

    @scenario
    def test_scancel_signal_to_the_steps_and_to_the_script(self):
        job = self.train("signal", ELSEWHERE)
        job.wait_for_step(SAVE_EVERY + 2)
        self.cluster.command("scancel", "--signal=USR1", job.number)
        job.wait_for_step(SAVE_EVERY + 2, start=1)
        self.cluster.command("scancel", "--signal=USR1", "--batch", job.number)
        self.assert_finished(job, restarts=2)

    @scenario
    def test_a_cancelled_job_saves_stays_cancelled_and_resumes_on_other_nodes(self):
        job = self.train("cancelled", ELSEWHERE)
        job.wait_for_step(SAVE_EVERY + 2)
        self.cluster.command("scancel", job.number)
        self.assertEqual(job.wait_until_ended(), "CANCELLED", job.text())
        self.assertIn("left to Slurm", job.text())
        again = self.train("again", "--nodelist=n3", "--nodes=1", "--ntasks-per-node=2", run="cancelled")
        self.assert_finished(again, restarts=0)
        self.assertEqual(RESUMED.search(again.text()).groups(), STOPPED.search(job.text()).groups())
        more = self.train("more", ELSEWHERE, "--ntasks=3", "--ntasks-per-node=2", run="cancelled",
                          flags=["--steps", str(STEPS + 5)])
        self.assertEqual(more.wait_until_ended(), "COMPLETED", more.text())
        self.assertEqual(RESUMED.search(more.text())[2], DONE.search(again.text())[1], "other tensors on 3 ranks")
        self.assertRegex(more.text(), rf"(?m)^done step={STEPS + 5} ")

    @scenario
    def test_a_lost_node(self):
        job = self.train("lost", "--exclude=n[1-2,6-8]")
        job.wait_for_step(SAVE_EVERY + 2)
        gone = self.other_node(job)
        self.cluster.lose_node(gone)
        self.assert_went_on_elsewhere(job, gone)

    def nodes(self, job):
        return self.cluster.command("scontrol", "show", "hostnames", job.field("NodeList")).split()

    def other_node(self, job):
        """One of the job's that does not run its script."""
        return next(node for node in self.nodes(job) if node != job.field("BatchHost"))

    def assert_went_on_elsewhere(self, job, gone):
        job.wait("started again", lambda: len(job.starts()) > 1)
        self.assertNotIn(gone, self.nodes(job))
        self.assertEqual(job.wait_until_ended(), "COMPLETED", job.text())
        self.assertEqual(DONE.search(job.text())[0], self.expected[1], job.text())
        self.assert_goes_on_where_it_was(job, lost=SAVE_EVERY)

    @scenario
    def test_a_signal_before_the_ranks_can_catch_it(self):
        trainer = HOME / "runs" / "late.sh"
        trainer.write_text('#!/bin/bash\n[ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || { echo waits; exec sleep 200; }\n'
                           f'exec {BIN}/train_lm "$@"\n')
        trainer.chmod(0o755)
        job = self.train("late", ELSEWHERE, CAIRN_TRAIN=str(trainer))
        job.wait("the ranks run", lambda: "waits" in job.text())
        self.cluster.command("scancel", "--signal=USR1", "--batch", job.number)
        self.assert_finished(job, restarts=1)

    @scenario
    def test_a_second_job_in_the_directory_of_another(self):
        trainer = HOME / "runs" / "owner.sh"  # is not done before it is stopped
        trainer.write_text(f'#!/bin/bash\nexec {BIN}/train_lm "$@" '
                           '$([ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || echo --step-ms 5000)\n')
        trainer.chmod(0o755)
        first = self.train("owner", ELSEWHERE, CAIRN_TRAIN=str(trainer))
        first.wait_for_step(1)
        host = first.field("BatchHost")
        second = self.train("rival", "--nodelist=n8", "--nodes=1", "--ntasks-per-node=2", run="owner")
        self.assertEqual(second.wait_until_ended(), "FAILED", second.text())
        self.assertEqual(second.field("ExitCode"), "2:0")
        owner = rf"is in use by \S+ on {host} \(process \d+, job cairn/{first.number}\)"
        self.assertRegex(second.text(), owner + r".* sign of life \d+ s ago")
        self.cluster.command("scancel", "--signal=USR1", first.number)
        self.assert_finished(first, restarts=1)

    @scenario
    def test_a_lost_node_that_the_launcher_notices_before_slurm(self):
        """srun waits until Slurm knows of it; mpirun ends when a connection does."""
        job = self.train("noticed", "--exclude=n[1-5]", CAIRN_LAUNCH="mpirun")
        job.wait_for_step(SAVE_EVERY + 2)
        gone = self.other_node(job)
        self.cluster.crash_node(gone)
        self.assert_went_on_elsewhere(job, gone)
        self.assertRegex(job.starts()[0], rf"a node of the job does not answer: .*{gone}")
        self.assertIn("stopped early: requeued", job.starts()[0])

    @scenario
    def test_two_tasks_of_an_array(self):
        sweep = HOME / "runs" / "sweep.txt"
        sweep.write_text("--seed 1\n--seed 2\n")
        whole = self.submit("sweep", ["--array=1-2", ELSEWHERE, f"--output={HOME}/runs/sweep-%a.log"],
                            JOBS / "array.sbatch", sweep, *TRAINING, "--step-ms", "200")
        tasks = {task: Job(self.cluster, f"sweep-{task}", f"{whole.number}_{task}", HOME / f"runs/sweep-{task}.log")
                 for task in (1, 2)}
        tasks[2].wait_for_step(SAVE_EVERY + 2)
        self.cluster.command("scancel", "--signal=USR1", tasks[2].number)
        self.assert_finished(tasks[1], restarts=0, seed=1)
        self.assert_finished(tasks[2], restarts=1, seed=2)
        for task in tasks.values():
            self.assertNotIn("squeue", task.text(), "the trainer did not learn when its task ends")

    @scenario
    def test_a_chain_of_jobs(self):
        lines = self.cluster.command(
            JOBS / "chain.sh", "3", "--nodes=2", "--ntasks-per-node=1", ELSEWHERE,
            f"--output={HOME}/runs/chain-%j.log", JOBS / "train.sbatch", *TRAINING, "--step-ms", "200",
            env=self.environment("chain")).split()
        first, second, third = (Job(self.cluster, f"chain-{number}", number, HOME / f"runs/chain-{number}.log")
                                for number in lines)
        first.wait_for_step(SAVE_EVERY + 2)
        self.cluster.command("scancel", "--signal=USR1", first.number)
        self.assertEqual(first.wait_until_ended(), "COMPLETED", first.text())
        self.assert_finished(second, restarts=0)
        self.assertGreater(int(RESUMED.search(second.text())[1]), SAVE_EVERY)
        self.assert_finished(third, restarts=0)
        self.assertEqual(int(RESUMED.search(third.text())[1]), STEPS)

    @scenario
    def test_run_local_in_an_allocation(self):
        log, pid, trainer = (HOME / "runs" / f"prompt.{name}" for name in ("log", "pid", "sh"))
        trainer.write_text('#!/bin/bash\necho "a rank on $(hostname), of $(cat /proc/$PPID/comm)"\n'
                           f'exec {BIN}/train_lm "$@"\n')
        trainer.chmod(0o755)
        with log.open("w") as output:
            prompt = subprocess.Popen(
                ["salloc", "--nodes=2", "--ntasks-per-node=1", ELSEWHERE, "--job-name=prompt", "bash", "-c",
                 f'echo $SLURM_JOB_ID $$ >{pid}.new; mv {pid}.new {pid}; exec "$@"', "prompt", JOBS / "run_local.sh",
                 JOBS / "train.sbatch", *TRAINING, "--step-ms", "200"], stdin=subprocess.DEVNULL, stdout=output,
                stderr=output,
                env={**self.cluster.environment, **self.environment("prompt", CAIRN_TRAIN=str(trainer))})
        wait_for("the allocation", pid.exists, LONG)
        number, local = pid.read_text().split()
        job = Job(self.cluster, "prompt", number, log)
        job.wait_for_step(SAVE_EVERY + 2)
        os.kill(int(local), signal.SIGUSR1)
        self.assert_finished(job, restarts=1)
        self.assertEqual(prompt.wait(timeout=LONG), 0, job.text())
        for start in job.starts():
            # By srun: mpirun finds the nodes, too, but is another way.
            self.assertEqual(sorted(re.findall(r"^a rank on (n\d), of slurmstepd$", start, re.M)), ["n2", "n3"], start)

    @scenario
    def test_a_failure_is_not_requeued(self):
        job = self.train("failure", ELSEWHERE, flags=["--data", "/no/such/text"])
        self.assertEqual(job.wait_until_ended(), "FAILED", job.text())
        self.assertEqual(job.field("ExitCode"), "2:0")
        self.assertIn("exit code 2: failed, not requeued", job.text())
        self.assertNotIn("is not counted", job.text())

    @scenario
    def test_inspect_diff_and_convert(self):
        run_dir = HOME / "runs" / "undisturbed-1"
        first, last = (run_dir / f"step-{step:08}.h5" for step in (SAVE_EVERY, STEPS))
        weights = HOME / "runs" / "weights.safetensors"
        jobs = [(self.submit(name, [ELSEWHERE], JOBS / f"{name}.sbatch", *words), state) for name, words, state in
                (("inspect", [run_dir], "COMPLETED"), ("diff", [first, first], "COMPLETED"),
                 ("convert", [last, weights, "--weights-only"], "COMPLETED"))]
        different = self.submit("different", [ELSEWHERE], JOBS / "diff.sbatch", first, last)
        for job, state in [*jobs, (different, "FAILED")]:
            self.assertEqual(job.wait_until_ended(), state, job.text())
        self.assertEqual(different.field("ExitCode"), "1:0")
        self.assertIn("head.weight", jobs[0][0].text())
        self.assertTrue(weights.exists())


if __name__ == "__main__":
    enter_namespaces()
    unittest.main()
