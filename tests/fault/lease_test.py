"""A job that is killed while it holds the lease of its run is in nobody's way; one that lives is."""

import os
import subprocess
import time
import unittest

from harness import ENVIRONMENT, SAMPLE, Case

LEASE = {"CAIRN_SAMPLE_LEASE": "1"}


class Lease(Case):
    def files(self):
        return sorted(path.name for path in self.dir.iterdir())

    def test_the_lease_of_a_killed_writer_is_taken_over(self):
        first, second = self.dir / "step-00000001.h5", self.dir / "step-00000002.h5"
        self.assertEqual(self.sample_save(first, 1, 1, env=LEASE).returncode, 0)
        self.assertEqual(self.files(), ["last", first.name])
        died = self.sample_save(second, 2, 2, env=LEASE | {"CAIRN_FAULT": "commit.signature:0:kill"})
        self.assertNotEqual(died.returncode, 0)
        self.assertIn(".lease", self.files())
        self.assertIn(first.name, self.files(), "removed before the next one was committed")
        again = self.sample_save(second, 2, 3, env=LEASE)
        self.assertEqual(again.returncode, 0, again.stdout + again.stderr)
        self.assertEqual(self.files(), ["last", second.name])
        self.assertIn("equal step=2", self.sample_load(self.dir, 3).stdout)

    def test_a_second_job_is_refused_while_the_first_one_lives(self):
        target = self.dir / "step-00000001.h5"
        words = ["mpirun", "--oversubscribe", "-n", "1", SAMPLE, "save", target, "1", "1", "rows", "direct"]
        holder = subprocess.Popen([str(word) for word in words], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
                                  env=os.environ | ENVIRONMENT | LEASE | {"CAIRN_FAULT": "commit.write:0:stay"})
        try:
            # It holds the lease before it makes the partial file.
            deadline = time.monotonic() + 60
            while not (self.dir / ".step-00000001.h5.partial").exists():
                self.assertLess(time.monotonic(), deadline)
                self.assertIsNone(holder.poll())
                time.sleep(0.05)
            second = self.sample_save(target, 1, 2, env=LEASE)
            self.assertEqual(second.returncode, 2, second.stdout + second.stderr)
            self.assertEqual(second.stdout.count("error refused: "), 2, second.stdout)
            self.assertIn("is in use by", second.stdout)
        finally:
            holder.terminate()
            holder.wait(timeout=60)
        third = self.sample_save(target, 1, 3, env=LEASE)
        self.assertEqual(third.returncode, 0, third.stdout + third.stderr)
        self.assertIn("equal step=1", self.sample_load(self.dir, 3).stdout)


if __name__ == "__main__":
    unittest.main()
