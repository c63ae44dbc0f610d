"""train_lm under MPI: what is interrupted and resumed is what was never interrupted."""

import json
import pathlib
import re
import unittest

from harness import BIN, Case, run

PARALLEL = ("ddp", "tp", "zero")
ENGINES = ("direct", "mpio")
SMALL = ["--layers", "2", "--width", "32", "--heads", "4", "--context", "32", "--batch", "4",
         "--log-every", "0"]

RESUMED = re.compile(r"^resumed step=(\d+) params_digest=([0-9a-f]{32}) "
                     r"state_digest=([0-9a-f]{32}) from (\S+)", re.MULTILINE)
STOPPED = re.compile(r"^stopped step=(\d+) reason=(.+) exit=85 params_digest=([0-9a-f]{32})$", re.MULTILINE)
DONE = re.compile(r"^done step=\d+ loss=\S+ params_digest=[0-9a-f]{32}$", re.MULTILINE)

REQUEUE = 85  # cairn::kExitRequeue

# The ranks share few cores.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMPI_MCA_mpi_yield_when_idle": "1",
               "OMPI_MCA_hwloc_base_binding_policy": "none"}


def launch(ranks, *flags, env=None):
    return run([BIN / "train_lm", *SMALL, *flags], ranks=ranks, env={**ENVIRONMENT, **(env or {})})


