"""The scripts of jobs/ without a scheduler: what is started again, what is not, and what a killed run loses."""

import os
import pathlib
import random
import re
import signal
import subprocess
import tempfile
import time
import unittest

from harness import BIN, Case, ENVIRONMENT, ROOT, SAMPLE, run

from waiting import wait_for

JOBS = ROOT / "jobs"
DONE = re.compile(r"^done step=\d+ loss=\S+ params_digest=[0-9a-f]{32}$", re.M)
SMALL = ["--layers", "1", "--width", "16", "--heads", "2", "--context", "16", "--batch", "4"]

# A trainer that ends with the next exit code of the list `codes`, after a new checkpoint for a + before the code.
STUB = r"""#!/bin/bash
echo "start restart=$CAIRN_RESTART_COUNT flags=$*" >>"$STUB_DIR/starts"
read -r next rest <"$STUB_DIR/codes"
echo "$rest" >"$STUB_DIR/codes"
case $next in +*)
  step=$(($(ls "$2" | grep -c '^step-') + 1))
  "$STUB_SAMPLE" save "$2/$(printf 'step-%08d.h5' "$step")" "$step" 1 rows direct >/dev/null || exit 99 ;;
esac
case ${next#+} in
  wait)
    trap 'exit 85' USR1
    touch "$STUB_DIR/waiting"
    while :; do sleep 0.05; done ;;
  second)  # loses the first signal
    trap 'signals+=1; [ $signals = 1 ] || exit 85' USR1
    touch "$STUB_DIR/waiting"
    while :; do sleep 0.05; done ;;
  deaf) touch "$STUB_DIR/waiting"; exec sleep 60 ;;
  kill) kill -9 $$ ;;
esac
exit "${next#+}"
"""


class LocalCase(Case):
    def setUp(self):
        super().setUp()
        (self.dir / "stub").write_text(STUB)
        (self.dir / "stub").chmod(0o755)
        self.run_dir = self.dir / "run"
        self.variables = {"CAIRN_RUN_DIR": self.run_dir, "CAIRN_TRAIN": self.dir / "stub",
                          "CAIRN_LAUNCH": "env", "STUB_DIR": self.dir, "STUB_SAMPLE": SAMPLE,
                          "CAIRN_BIN": BIN, **ENVIRONMENT}

    def start(self, *words, codes="", **variables):
        (self.dir / "codes").write_text(codes + "\n")
        (self.dir / "starts").write_text("")
        environment = {**os.environ, **self.variables, **variables}
        return subprocess.Popen([str(word) for word in words], text=True, stdin=subprocess.DEVNULL, cwd=ROOT,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                env={name: str(value) for name, value in environment.items()})

    def job(self, *words, code, **more):
        process = self.start(*words, **more)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, code, output)
        return output

    def starts(self):
        return (self.dir / "starts").read_text().splitlines()


class Requeue(LocalCase):
    def test_the_exit_code_decides_whether_a_job_is_started_again(self):
        for codes, code, starts in (("0", 0, 1), ("+85 +85 0", 0, 3), ("2", 2, 1), ("139", 139, 1),
                                    ("+85 2", 2, 2), ("+kill 0", 0, 2), ("138 143 0", 0, 3)):
            with self.subTest(codes=codes):
                output = self.job(JOBS / "run_local.sh", JOBS / "train.sbatch", "--steps", "9", codes=codes, code=code)
                self.assertEqual(len(self.starts()), starts, output)
                for restart, line in enumerate(self.starts()):
                    self.assertEqual(line, f"start restart={restart} flags=--dir {self.run_dir} --steps 9")

    def test_restarts_without_a_new_checkpoint_end(self):
        output = self.job(JOBS / "run_local.sh", JOBS / "train.sbatch", codes="85 " * 50, code=1)
        self.assertEqual(len(self.starts()), 6, output)
        self.assertIn("was started 6 times since", output)
        self.assertIn("never got past its beginning", output)
        self.assertIn("given up", output)
        self.job(JOBS / "run_local.sh", JOBS / "train.sbatch", codes="85 85 0", code=0)  # counted anew
        self.assertFalse((self.run_dir / ".restarts").exists(), "it has ended well")
        self.job(JOBS / "run_local.sh", JOBS / "train.sbatch", codes="85 85 85 85 +85 85 85 85 85 85 0", code=0)
        self.job(JOBS / "run_local.sh", JOBS / "train.sbatch", codes="85 85 0", code=1, CAIRN_MAX_STALLS=1)

    def test_a_start_that_can_not_be_counted_is_no_reason_to_end(self):
        programs = self.dir / "bin"
        programs.mkdir()
        (programs / "cairn").write_text("#!/bin/bash\nexit 127\n")
        (programs / "cairn").chmod(0o755)
        output = self.job(JOBS / "run_local.sh", JOBS / "train.sbatch", codes="85 0", code=0, CAIRN_BIN=programs)
        self.assertIn("this start is not counted (exit code 127", output)

    def test_which_codes_requeue_is_the_sites_choice(self):
        output = self.job(JOBS / "run_local.sh", JOBS / "train.sbatch", codes="+7 0", code=0, CAIRN_REQUEUE_CODES="7")
        self.assertEqual(len(self.starts()), 2, output)

    def test_a_setup_file_comes_before_everything(self):
        setup = self.dir / "setup.sh"
        setup.write_text("echo $NO_SUCH_VARIABLE\nfalse\nCAIRN_TRAIN=$STUB_DIR/other\n")
        (self.dir / "other").write_text("#!/bin/bash\nexit 5\n")
        (self.dir / "other").chmod(0o755)
        self.job(JOBS / "run_local.sh", JOBS / "train.sbatch", code=5, CAIRN_SETUP=setup)

    def test_a_job_that_does_not_find_cairn_says_so(self):
        output = self.job("bash", JOBS / "train.sbatch", code=2, CAIRN_ROOT=self.dir)
        self.assertIn(f"no jobs/job.sh in '{self.dir}'", output)


