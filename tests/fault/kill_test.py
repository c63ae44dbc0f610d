"""SIGKILL of any one rank at any step of a save: the previous checkpoint loads, nothing hangs."""

import unittest

from faults import RANKS, FaultCase, fault

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
# Where the numbers of ranks differ most: who copies, moves, closes; and the moment that counts.
SOME_POINTS = {
    "direct": ("move.write", "durable.close", "commit.signature"),
    "mpio": ("move.transfer", "durable.close", "commit.signature"),
    "async": ("stage", "move.write", "durable.close", "commit.signature"),
}
# From the rename on the new checkpoint is there, whatever happens next.
PUBLISHED = {"publish.renamed", "publish.linked"}


class Kill(FaultCase):
    def check(self, engine, point, rank, ranks=RANKS):
        directory = self.start_of(engine, point, rank, ranks)
        second = directory / "step-00000002.h5"
        # mpirun leaves the other ranks a second, in which they must not do what is wrong.
        env = fault(point, rank, "kill") | {"OMPI_MCA_odls_base_sigkill_timeout": "1"}
        died = self.sample_save(second, 2, 2, engine=engine, ranks=ranks, env=env)
        self.assertNotEqual(died.returncode, 0, died.stdout)
        self.assertNotIn("saved", died.stdout)
        # The other ranks may have been past the point: "publish" of another rank than 0.
        published = point in PUBLISHED or (point == "publish" and rank != 0 and second.exists())
        version, step = (2, 2) if published else (1, 1)
        self.assert_survives(directory, version, step, again=engine.partition("-")[0])

    def every_point(self, engine):
        points = POINTS | {"direct": {}, "mpio": MPIO_POINTS, "mpio-deflate": MPIO_POINTS}.get(engine, ASYNC_POINTS)
        if engine.startswith("mpio"):
            points.pop("move.write")  # the mpio engine's writes are inside MPI-IO
        self.check_all(self.check, [(engine, point, rank) for point, on_every_rank in points.items()
                                    for rank in ((0, 1, RANKS - 1) if on_every_rank else (0,))])

    def test_direct(self):
        self.every_point("direct")

    def test_mpio(self):
        self.every_point("mpio")

    def test_mpio_independent(self):
        self.check_all(self.check, [("mpio-independent", point, rank) for point in ("move", *MPIO_POINTS, "durable.close")
                                    for rank in (0, RANKS - 1)])

    def test_mpio_with_filters(self):
        self.every_point("mpio-deflate")

    def test_a_delta(self):
        cases = [("delta", 0), ("delta", RANKS - 1), ("layout.skeleton", 0), ("move", RANKS - 1), ("move.write", 0),
                 ("durable.close", 1), ("commit", RANKS - 1), ("commit.signature", 0), ("publish.renamed", 0)]
        self.check_all(self.check, [("direct-delta", *case) for case in cases])

    def test_in_the_background(self):
        self.every_point("async")

    def test_in_the_background_with_threads(self):
        self.every_point("async-threads")

    def test_in_the_background_over_the_budget(self):
        self.check_all(self.check, [(engine, point, rank) for engine in ("async-large", "async-large-threads")
                                    for point in STREAM_POINTS for rank in (0, RANKS - 1)])

    def test_any_number_of_ranks(self):
        # The last rank and, of what rank 0 does alone, that one.
        self.check_all(self.check, [(engine, point, 0 if point.startswith("commit") else ranks - 1, ranks)
                                    for ranks in (1, 2, 4, 8) for engine, points in SOME_POINTS.items()
                                    for point in points])


if __name__ == "__main__":
    unittest.main()
