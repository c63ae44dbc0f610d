"""shellcheck has nothing to say about any script of the project."""

import subprocess
import unittest

from harness import ROOT


class Shell(unittest.TestCase):
    def test_shellcheck_is_content(self):
        names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.sh", "*.sbatch", ".ci/run"],
                               capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
        self.assertIn("jobs/train.sbatch", names)
        done = subprocess.run(["shellcheck", "-x", *names], capture_output=True, text=True, cwd=ROOT)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    unittest.main()