class Signals(LocalCase):
    def signalled(self, codes, number, code):
        process = self.start(JOBS / "run_local.sh", JOBS / "train.sbatch", codes=codes)
        self.addCleanup(process.kill)
        wait_for("the trainer runs", (self.dir / "waiting").exists, 30)
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)
        self.assertEqual(process.returncode, code, output)
        (self.dir / "waiting").unlink()
        return len(self.starts())

    def test_sigusr1_preempts_and_the_job_goes_on(self):
        self.assertEqual(self.signalled("wait 0", signal.SIGUSR1, 0), 2)

    def test_a_trainer_that_the_signal_kills_at_its_start_goes_on(self):
        self.assertEqual(self.signalled("deaf 0", signal.SIGUSR1, 0), 2)

    def test_a_signal_that_the_launcher_lost_is_sent_again(self):
        self.assertEqual(self.signalled("second 0", signal.SIGUSR1, 0), 2)

    def test_a_signal_before_the_ranks_can_catch_it(self):
        """To real ranks under mpirun, before MPI_Init."""
        trainer = self.dir / "trainer"
        trainer.write_text('#!/bin/bash\n'
                           '[ "$CAIRN_RESTART_COUNT" -gt 0 ] || { touch "$STUB_DIR/waiting"; exec sleep 60; }\n'
                           f'exec {BIN}/train_lm "$@"\n')
        trainer.chmod(0o755)
        flags = [*SMALL, "--steps", "4", "--save-every", "2"]
        whole = run([BIN / "train_lm", *flags, "--dir", self.dir / "whole"], ranks=2)
        process = self.start(JOBS / "run_local.sh", "-n", "2", JOBS / "train.sbatch", *flags, CAIRN_TRAIN=trainer,
                             CAIRN_LAUNCH="")
        self.addCleanup(process.kill)
        wait_for("a rank runs", (self.dir / "waiting").exists, 30)
        process.send_signal(signal.SIGUSR1)
        output, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0, output)
        self.assertIn("restart 1, on", output)
        self.assertRegex(whole.stdout, DONE)
        self.assertEqual(DONE.findall(output), DONE.findall(whole.stdout))

    def test_sigterm_and_control_c_save_and_stop(self):
        self.assertEqual(self.signalled("wait 0", signal.SIGTERM, 85), 1)
        self.assertEqual(self.signalled("wait 0", signal.SIGINT, 85), 1)