class TrainLm(Case):
    def train(self, ranks, *flags):
        job = launch(ranks, *flags)
        self.assertEqual(job.returncode, 0, f"{flags} on {ranks} ranks:\n{job.stdout}{job.stderr}")
        return job.stdout

    def done_line(self, output):
        lines = DONE.findall(output)
        self.assertEqual(len(lines), 1, output)
        self.assertTrue(output.endswith(lines[0] + "\n"), output)
        return lines[0]

    def resumed(self, output):
        match = RESUMED.search(output)
        self.assertIsNotNone(match, output)
        step, params, state, source = match.groups()
        return int(step), params, state, pathlib.Path(source)

    def stopped(self, ranks, *flags, env=None):
        """Runs a job that stops early; its step, why, and what it says on stderr."""
        job = launch(ranks, *flags, env=env)
        self.assertEqual(job.returncode, REQUEUE, job.stdout + job.stderr)
        match = STOPPED.search(job.stdout)
        self.assertIsNotNone(match, job.stdout)
        self.assertNotIn("done step=", job.stdout)
        return int(match.group(1)), match.group(2), job.stderr

    def assert_dies(self, ranks, *flags):
        job = launch(ranks, *flags)
        self.assertNotEqual(job.returncode, 0, job.stdout + job.stderr)
        self.assertNotIn("done step=", job.stdout)
        self.assertIn("signal 9", job.stderr)

    def test_saving_in_the_background_changes_nothing(self):
        common = ["--steps", 8, "--save-every", 2]
        for parallel in PARALLEL:
            with self.subTest(parallel=parallel):
                plain, behind, broken = (self.dir / f"{parallel}-{name}" for name in
                                         ("plain", "behind", "broken"))
                expected = self.done_line(self.train(2, *common, "--parallel", parallel,
                                                     "--dir", plain))
                common_async = [*common, "--parallel", parallel, "--async"]
                self.assertEqual(self.done_line(self.train(2, *common_async, "--dir", behind)),
                                 expected)
                for step in (2, 8):
                    name = f"step-{step:08}.h5"
                    done = run([BIN / "cairn", "diff", plain / name, behind / name], ranks=2)
                    self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.assert_dies(2, *common_async, "--dir", broken, "--die-at", "6:1")
                output = self.train(3 if parallel == "ddp" else 2, *common_async, "--dir", broken)
                self.assertIn(self.resumed(output)[0], (4, 6))  # step 6 may have been complete
                if parallel != "ddp":
                    self.assertEqual(self.done_line(output), expected)

    def test_interrupted_and_resumed_equals_uninterrupted(self):
        for parallel in PARALLEL:
            for engine in ENGINES:
                with self.subTest(parallel=parallel, engine=engine):
                    common = ["--parallel", parallel, "--engine", engine, "--steps", 8,
                              "--save-every", 3]
                    whole = self.dir / f"{parallel}-{engine}-whole"
                    broken = self.dir / f"{parallel}-{engine}-broken"
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

    def test_a_signal_on_one_rank_stops_all_and_the_requeued_job_ends_as_if_undisturbed(self):
        common = ["--parallel", "zero", "--steps", 24, "--save-every", 20]
        expected = self.done_line(self.train(3, *common, "--dir", self.dir / "whole"))
        broken = self.dir / "broken"
        step, reason, _ = self.stopped(3, *common, "--dir", broken, "--signal-at", "3:2",
                                       "--step-ms", 60)
        self.assertEqual(reason, "signal")
        self.assertTrue(3 <= step < 20, step)
        output = self.train(3, *common, "--dir", broken)
        self.assertEqual(self.resumed(output)[0], step)
        self.assertEqual(self.done_line(output), expected)

    def test_a_job_stops_before_its_time_is_over(self):
        common = ["--steps", 100000, "--save-every", 1, "--dir", self.dir / "run"]
        step, reason, told = self.stopped(2, *common, "--step-ms", 20, "--time-limit", 3,
                                          env={"SLURM_JOB_ID": "1"})
        self.assertEqual(reason, "time limit")
        self.assertRegex(told, r"for this job: --signal=B:USR1@\d+0\n")
        output = self.train(2, *common, "--steps", step)
        self.assertEqual(self.resumed(output)[0], step)

    def test_any_number_of_ranks_continues_from_the_same_tensors(self):
        for parallel in PARALLEL:
            for engine in ENGINES:
                with self.subTest(parallel=parallel, engine=engine):
                    run = self.dir / f"{parallel}-{engine}"
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
        run = self.dir / "tp"
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
                whole = self.dir / f"{parallel}-whole"
                broken = self.dir / f"{parallel}-broken"
                expected = self.done_line(self.train(3, *common, "--steps", 4, "--dir", whole))
                self.train(3, *common, "--steps", 2, "--dir", broken)
                output = self.train(3, *common, "--steps", 4, "--dir", broken)
                self.assertEqual(self.resumed(output)[0], 2)
                self.assertEqual(self.done_line(output), expected)

    def test_resume_names_a_checkpoint_or_a_run(self):
        run = self.dir / "run"
        common = ["--save-every", 2, "--dir"]
        self.train(2, "--steps", 4, *common, run)
        other = self.dir / "other"
        for source, step in ((run, 4), (run / "step-00000002.h5", 2)):
            output = self.train(2, "--steps", 4, *common, other, "--resume", source)
            self.assertEqual(self.resumed(output)[0], step)
        self.assertNotIn("resumed", self.train(2, "--steps", 1, *common, run, "--resume", "none"))

    def test_configuration_file_lies_below_the_flags(self):
        config = self.dir / "cairn.yaml"
        run = self.dir / "from-file"
        config.write_text(f"save: {{dir: {run}, every_n_steps: 2, engine: mpio}}\n")
        output = self.train(2, "--steps", 4, "--config", config, "--engine", "direct")
        self.assertIn("engine=direct", output)
        self.assertTrue((run / "step-00000002.h5").exists())
        self.assertTrue((run / "step-00000004.h5").exists())

    def test_frozen_layers_stay_as_they_are_from_the_first_start_on(self):
        config = self.dir / "cairn.yaml"
        config.write_text("model_modifier: {modifiers: [{type: freeze, layers: [block0, token_embedding]}]}\n")
        for parallel in PARALLEL:
            with self.subTest(parallel=parallel):
                run_dir = self.dir / parallel
                common = ["--config", config, "--parallel", parallel, "--save-every", 1, "--dir", run_dir,
                          "--batch", 2]  # the third rank has no samples where the batch is divided
                self.train(3, *common, "--steps", 2)
                last = 2
                if parallel == "ddp":
                    last = 3
                    self.assertEqual(self.resumed(self.train(3, *common, "--steps", last))[0], 2)
                first, then = (self.weights(run_dir / f"step-{step:08}.h5") for step in (1, last))
                self.assertEqual({name for name in first if then[name] != first[name]},
                                 {name for name in first
                                  if not name.startswith(("model/block0.", "model/token_embedding."))})

    def weights(self, path):
        """The digest of each of the model's tensors, by name."""
        shown = run([BIN / "cairn", "inspect", path, "--json"])
        self.assertEqual(shown.returncode, 0, shown.stderr)
        return {tensor["name"]: tensor["crc64"] for tensor in json.loads(shown.stdout)["tensors"]
                if tensor["name"].startswith("model/")}

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
            (["--data", self.dir / "none.txt"], "none.txt"),
            (["--config", self.dir / "none.yaml"], "none.yaml"),
            (["--resume", self.dir / "none.h5"], "none.h5"),
            (["--bogus"], "--bogus"),
        ]
        for flags, text in cases:
            with self.subTest(flags=flags):
                job = launch(2, "--dir", self.dir / "run", *flags)
                self.assertEqual(job.returncode, 2, job.stdout + job.stderr)
                self.assertIn(text, job.stderr)
                self.assertEqual(job.stderr.count("train_lm: "), 1, job.stderr)


if __name__ == "__main__":
    unittest.main()
