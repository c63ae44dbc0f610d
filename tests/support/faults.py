"""What the tests share that make a program fail at a point of CAIRN_FAULT (src/os/fault.hpp)."""

import concurrent.futures
import pathlib
import shutil
import tempfile

from harness import Case, SAMPLE, run

RANKS = 3


def fault(point, rank, action):
    """The environment in which a rank does that at a point; "POINT:N": at its Nth pass."""
    point, _, number = point.partition(":")
    return {"CAIRN_FAULT": f"{point}:{rank}:{action}:{number or 1}"}


class FaultCase(Case):
    """Cases that each start with a directory that holds the checkpoint of step 1, version 1."""

    @classmethod
    def setUpClass(cls):
        cls.before = pathlib.Path(tempfile.mkdtemp(prefix="cairn-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.before, ignore_errors=True)
        saved = run([SAMPLE, "save", cls.before / "step-00000001.h5", 1, 1, "rows", "direct"], ranks=RANKS)
        assert saved.returncode == 0, saved.stdout + saved.stderr

    def start_of(self, *case):
        """A new directory as every case finds it."""
        directory = self.dir / "-".join(str(word).replace(":", ".") for word in case)
        return shutil.copytree(self.before, directory, symlinks=True)

    def assert_survives(self, directory, version, step, again="direct"):
        """The newest checkpoint is that one; step 2 can be saved over what is left, and nothing else stays."""
        second = directory / "step-00000002.h5"
        after = run([SAMPLE, "load", directory, version, "flat", "direct",
                     "then", "save", second, 2, 3, "rows", again,
                     "then", "load", directory, 3, "flat", "direct"], ranks=2)
        self.assertEqual(after.returncode, 0, after.stdout + after.stderr)
        self.assertEqual(after.stdout.splitlines(), [f"equal step={step}", "saved", "equal step=2"])
        left = sorted(path.name for path in directory.iterdir())
        self.assertEqual(left, ["last", "step-00000001.h5", "step-00000002.h5"])

    def check_all(self, check, cases, workers=4):
        """Runs check(*case) for each case, several at a time, because they wait more than they compute."""
        with concurrent.futures.ThreadPoolExecutor(max_workers=workers) as pool:
            checks = [pool.submit(check, *case) for case in cases]
        for case, done in zip(cases, checks):
            with self.subTest(case=case):
                done.result()