class ArrayAndChain(LocalCase):
    def test_each_task_of_a_sweep_has_its_flags_and_its_run_directory(self):
        sweep = self.dir / "sweep.txt"
        sweep.write_text("--lr 1e-3\n--lr 3e-4 --seed 2\n")
        self.job(JOBS / "run_local.sh", "--array=1-2", JOBS / "array.sbatch", sweep, "--steps", "9",
                 codes="0 +85 0", code=0)
        self.assertEqual([line.split("flags=")[1] for line in self.starts()],
                         [f"--dir {self.run_dir}/task-1 --lr 1e-3 --steps 9"] +
                         [f"--dir {self.run_dir}/task-2 --lr 3e-4 --seed 2 --steps 9"] * 2)

    def test_a_sweep_without_a_line_for_the_task_is_refused(self):
        sweep = self.dir / "sweep.txt"
        sweep.write_text("--lr 1e-3\n")
        output = self.job(JOBS / "run_local.sh", "--array=1-2", JOBS / "array.sbatch", sweep, codes="0", code=2)
        self.assertIn(f"line '2' of the sweep '{sweep}'", output)
        self.job(JOBS / "run_local.sh", JOBS / "array.sbatch", sweep, code=2)

    def test_a_chain_goes_on_after_preemption_and_ends_at_a_failure(self):
        chain = [JOBS / "chain.sh", "3", JOBS / "train.sbatch", "--steps", "9"]
        self.job(*chain, codes="85 0 0", code=0, CAIRN_LOCAL=1)
        self.assertEqual(len(self.starts()), 3)
        self.job(*chain, codes="85 2 0", code=2, CAIRN_LOCAL=1)
        self.assertEqual(len(self.starts()), 2)
        self.job(*chain, codes="85 85 85", code=85, CAIRN_LOCAL=1)  # used up before the end
        self.assertEqual(len(self.starts()), 3)


class Tools(Case):
    """inspect, diff and convert, on real checkpoints."""

    def setUp(self):
        super().setUp()
        for step in (1, 2):
            made = self.sample_save(self.file(step), step, step)
            self.assertEqual(made.returncode, 0, made.stderr)

    def file(self, step):
        return self.dir / "run" / f"step-{step:08}.h5"

    def job(self, name, *words, code, **variables):
        done = run([JOBS / "run_local.sh", "-n", 2, JOBS / f"{name}.sbatch", *words], cwd=self.dir,
                   env={"CAIRN_BIN": str(BIN), **{name: str(value) for name, value in variables.items()}})
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done.stdout + done.stderr

    def test_inspect(self):
        for told in (self.job("inspect", self.dir / "run", code=0),
                     self.job("inspect", code=0, CAIRN_RUN_DIR=self.dir / "run")):
            self.assertRegex(told, r"step +2\n")
            self.assertIn("42 tensors", told)
        self.assertIn("nothing.h5", self.job("inspect", self.dir / "nothing.h5", code=2))

    def test_diff(self):
        self.job("diff", self.file(1), self.file(1), code=0)
        self.assertIn("different: 22 of 42 tensors", self.job("diff", self.file(1), self.file(2), code=1))
        self.assertIn("nothing.h5", self.job("diff", self.file(1), self.dir / "nothing.h5", code=2))

    def test_convert(self):
        target = self.dir / "deep.safetensors"
        words = [self.file(2), target, "--select", "deep$"]
        self.job("convert", *words, code=0)
        told = self.job("inspect", target, code=0)
        self.assertIn("deep", told)
        self.assertNotIn("large", told)
        self.assertIn("deep.safetensors", self.job("convert", *words, code=2))  # it is there already

    def test_a_setup_file_comes_first(self):
        setup = self.dir / "setup.sh"
        setup.write_text(f"echo from the setup file\nCAIRN_BIN={BIN}\n")
        told = self.job("inspect", self.file(1), code=0, CAIRN_SETUP=setup, CAIRN_BIN=self.dir / "none")
        self.assertIn("from the setup file", told)


def processes_of(run, restart):
    """The processes of one start of the job of that run directory; they tell by their environment."""
    marks = {f"CAIRN_RUN_DIR={run}".encode(), f"CAIRN_RESTART_COUNT={restart}".encode()}
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if marks <= set((entry / "environ").read_bytes().split(b"\0")):
                found.append(int(entry.name))
        except (OSError, ValueError):  # it has ended
            continue
    return found


def kill_start(run, restart):
    """SIGKILL to all of them at once, as when a machine loses its power."""
    while processes := processes_of(run, restart):
        for process in processes:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass


# Rank 0's lines, in a file for each start: those in a pipe would be lost with the launcher.
RECORDED = r"""#!/bin/bash
[ "$OMPI_COMM_WORLD_RANK" != 0 ] || exec >"$RECORDS/start-$CAIRN_RESTART_COUNT"
exec "$CAIRN_BIN/train_lm" "$@"
"""


