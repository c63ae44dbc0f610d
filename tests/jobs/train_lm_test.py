#!/usr/bin/python3
"""train_lm under MPI: what is interrupted and resumed is what was never interrupted.

The programs are those of $CAIRN_BIN, by default build/bin of this tree.
"""

import os
import re
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("CAIRN_BIN", ROOT / "build" / "bin"))
TIMEOUT_S = 60

PARALLEL = ("ddp", "tp", "zero")
ENGINES = ("direct", "mpio")
SMALL = ["--layers", "2", "--width", "32", "--heads", "4", "--context", "32", "--batch", "4",
         "--log-every", "0"]

RESUMED = re.compile(r"^resumed step=(\d+) params_digest=([0-9a-f]{32}) "
                     r"state_digest=([0-9a-f]{32}) from (\S+)", re.MULTILINE)
DONE = re.compile(r"^done step=\d+ loss=\S+ params_digest=[0-9a-f]{32}$", re.MULTILINE)


def mpi_environment():
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMPI_MCA_mpi_yield_when_idle="1",
                       OMPI_MCA_hwloc_base_binding_policy="none")
    if os.geteuid() == 0:
        environment.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    return environment


def launch(ranks, *flags):
    """Runs train_lm; gives (exit code, stdout, stderr). A run past its time is killed with its ranks."""
    command = ["mpirun", "--oversubscribe", "-n", str(ranks), str(BIN / "train_lm"), *SMALL,
               *map(str, flags)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, env=mpi_environment(),
                          start_new_session=True) as process:
        try:
            output, errors = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # mpirun passes SIGTERM on to its ranks, which are sessions of their own.
            process.terminate()
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, output, errors


class TrainLmTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory(prefix="train_lm-")
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)

    def train(self, ranks, *flags):
        code, output, errors = launch(ranks, *flags)
        self.assertEqual(code, 0, f"{flags} on {ranks} ranks:\n{output}{errors}")
        return output

    def done_line(self, output):
        lines = DONE.findall(output)
        self.assertEqual(len(lines), 1, output)
        self.assertTrue(output.endswith(lines[0] + "\n"), output)
        return lines[0]

    def resumed(self, output):
        match = RESUMED.search(output)
        self.assertIsNotNone(match, output)
        step, params, state, source = match.groups()
        return int(step), params, state, Path(source)

    def assert_dies(self, ranks, *flags):
        code, output, errors = launch(ranks, *flags)
        self.assertNotEqual(code, 0, output + errors)
        self.assertNotIn("done step=", output)
        self.assertIn("signal 9", errors)

    def test_interrupted_and_resumed_equals_uninterrupted(self):
        for parallel in PARALLEL:
            for engine in ENGINES:
                with self.subTest(parallel=parallel, engine=engine):
                    common = ["--parallel", parallel, "--engine", engine, "--steps", 8,
                              "--save-every", 3]
                    whole = self.scratch / f"{parallel}-{engine}-whole"
                    broken = self.scratch / f"{parallel}-{engine}-broken"
                    expected = self.done_line(self.train(2, *common, "--dir", whole))
                    self.assert_dies(2, *common, "--dir", broken, "--die-at", "6:1")
                    self.assertFalse((broken / "step-00000006.h5").exists())
                    output = self.train(2, *common, "--dir", broken)
                    step, _, _, source = self.resumed(output)
                    self.assertEqual(step, 3, "the newest committed checkpoint is the one before")
                    self.assertEqual(source.name, "step-00000003.h5")
                    self.assertIn("random state restored", output)
                    self.assertEqual(self.done_line(output), expected)
                    again = self.train(2, *common, "--dir", broken)
                    self.assertEqual(self.resumed(again)[0], 8)
                    self.assertEqual(self.done_line(again), expected)

    def test_any_number_of_ranks_continues_from_the_same_tensors(self):
        for parallel in PARALLEL:
            for engine in ENGINES:
                with self.subTest(parallel=parallel, engine=engine):
                    run = self.scratch / f"{parallel}-{engine}"
                    common = ["--parallel", parallel, "--engine", engine, "--steps", 3,
                              "--dir", run]
                    saved = self.done_line(self.train(4, *common))
                    expected = self.resumed(self.train(4, *common))
                    self.assertTrue(saved.endswith(f"params_digest={expected[1]}"), saved)
                    for ranks in (1, 2, 3):
                        output = self.train(ranks, *common)
                        self.assertEqual(self.resumed(output), expected, f"on {ranks} ranks")
                        self.assertEqual(self.done_line(output), saved)
                        self.assertIn("random state reseeded", output)

    def test_another_division_continues_from_the_same_tensors(self):
        run = self.scratch / "tp"
        self.train(4, "--parallel", "tp", "--steps", 3, "--dir", run)
        expected = self.resumed(self.train(4, "--parallel", "tp", "--steps", 3, "--dir", run))
        for parallel in ("ddp", "zero"):
            with self.subTest(parallel=parallel):
                for ranks in (3, 4):
                    output = self.train(ranks, "--parallel", parallel, "--steps", 3, "--dir", run)
                    self.assertEqual(self.resumed(output), expected)
                    self.assertIn("random state reseeded", output)

    def test_more_ranks_than_samples_and_heads(self):
        for parallel in PARALLEL:
            with self.subTest(parallel=parallel):
                common = ["--parallel", parallel, "--batch", 2, "--heads", 2, "--save-every", 2]
                whole = self.scratch / f"{parallel}-whole"
                broken = self.scratch / f"{parallel}-broken"
                expected = self.done_line(self.train(3, *common, "--steps", 4, "--dir", whole))
                self.train(3, *common, "--steps", 2, "--dir", broken)
                output = self.train(3, *common, "--steps", 4, "--dir", broken)
                self.assertEqual(self.resumed(output)[0], 2)
                self.assertEqual(self.done_line(output), expected)

    def test_resume_names_a_checkpoint_or_a_run(self):
        run = self.scratch / "run"
        common = ["--save-every", 2, "--dir"]
        self.train(2, "--steps", 4, *common, run)
        other = self.scratch / "other"
        for source, step in ((run, 4), (run / "step-00000002.h5", 2)):
            output = self.train(2, "--steps", 4, *common, other, "--resume", source)
            self.assertEqual(self.resumed(output)[0], step)
        self.assertNotIn("resumed", self.train(2, "--steps", 1, *common, run, "--resume", "none"))

    def test_configuration_file_lies_below_the_flags(self):
        config = self.scratch / "cairn.yaml"
        run = self.scratch / "from-file"
        config.write_text(f"save: {{dir: {run}, every_n_steps: 2, engine: mpio}}\n")
        output = self.train(2, "--steps", 4, "--config", config, "--engine", "direct")
        self.assertIn("engine=direct", output)
        self.assertTrue((run / "step-00000002.h5").exists())
        self.assertTrue((run / "step-00000004.h5").exists())

    def test_bad_requests_are_refused_by_all_ranks(self):
        cases = [
            (["--heads", 3], "--heads 3 does not divide --width 32"),
            (["--steps", -1], "--steps"),
            (["--batch", 0], "--batch 0"),
            (["--parallel", "pipeline"], "ddp, tp, zero"),
            (["--engine", "tape"], "tape"),
            (["--die-at", "5"], "STEP:RANK"),
            (["--die-at", "100:2"], "ranks are 0 to 1"),
            (["--die-at", "7:0"], "nothing is saved"),
            (["--data", self.scratch / "none.txt"], "none.txt"),
            (["--config", self.scratch / "none.yaml"], "none.yaml"),
            (["--resume", self.scratch / "none.h5"], "none.h5"),
            (["--bogus"], "--bogus"),
        ]
        for flags, text in cases:
            with self.subTest(flags=flags):
                code, output, errors = launch(2, "--dir", self.scratch / "run", *flags)
                self.assertEqual(code, 2, output + errors)
                self.assertIn(text, errors)
                self.assertEqual(errors.count("train_lm: "), 1, errors)


if __name__ == "__main__":
    unittest.main(verbosity=2)
