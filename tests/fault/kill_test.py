"""SIGKILL of any one rank at any step of a save: the previous checkpoint loads, nothing hangs."""

import unittest

from harness import Case

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
# Only in the background.
ASYNC_POINTS = {"stage": True}
# From the rename on the new checkpoint is there, whatever happens next.
PUBLISHED = {"publish.renamed", "publish.linked"}


class Kill(Case):
    def check(self, engine, point, rank):
        first = self.dir / "step-00000001.h5"
        second = self.dir / "step-00000002.h5"
        self.assertEqual(self.sample_save(first, 1, 1, ranks=RANKS).returncode, 0)
        fault = {"CAIRN_FAULT": f"{point}:{rank}:kill"}
        died = self.sample_save(second, 2, 2, engine=engine, ranks=RANKS, env=fault)
        self.assertNotEqual(died.returncode, 0, died.stdout)
        self.assertNotIn("saved", died.stdout)
        published = point in PUBLISHED
        # The other ranks may have been past the point: "publish" of another rank than 0.
        if point == "publish" and rank != 0 and second.exists():
            published = True
        version, step = (2, 2) if published else (1, 1)
        loaded = self.sample_load(self.dir, version, ranks=2)
        self.assertEqual(loaded.returncode, 0, loaded.stdout + loaded.stderr)
        self.assertIn(f"equal step={step}", loaded.stdout)
        # The same step can be saved again over what the killed job left.
        again = self.sample_save(second, 2, 3, engine=engine.partition("-")[0], ranks=2)
        self.assertEqual(again.returncode, 0, again.stdout + again.stderr)
        self.assertIn("equal step=2", self.sample_load(self.dir, 3).stdout)
        left = sorted(p.name for p in self.dir.iterdir())
        self.assertEqual(left, ["last", "step-00000001.h5", "step-00000002.h5"])

    def every_point(self, engine):
        points = POINTS | {"direct": {}, "mpio": MPIO_POINTS, "mpio-deflate": MPIO_POINTS}.get(engine, ASYNC_POINTS)
        for point, on_every_rank in points.items():
            if engine.startswith("mpio") and point == "move.write":
                continue  # the mpio engine's writes are inside MPI-IO
            for rank in (0, 1, RANKS - 1) if on_every_rank else (0,):
                with self.subTest(engine=engine, point=point, rank=rank):
                    for file in self.dir.iterdir():
                        file.unlink()
                    self.check(engine, point, rank)

    def test_direct(self):
        self.every_point("direct")

    def test_mpio(self):
        self.every_point("mpio")

    def test_mpio_with_filters(self):
        self.every_point("mpio-deflate")

    def test_a_delta(self):
        for point, rank in (("delta", 0), ("delta", RANKS - 1), ("layout.skeleton", 0), ("commit.signature", 0),
                            ("publish.renamed", 0)):
            with self.subTest(point=point, rank=rank):
                for file in self.dir.iterdir():
                    file.unlink()
                self.check("direct-delta", point, rank)

    def test_in_the_background(self):
        self.every_point("async")

    def test_in_the_background_with_threads(self):
        self.every_point("async-threads")


if __name__ == "__main__":
    unittest.main()
