"""find_package(cairn) from an installed tree, by a C++-only project that sees no private header."""

import os
import unittest

from harness import BIN, Case, ROOT, run


class Package(Case):
    def test_installed_package_builds_and_runs_a_consumer(self):
        prefix = self.dir / "prefix"
        build = self.dir / "build"
        steps = [
            ["cmake", "--install", BIN.parent, "--prefix", prefix],
            ["cmake", "-G", "Ninja", "-S", ROOT / "tests/package/consumer", "-B", build,
             f"-DCMAKE_PREFIX_PATH={prefix}"],
            ["cmake", "--build", build],
        ]
        for step in steps:
            result = run(step, timeout=200)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        run_dir = self.dir / "run"
        result = run([build / "consumer", run_dir], ranks=3)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertTrue((run_dir / "step-00000007.h5").exists())
        installed = [p.name for p in (prefix / "include").rglob("*.hpp")]
        self.assertIn("checkpoint.hpp", installed)
        self.assertNotIn("h5.hpp", installed)


if __name__ == "__main__":
    unittest.main()
