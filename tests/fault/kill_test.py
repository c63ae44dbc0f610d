"""SIGKILL of any one rank at any step of a save: the previous checkpoint loads, nothing hangs."""

import concurrent.futures
import pathlib
import shutil
import tempfile
import unittest

from harness import Case, SAMPLE, run

RANKS = 3
# Every step of the protocol; True: passed by every rank, False: by rank 0 alone.
POINTS = {
    "agree": True,
    "layout": True,
    "layout.skeleton": False,
    "preflight": True,
    "move": True,
    "move.write": True,
    "move.end": True,
    "durable": True,
    "durable.close": True,
    "commit": True,
    "commit.write": False,
    "commit.signature": False,
    "commit.sync": False,
    "publish": True,
    "publish.rename": False,
    "publish.renamed": False,
    "publish.linked": False,
}
# Inside parallel HDF5, between its open and its last transfer.
MPIO_POINTS = {"move.open": True, "move.transfer": True}
# Only in the background: before the copy, and within it, when some parts are copied.
ASYNC_POINTS = {"stage": True, "stage.part:9": True}
# With more to copy than the budget has room for: within the copy, when there is no room for more, and within the
# writes that make room.
STREAM_POINTS = ("stage.part:2", "stage.full", "move.write")
# From the rename on the new checkpoint is there, whatever happens next.
PUBLISHED = {"publish.renamed", "publish.linked"}


class Kill(Case):
    @classmethod
    def setUpClass(cls):
        """The checkpoint that has to survive, as every case finds it."""
        cls.before = pathlib.Path(tempfile.mkdtemp(prefix="cairn-test-"))
        cls.addClassCleanup(shutil.rmtree, cls.before, ignore_errors=True)
        saved = run([SAMPLE, "save", cls.before / "step-00000001.h5", 1, 1, "rows", "direct"], ranks=RANKS)
        assert saved.returncode == 0, saved.stdout + saved.stderr

    def check(self, engine, point, rank):
        point, _, number = point.partition(":")
        directory = self.dir / f"{engine}-{point}-{number}-{rank}"
        shutil.copytree(self.before, directory, symlinks=True)
        second = directory / "step-00000002.h5"
        # mpirun leaves the other ranks a second, in which they must not do what is wrong.
        fault = {"CAIRN_FAULT": f"{point}:{rank}:kill:{number or 1}", "OMPI_MCA_odls_base_sigkill_timeout": "1"}
        died = self.sample_save(second, 2, 2, engine=engine, ranks=RANKS, env=fault)
        self.assertNotEqual(died.returncode, 0, died.stdout)
        self.assertNotIn("saved", died.stdout)
        published = point in PUBLISHED
        # The other ranks may have been past the point: "publish" of another rank than 0.
        if point == "publish" and rank != 0 and second.exists():
            published = True
        version, step = (2, 2) if published else (1, 1)
        # The survivor loads, and the same step can be saved again over what the killed job left.
        after = run([SAMPLE, "load", directory, version, "flat", "direct",
                     "then", "save", second, 2, 3, "rows", engine.partition("-")[0],
                     "then", "load", directory, 3, "flat", "direct"], ranks=2)
        self.assertEqual(after.returncode, 0, after.stdout + after.stderr)
        self.assertEqual(after.stdout.splitlines(), [f"equal step={step}", "saved", "equal step=2"])
        left = sorted(p.name for p in directory.iterdir())
        self.assertEqual(left, ["last", "step-00000001.h5", "step-00000002.h5"])

    def every_point(self, engine):
        points = POINTS | {"direct": {}, "mpio": MPIO_POINTS, "mpio-deflate": MPIO_POINTS}.get(engine, ASYNC_POINTS)
        if engine.startswith("mpio"):
            points.pop("move.write")  # the mpio engine's writes are inside MPI-IO
        cases = [(point, rank) for point, on_every_rank in points.items()
                 for rank in ((0, 1, RANKS - 1) if on_every_rank else (0,))]
        self.check_all(engine, cases)

    def check_all(self, engine, cases):
        # A case waits more than it computes.
        with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
            checks = [pool.submit(self.check, engine, *case) for case in cases]
        for (point, rank), check in zip(cases, checks):
            with self.subTest(engine=engine, point=point, rank=rank):
                check.result()

    def test_direct(self):
        self.every_point("direct")

    def test_mpio(self):
        self.every_point("mpio")

    def test_mpio_with_filters(self):
        self.every_point("mpio-deflate")

    def test_a_delta(self):
        self.check_all("direct-delta", [("delta", 0), ("delta", RANKS - 1), ("layout.skeleton", 0),
                                        ("commit.signature", 0), ("publish.renamed", 0)])

    def test_in_the_background(self):
        self.every_point("async")

    def test_in_the_background_with_threads(self):
        self.every_point("async-threads")

    def test_in_the_background_over_the_budget(self):
        for engine in ("async-large", "async-large-threads"):
            self.check_all(engine, [(point, rank) for point in STREAM_POINTS for rank in (0, RANKS - 1)])


if __name__ == "__main__":
    unittest.main()
