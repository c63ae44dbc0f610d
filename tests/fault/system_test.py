"""What the operating system can refuse: the same typed error on every rank, soon, and no damage."""

import json
import os
import shutil
import unittest

from faults import RANKS, FaultCase, fault
from harness import BIN, Case, run, SAMPLE

ENGINES = ("direct", "mpio", "mpio-independent", "mpio-deflate", "async", "async-threads")


def errors_of(result):
    return [line for line in result.stdout.splitlines() if line.startswith("error ")]


class SystemFaults(FaultCase):
    def assert_same_error(self, result, code, *words, ranks=RANKS):
        errors = errors_of(result)
        self.assertEqual(len(errors), ranks, result.stdout + result.stderr)
        self.assertEqual(len(set(errors)), 1, errors)
        self.assertTrue(errors[0].startswith(f"error {code}:"), errors[0])
        for word in words:
            self.assertIn(word, errors[0])
        self.assertEqual(result.returncode, 2)

    def first(self, engine="direct"):
        path = self.dir / "step-00000001.h5"
        self.assertEqual(self.sample_save(path, 1, 1, engine=engine, ranks=RANKS).returncode, 0)

    def assert_first_survives(self, directory=None):
        directory = directory or self.dir
        self.assertIn("equal step=1", self.sample_load(directory, 1).stdout)
        self.assertEqual(sorted(p.name for p in directory.iterdir()), ["last", "step-00000001.h5"])

    def check_failure(self, engine, point, rank, action, *words):
        directory = self.start_of(engine, point, rank)
        result = self.sample_save(directory / "step-00000002.h5", 2, 2, engine=engine, ranks=RANKS,
                                  env=fault(point, rank, action))
        self.assert_same_error(result, "io", "save: ", f"rank {rank}", *words)
        self.assert_first_survives(directory)

    def test_full_write_on_any_rank(self):
        cases = [("direct", rank) for rank in range(RANKS)]
        cases += [("async", 0), ("async-threads", 1), ("async-large", 2), ("async-large-threads", 0)]
        self.check_all(self.check_failure, [(engine, "move.write", rank, "full", "No space left", ".partial")
                                            for engine, rank in cases])

    def test_full_disk_while_committing(self):
        # The first write and the seventh, which is that of the signature or, by mpio, the trailer.
        self.check_all(self.check_failure, [(engine, f"commit.write:{number}", 0, "full", "save: commit", "No space left")
                                            for engine in ("direct", "mpio", "async", "async-threads")
                                            for number in (1, 7)])

    def test_every_step_may_fail_on_any_rank(self):
        points = ["agree", "layout", "preflight", "move", "move.end", "durable", "durable.close", "commit"]
        cases = [("direct", point, rank) for point in points for rank in (0, RANKS - 1)]
        cases += [(engine, point, 0) for point in ("layout.skeleton", "commit.signature", "commit.sync", "publish",
                                                   "publish.rename")
                  for engine in ("direct", "mpio", "async")]
        self.check_all(self.check_failure, [(engine, point, rank, "error", f"'{point}'")
                                            for engine, point, rank in cases])

    def test_publishing_that_fails_on_another_rank_leaves_a_whole_checkpoint(self):
        # Rank 0 has renamed meanwhile: nobody calls it saved.
        for engine in ("direct", "async"):
            with self.subTest(engine=engine):
                directory = self.start_of(engine)
                result = self.sample_save(directory / "step-00000002.h5", 2, 2, engine=engine, ranks=RANKS,
                                          env=fault("publish", RANKS - 1, "error"))
                self.assert_same_error(result, "io", "save: publish", f"rank {RANKS - 1}")
                self.assertIn("equal step=2", self.sample_load(directory, 2).stdout)

    def test_failures_after_the_rename_leave_a_whole_checkpoint_and_say_so(self):
        for point in ("publish.renamed", "publish.linked"):
            with self.subTest(point=point):
                fault = {"CAIRN_FAULT": f"{point}:0:error"}
                result = self.sample_save(self.dir / "step-00000002.h5", 2, 2, ranks=RANKS, env=fault)
                self.assert_same_error(result, "io", "save: publish", "rank 0")
                self.assertIn("equal step=2", self.sample_load(self.dir, 2).stdout)

    def test_short_writes_are_completed(self):
        for rank in range(RANKS):
            fault = {"CAIRN_FAULT": f"move.write:{rank}:short"}
            path = self.dir / "step-00000001.h5"
            self.assertEqual(self.sample_save(path, 1, 1, ranks=RANKS, env=fault).returncode, 0)
            self.assertIn("equal step=1", self.sample_load(self.dir, 1).stdout)

    def test_a_bit_that_the_disk_got_wrong_is_found_at_load(self):
        path = self.dir / "step-00000001.h5"
        fault = {"CAIRN_FAULT": "move.write:1:flip"}
        self.assertEqual(self.sample_save(path, 1, 1, ranks=RANKS, env=fault).returncode, 0)
        result = self.sample_load(self.dir, 1, ranks=2)
        self.assert_same_error(result, "corrupt", "model/", "written by rank 1", str(path), ranks=2)
        self.assertNotIn("CHANGED", result.stdout)

    def test_unusable_directories(self):
        blocker = self.dir / "file"
        blocker.write_text("not a directory")
        for engine in ENGINES:
            with self.subTest(engine=engine):
                target = blocker / "step-00000001.h5"
                result = self.sample_save(target, 1, 1, engine=engine, ranks=RANKS)
                self.assertEqual(len(set(errors_of(result))), 1, result.stdout)
                self.assertEqual(len(errors_of(result)), RANKS, result.stdout)
                self.assertIn(str(blocker), result.stdout)

    def test_a_rank_that_never_comes_ends_the_job_by_the_watchdog(self):
        self.first()
        for point, step in (("move.enter", "open"), ("move.transfer", "write"), ("load.move.transfer", "read")):
            with self.subTest(point=point):
                stays = {"CAIRN_FAULT": f"{point}:1:stay"}
                loads = point.startswith("load")
                target = self.dir / "step-00000002.h5"
                result = (self.sample_load(self.dir, 1, cut="rows", engine="mpio-watchdog", ranks=RANKS, env=stays)
                          if loads else
                          self.sample_save(target, 2, 2, engine="mpio-watchdog", ranks=RANKS, env=stays))
                self.assertNotEqual(result.returncode, 0)
                self.assertEqual(errors_of(result), [])
                for rank in (0, 2):
                    self.assertRegex(result.stderr,
                                     f"cairn: rank {rank}: '[^']*step-0000000[12].h5[^']*': no progress within 3 s "
                                     f"in the step '{step}'")
                self.assertNotIn("cairn: rank 1:", result.stderr)
                self.assertIn("equal step=1", self.sample_load(self.dir, 1).stdout)
        # What the ended job left is no checkpoint, and does not stand in the way of the next save.
        self.assertEqual(self.sample_save(target, 2, 2, engine="mpio", ranks=RANKS).returncode, 0)
        self.assertIn("equal step=2", self.sample_load(self.dir, 2).stdout)

    def test_a_rank_that_never_comes_is_named_within_the_deadline(self):
        # In the background the thread stays, and the program goes on; at "stage" it is the program.
        cases = [(engine, point, 1) for engine, points in {
            "direct": ("agree", "move", "durable", "commit"), "direct-delta": ("delta",),
            "mpio": ("agree", "durable", "commit"),
            "async": ("stage", "preflight", "move", "durable", "commit"),
            "async-threads": ("stage", "move", "durable", "commit"),
            "async-large": ("stage.part:4",), "async-large-threads": ("stage.part:4",)}.items() for point in points]
        # Rank 0, whom others wait for in another way, and the last one.
        cases += [(engine, point, rank) for engine, point in (("direct", "agree"), ("direct", "commit"),
                                                              ("async", "stage"), ("async-threads", "move"))
                  for rank in (0, 2)]
        cases += [("async", "publish", 0)]
        self.check_all(self.check_that_it_is_named, cases, workers=2)

    def check_that_it_is_named(self, engine, point, rank):
        directory = self.start_of(engine, point, rank)
        result = self.sample_save(directory / "step-00000002.h5", 2, 2, engine=engine, ranks=RANKS,
                                  env=fault(point, rank, "stay") | {"CAIRN_SAMPLE_DEADLINE": "4"})
        self.assertNotEqual(result.returncode, 0)
        self.assertNotIn("saved", result.stdout.splitlines())
        self.assert_names(result, rank)
        self.assert_survives(directory, version=1, step=1)

    def assert_names(self, result, rank):
        # The first rank that gives up ends the job, so that not all get to say so.
        errors = errors_of(result)
        self.assertTrue(errors, result.stdout + result.stderr)
        for error in errors:
            self.assertRegex(error, f"^error timeout: .*rank {rank} did not come within 4 s")

    def test_a_rank_that_never_comes_to_a_load_is_named(self):
        # It reads together with all others, and with rank 0 alone.
        self.check_all(self.check_that_a_load_names_it, [("replicated",), ("pairs",)])

    def check_that_a_load_names_it(self, cut):
        result = self.sample_load(self.start_of(cut), 1, cut=cut, engine="direct-broadcast", ranks=RANKS,
                                  env=fault("load.replicated", 1, "stay") | {"CAIRN_SAMPLE_DEADLINE": "4"})
        self.assertNotEqual(result.returncode, 0)
        self.assert_names(result, 1)

    def test_a_copy_that_fails_while_it_streams(self):
        # The ranks that are fine have copied a part, and nobody will copy the rest.
        self.first()
        for engine in ("async-large", "async-large-threads"):
            with self.subTest(engine=engine):
                result = self.sample_save(self.dir / "step-00000002.h5", 2, 2, engine=engine, ranks=RANKS,
                                          env=fault("stage.part:4", 1, "error"))
                self.assert_same_error(result, "io", "save: stage: rank 1", "'stage.part'")
                self.assert_first_survives()

    def test_writes_that_fail_inside_mpi_io_never_pass_as_saved(self):
        # OMPIO either reports the failure, or says nothing (what is read back tells), or waits for ever.
        self.first()
        ends = set()
        for engine in ("mpio-independent", "mpio-cycles"):
            with self.subTest(engine=engine):
                result = self.sample_save(self.dir / "step-00000002.h5", 2, 2, engine=engine, ranks=RANKS,
                                          env={"CAIRN_SAMPLE_LIMIT": "65536"})
                self.assertNotEqual(result.returncode, 0)
                self.assertNotIn("saved", result.stdout)
                if errors_of(result):
                    self.assert_same_error(result, "io", "save: ")
                    ends.add("error")
                else:
                    self.assertIn("no progress within 3 s in the step 'write'", result.stderr)
                    ends.add("watchdog")
                self.assertIn("equal step=1", self.sample_load(self.dir, 1).stdout)
        self.assertIn("error", ends)

    def test_the_component_of_mpi_io_is_chosen_and_recorded(self):
        cases = [("mpio-ompio", None, "ompio"), ("mpio-romio", None, "romio"),
                 ("mpio", {"OMPI_MCA_io": "romio321"}, "romio321")]
        for engine, env, wanted in cases:
            with self.subTest(engine=engine, env=env):
                path = self.dir / "step-00000001.h5"
                saved = self.sample_save(path, 1, 1, engine=engine, ranks=RANKS, env=env)
                self.assertEqual(saved.returncode, 0, saved.stdout + saved.stderr)
                table = json.loads(run([BIN / "cairn", "inspect", "--json", path]).stdout)
                recorded = table["documents"]["provenance"]["mpi_io"]["io"]
                self.assertTrue(recorded.startswith(wanted), recorded)
                loaded = self.sample_load(self.dir, 1, cut="rows", engine=engine, ranks=2, env=env)
                self.assertIn("equal step=1", loaded.stdout, loaded.stderr)
        # The environment is stronger; what the error says to export works.
        other = self.sample_save(path, 1, 1, engine="mpio-ompio", ranks=RANKS, env={"OMPI_MCA_io": "romio321"})
        self.assert_same_error(other, "usage", "romio321", "export OMPI_MCA_io=ompio")
        told = self.sample_save(path, 1, 1, engine="mpio-ompio", ranks=RANKS, env={"OMPI_MCA_io": "ompio"})
        self.assertEqual(told.returncode, 0, told.stdout)

    def test_finalizing_mpi_completes_a_save_in_the_background(self):
        path = self.dir / "step-00000001.h5"
        done = self.sample_save(path, 1, 1, engine="async-finalize", ranks=RANKS)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("equal step=1", self.sample_load(self.dir, 1).stdout)
        fault = {"CAIRN_FAULT": "commit:1:error"}
        failed = self.sample_save(self.dir / "step-00000002.h5", 2, 2, engine="async-finalize",
                                  ranks=RANKS, env=fault)
        self.assertIn("injected fault", failed.stderr)
        self.assert_first_survives()

    def test_bad_files_are_refused_alike(self):
        path = self.dir / "step-00000001.h5"
        self.first()
        whole = path.read_bytes()
        (self.dir / "empty.h5").write_bytes(b"")
        (self.dir / "text.h5").write_text("hello\n" * 100)
        (self.dir / "cut.h5").write_bytes(whole[: len(whole) // 2])
        (self.dir / "shorter.h5").write_bytes(whole[:-1])
        (self.dir / "unsigned.h5").write_bytes(bytes(8) + whole[8:])
        newer = bytearray(whole)
        newer[-56:-52] = (99).to_bytes(4, "little")
        (self.dir / "newer.h5").write_bytes(newer)
        cases = {"missing.h5": "not_found", "empty.h5": "unsupported", "text.h5": "unsupported",
                 "cut.h5": "corrupt", "shorter.h5": "corrupt", "unsigned.h5": "corrupt",
                 "newer.h5": "corrupt"}
        for name, code in cases.items():
            with self.subTest(name=name):
                result = self.sample_load(self.dir / name, 1, ranks=RANKS)
                self.assert_same_error(result, code, name)

    def test_a_newer_format_is_told_from_damage(self):
        self.first()
        path = self.dir / "step-00000001.h5"
        data = bytearray(path.read_bytes())
        at = data.rindex(b'"format_version":1')
        self.assertGreater(at, 0)
        data[at : at + 18] = b'"format_version":7'
        path.write_bytes(data)
        self.assert_same_error(self.sample_load(path, 1, ranks=RANKS), "corrupt", "commit record")


@unittest.skipUnless(os.geteuid() == 0 and shutil.which("unshare"),
                     "LOUD: a small tmpfs needs root and unshare; full and read-only disks are untested")
class OwnFileSystem(Case):
    def test_read_only(self):
        for engine in ENGINES:
            with self.subTest(engine=engine):
                script = (
                    f"mount -t tmpfs none {self.dir} && "
                    f"mpirun --oversubscribe -n 3 {SAMPLE} save {self.dir}/step-00000001.h5 1 1 rows {engine} && "
                    f"mount -o remount,ro {self.dir} && "
                    f"mpirun --oversubscribe -n 3 {SAMPLE} save {self.dir}/step-00000002.h5 2 2 rows {engine}; "
                    f"mpirun --oversubscribe -n 2 {SAMPLE} load {self.dir} 1 flat {engine}")
                result = run(["unshare", "--mount", "sh", "-c", script], timeout=120)
                errors = errors_of(result)
                self.assertEqual(len(errors), 3, result.stdout + result.stderr)
                self.assertEqual(len(set(errors)), 1)
                self.assertTrue(errors[0].startswith("error io: save: "), errors[0])
                self.assertIn("Read-only file system", errors[0])
                self.assertIn("equal step=1", result.stdout)

    def test_read_only_on_one_rank(self):
        # One directory, mounted twice: writable for all ranks but one.
        for engine in ENGINES:
            with self.subTest(engine=engine):
                script = (
                    f"mount -t tmpfs none {self.dir} && cd {self.dir} && mkdir rw ro && "
                    f"mount --bind rw ro && mount -o remount,ro,bind ro && "
                    f"mpirun --oversubscribe -n 3 sh -c 'test $OMPI_COMM_WORLD_RANK = 1 && cd ro || cd rw; "
                    f"exec {SAMPLE} save step-00000001.h5 1 1 rows {engine}'; ls -A rw")
                result = run(["unshare", "--mount", "sh", "-c", script], timeout=120)
                errors = errors_of(result)
                self.assertEqual(len(errors), 3, result.stdout + result.stderr)
                self.assertEqual(len(set(errors)), 1)
                self.assertTrue(errors[0].startswith("error io: save: move: rank 1"), errors[0])
                self.assertIn("Read-only file system", errors[0])
                self.assertNotIn("step-", result.stdout.replace(errors[0], ""))

    def test_small_tmpfs(self):
        # 2 MiB for a checkpoint of about 1.3 MiB: the first fits, the second does not.
        for engine in ENGINES:
            with self.subTest(engine=engine):
                script = (
                    f"mount -t tmpfs -o size=2m none {self.dir} && "
                    f"mpirun --oversubscribe -n 3 {SAMPLE} save {self.dir}/step-00000001.h5 1 1 rows {engine} && "
                    f"mpirun --oversubscribe -n 3 {SAMPLE} save {self.dir}/step-00000002.h5 2 2 rows {engine}; "
                    f"ls -a {self.dir}; "
                    f"mpirun --oversubscribe -n 2 {SAMPLE} load {self.dir} 1 flat {engine}")
                result = run(["unshare", "--mount", "sh", "-c", script], timeout=120)
                errors = errors_of(result)
                self.assertEqual(len(errors), 3, result.stdout + result.stderr)
                self.assertEqual(len(set(errors)), 1)
                self.assertIn("error io: save: preflight: rank 0", errors[0])
                self.assertIn("No space left", errors[0])
                self.assertNotIn("partial\n", result.stdout)
                self.assertIn("equal step=1", result.stdout)

    def test_compressed_values_need_no_room_twice(self):
        # Room for what is reserved before the move; after it, what is left is less than the file itself.
        size = 1700 << 10
        file = f"{self.dir}/step-00000001.h5"
        script = (f"mount -t tmpfs -o size={size} none {self.dir} && "
                  f"mpirun --oversubscribe -n 3 {SAMPLE} save {file} 1 1 rows mpio-deflate; stat -c 'bytes=%s' {file}; "
                  f"mpirun --oversubscribe -n 2 {SAMPLE} load {self.dir} 1 flat direct")
        result = run(["unshare", "--mount", "sh", "-c", script], timeout=120)
        self.assertEqual(result.stdout.split("\n")[0], "saved", result.stdout + result.stderr)
        self.assertGreater(2 * int(result.stdout.split("bytes=")[1].split()[0]), size, "this tests nothing")
        self.assertIn("equal step=1", result.stdout)


if __name__ == "__main__":
    unittest.main()