class KilledAtAnyMoment(Case):
    RANKS = 3  # an odd number divides nothing evenly
    SAVE_EVERY = 5
    STEPS = 500  # more than the cycles take

    @classmethod
    def setUpClass(cls):
        """The training, and its last line when nothing disturbs it."""
        home = tempfile.TemporaryDirectory(prefix="cairn-test-")
        cls.addClassCleanup(home.cleanup)
        # Some kills in a row may come before a save; that is not what is tested.
        config = pathlib.Path(home.name) / "cairn.yaml"
        config.write_text("save: {max_restarts: 0}\n")
        # The steps have to leave time for a look at the records.
        cls.training = [*SMALL, "--steps", str(cls.STEPS), "--save-every", str(cls.SAVE_EVERY), "--log-every", "1",
                        "--step-ms", "5", "--config", str(config)]
        whole = run([BIN / "train_lm", *cls.training, "--dir", f"{home.name}/whole"], ranks=cls.RANKS, timeout=300)
        cls.expected = whole.stdout.splitlines()[-1] if whole.stdout else ""
        if not DONE.search(cls.expected):
            raise AssertionError(whole.stdout + whole.stderr)

    def test_twenty_kills_lose_at_most_one_interval_each_and_change_nothing(self):
        self.kill_again_and_again(cycles=20, most_lost=self.SAVE_EVERY)

    def test_with_saves_in_the_background_a_kill_loses_at_most_two(self):
        """The next save begins when the one before it is durable: until then its interval may be lost, too."""
        self.kill_again_and_again("--async", cycles=7, most_lost=2 * self.SAVE_EVERY)

    def kill_again_and_again(self, *more, cycles, most_lost):
        seed = int(os.environ.get("CAIRN_TEST_SEED", time.time_ns() % 1_000_000))
        print(f"CAIRN_TEST_SEED={seed}", flush=True)
        chance = random.Random(seed)
        trainer = self.dir / "trainer"
        trainer.write_text(RECORDED)
        trainer.chmod(0o755)
        log = self.dir / "log"
        with log.open("w") as output:
            job = subprocess.Popen([JOBS / "run_local.sh", "-n", str(self.RANKS), JOBS / "train.sbatch",
                                    *self.training, *more], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                   env={**os.environ, **ENVIRONMENT, "CAIRN_RUN_DIR": str(self.dir / "run"),
                                        "CAIRN_TRAIN": str(trainer), "RECORDS": str(self.dir),
                                        "CAIRN_MAX_STALLS": "20", "CAIRN_BIN": str(BIN)})
        self.addCleanup(self.end, job, cycles)
        # A third comes before the first step, at any moment of a start; the others after some, anywhere within one.
        early = chance.sample(range(1, cycles), round(0.35 * cycles))
        for cycle in range(cycles):
            header = f"restart {cycle}, on"
            wait_for(f"start {cycle}", lambda: header in log.read_text(), 60)
            if cycle in early:
                time.sleep(chance.uniform(0.0, self.start_s))
            else:
                self.wait_for_a_step(chance, cycle)
            self.assertIsNone(job.poll(), log.read_text())
            kill_start(self.dir / "run", cycle)
        self.assertEqual(job.wait(timeout=300), 0, log.read_text())
        starts = len(re.findall(r"^== .* restart \d+, on .*$", log.read_text(), re.M))
        self.assertEqual(starts, cycles + 1, log.read_text())
        self.assertIn(self.expected, self.record(cycles).splitlines())
        self.assert_little_was_lost(starts, most_lost)

    def end(self, job, cycles):
        job.kill()
        job.wait()
        for restart in range(cycles + 1):
            kill_start(self.dir / "run", restart)

    def record(self, start):
        """What rank 0 of that start wrote."""
        file = self.dir / f"start-{start}"
        return file.read_text() if file.exists() else ""

    def steps(self, start):
        return [int(step) for step in re.findall(r"^step=(\d+) ", self.record(start), re.M)]

    def wait_for_a_step(self, chance, cycle):
        begun = time.monotonic()
        wait_for(f"a step of start {cycle}", lambda: self.steps(cycle), 60)
        self.start_s = time.monotonic() - begun  # of the last start that got so far
        steps = chance.randint(1, 3 * self.SAVE_EVERY)
        wait_for(f"{steps} steps of start {cycle}", lambda: len(self.steps(cycle)) >= steps, 60)
        time.sleep(chance.uniform(0.0, 0.03))

    def assert_little_was_lost(self, starts, most):
        reached = 0
        for start in range(starts):
            begun = re.search(r"^resumed step=(\d+) ", self.record(start), re.M)
            steps = self.steps(start)
            if not begun and not steps:
                continue  # killed before it had loaded
            first = int(begun[1]) if begun else 0
            told = "".join(f"start {one}:\n{self.record(one)}" for one in range(start + 1))
            self.assertLessEqual(reached - first, most, f"start {start} lost too much:\n{told}")
            reached = max([first, *steps])


if __name__ == "__main__":
    unittest.main()
