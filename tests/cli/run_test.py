"""cairn ls, prune, pin, unpin and verify --mark, from outside."""

import json
import os
import shutil
import tempfile
import time
import unittest
from pathlib import Path

from harness import BIN, SAMPLE, run

FINE, DIFFERENT, FAILED = 0, 1, 2
LOSSES = {10: "0.5", 20: "0.25", 30: "0.75", 40: "NaN"}
shared = Path(tempfile.mkdtemp(prefix="cairn-run-"))
unittest.addModuleCleanup(shutil.rmtree, shared, ignore_errors=True)


def name(step):
    return f"step-{step:08}.h5"


def setUpModule():
    for step, loss in LOSSES.items():
        text = f'"{loss}"' if loss == "NaN" else loss
        made = run([SAMPLE, "save", shared / name(step), step, 1, "rows", "direct"],
                   env={"CAIRN_SAMPLE_LOSS": text})
        assert made.returncode == FINE, made.stdout + made.stderr


class RunTest(unittest.TestCase):
    def setUp(self):
        self.dir = Path(tempfile.mkdtemp(prefix="cairn-run-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        for path in shared.iterdir():
            shutil.copy2(path, self.dir / path.name, follow_symlinks=False)

    def cairn(self, *words, code=FINE):
        done = run([BIN / "cairn", *words])
        self.assertEqual(done.returncode, code, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return done

    def json(self, *words, code=FINE):
        return json.loads(self.cairn(*words, "--json", code=code).stdout)

    def steps(self):
        return sorted(int(path.stem[5:]) for path in self.dir.glob("step-*.h5"))

    def damage(self, step):
        tensors = self.json("inspect", self.dir / name(step))["tensors"]
        extent = max((e for t in tensors for e in t["extents"]), key=lambda e: e["bytes"])
        with open(self.dir / name(step), "r+b") as file:
            file.seek(extent["offset"])
            byte = file.read(1)[0]
            file.seek(extent["offset"])
            file.write(bytes([byte ^ 1]))

    def test_ls_tells_everything_that_is_there(self):
        (self.dir / "notes.txt").write_text("a stranger")
        (self.dir / name(50)).write_bytes((self.dir / name(40)).read_bytes()[:-100])
        (self.dir / f".{name(60)}.partial").write_bytes(bytes(1000))
        self.cairn("pin", self.dir / name(10))
        self.damage(40)
        self.cairn("verify", self.dir / name(40), "--mark", code=DIFFERENT)
        self.cairn("verify", self.dir / name(20), "--mark")
        listing = self.json("ls", self.dir, "--keep-last", "1", "--keep-best", "1", "--metric", "loss")
        rows = {row["step"]: row for row in listing["checkpoints"]}
        self.assertEqual(list(rows), [10, 20, 30, 40])
        self.assertEqual([row["metrics"]["loss"] for row in rows.values()], [0.5, 0.25, 0.75, "NaN"])
        self.assertEqual([row["newest"] for row in rows.values()], [False, False, True, False])
        self.assertEqual([row["last"] for row in rows.values()], [False, False, False, True])
        self.assertEqual([row["pinned"] for row in rows.values()], [True, False, False, False])
        self.assertEqual([bool(row["verified"]) for row in rows.values()], [False, True, False, False])
        self.assertIn("digest", rows[40]["bad"]["reason"])
        self.assertEqual(rows[20]["why"], ["last verified", "one of the best 1 by loss"])
        self.assertEqual({row["epoch"] for row in rows.values()}, {3})
        self.assertEqual({row["writers"] for row in rows.values()}, {1})
        for row in rows.values():
            self.assertEqual(row["bytes"], Path(row["path"]).stat().st_size)
        self.assertEqual([Path(x["path"]).name for x in listing["not_usable"]], [name(50)])
        self.assertEqual([(Path(x["path"]).name, x["bytes"]) for x in listing["partial"]],
                         [(f".{name(60)}.partial", 1000)])
        text = self.cairn("ls", self.dir).stdout
        for part in ("pinned", "verified 20", "bad since", "loss=0.25", "newest", "last", "not usable", "partial"):
            self.assertIn(part, text)
        self.assertNotIn("notes.txt", text)
        self.assertNotIn("stays", text)

    def test_ls_spells_the_numbers_that_json_lacks_as_the_documents_do(self):
        for step, loss in ((50, "Infinity"), (60, "-Infinity")):
            run([SAMPLE, "save", self.dir / name(step), step, 1, "rows", "direct"],
                env={"CAIRN_SAMPLE_LOSS": f'"{loss}"'})
        rows = {row["step"]: row for row in self.json("ls", self.dir)["checkpoints"]}
        self.assertEqual([rows[step]["metrics"]["loss"] for step in (40, 50, 60)],
                         ["NaN", "Infinity", "-Infinity"])

    def test_prune_does_what_the_dry_run_said(self):
        self.cairn("pin", self.dir / name(10))
        words = ["prune", self.dir, "--keep-last", "1", "--keep-best", "1", "--metric", "loss", "--mode", "max"]
        said = self.json(*words, "--dry-run")
        self.assertEqual(self.steps(), [10, 20, 30, 40])
        self.assertEqual([Path(x["path"]).name for x in said["removed"]], [name(20)])
        self.assertIn("would go  " + name(20), self.cairn(*words, "--dry-run").stdout)
        done = self.json(*words)
        self.assertEqual(self.steps(), [10, 30, 40])
        self.assertEqual(done | {"dry_run": True}, said)
        # Nothing is left to do, and the pin is all that keeps the first.
        self.assertEqual(self.json(*words)["removed"], [])
        self.cairn("unpin", self.dir / name(10))
        self.cairn(*words)
        self.assertEqual(self.steps(), [30, 40])

    def test_prune_removes_bad_ones_only_when_told(self):
        self.damage(40)
        os.remove(self.dir / "last")
        self.cairn("verify", self.dir / name(40), "--mark", code=DIFFERENT)
        self.cairn("prune", self.dir, "--keep-last", "1")
        self.assertEqual(self.steps(), [30, 40])
        self.cairn("prune", self.dir, "--bad")
        self.assertEqual(self.steps(), [30])
        self.assertEqual(sorted(path.name for path in self.dir.iterdir()), [name(30)])

    def test_a_mark_goes_when_the_file_is_whole(self):
        whole = (self.dir / name(40)).read_bytes()
        self.damage(40)
        self.cairn("verify", self.dir / "last", "--mark", code=DIFFERENT)
        (self.dir / name(40)).write_bytes(whole)
        self.cairn("verify", self.dir, "--mark")
        self.assertEqual([row["bad"] for row in self.json("ls", self.dir)["checkpoints"]], [None] * 4)
        self.cairn("verify", shared / name(10))
        self.assertEqual(list(shared.glob(".*")), [], "without --mark nothing is written")

    def test_what_is_damaged_in_an_older_file_is_marked_there(self):
        made = run([SAMPLE, "save", self.dir / name(50), 50, 2, "rows", "direct-delta"])
        self.assertEqual(made.returncode, FINE, made.stdout + made.stderr)
        needs = self.json("ls", self.dir)["checkpoints"][-1]["needs"]
        self.assertEqual(needs, [name(40)])
        tensor = next(t for t in self.json("inspect", self.dir / name(50))["tensors"]
                      if t["extents"][0]["file"] != 0 and t["extents"][0]["bytes"] > 0)
        with open(self.dir / name(40), "r+b") as file:
            file.seek(tensor["extents"][0]["offset"])
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 1]))
        told = self.json("verify", self.dir / name(50), "--mark", code=DIFFERENT)
        self.assertEqual([Path(path).name for path in told["marked"]], [name(40)])
        self.assertTrue((self.dir / f".{name(40)}.bad").exists())
        self.assertFalse((self.dir / f".{name(50)}.bad").exists())
        rows = {row["step"]: row for row in self.json("ls", self.dir)["checkpoints"]}
        self.assertIn(tensor["name"], rows[50]["bad"]["reason"])
        self.assertIn(name(40), rows[50]["bad"]["reason"])
        self.assertTrue(rows[30]["newest"])
        self.cairn("prune", self.dir, "--bad")
        self.assertEqual(self.steps(), [10, 20, 30, 40, 50], "the last save is linked, and needs the one before")

    def test_begin_counts_starts_and_refuses_the_one_too_many(self):
        words = ["begin", self.dir, "--max-restarts", "1"]
        self.assertEqual(self.json(*words), {"run": str(self.dir), "step": 40, "refused": None})
        self.assertIn("goes on at step 40", self.cairn(*words).stdout)
        told = self.cairn(*words, code=DIFFERENT).stdout
        self.assertIn("started 2 times", told)
        self.assertIn("step 40", told)
        self.cairn("begin", self.dir, "--max-restarts", "0")  # any number
        (self.dir / ".restarts").unlink()
        self.cairn(*words)
        os.remove(self.dir / name(40))
        os.remove(self.dir / "last")
        self.cairn(*words)
        self.cairn(*words, code=DIFFERENT)
        self.cairn("begin", self.dir / "none", code=FAILED)

    def test_partial_files_go_when_they_are_old_and_no_job_is_there(self):
        old, new = (self.dir / f".{name(step)}.partial" for step in (50, 60))
        for path in (old, new):
            path.write_bytes(b"x")
        hours_ago = time.time() - 2 * 3600
        os.utime(old, (hours_ago, hours_ago))
        lease = self.dir / ".lease"
        lease.write_text("somebody far away")
        self.assertIn("in use by", self.cairn("prune", self.dir, "--partial").stdout)
        self.assertTrue(old.exists())
        lease.unlink()
        self.assertIn("would go", self.cairn("prune", self.dir, "--partial", "--dry-run").stdout)
        self.assertTrue(old.exists())
        self.cairn("prune", self.dir, "--partial")
        self.assertFalse(old.exists())
        self.assertTrue(new.exists())
        self.assertEqual(self.steps(), [10, 20, 30, 40])
        self.assertFalse(lease.exists())

    def test_usage(self):
        for words, told in (
                (["prune", self.dir], "say what is to be removed"),
                (["prune", self.dir, "--keep-last", "-1"], "--keep-last: a negative number"),
                (["ls", self.dir, "--keep-last", "-1"], "--keep-last: a negative number"),
                (["begin", self.dir, "--max-restarts", "-1"], "--max-restarts: a negative number"),
                (["prune", self.dir, "--keep-every", "10"], "--keep-last"),
                (["prune", self.dir, "--keep-last", "1", "--keep-best", "1"], "--metric"),
                (["ls", self.dir / "none"], "there is no directory"),
                (["ls", self.dir / name(10)], "is a file"),
                (["pin", self.dir / "none.h5"], "does not exist")):
            self.assertIn(told, self.cairn(*words, code=FAILED).stderr)
        self.assertEqual(self.steps(), [10, 20, 30, 40])
        stranger = shutil.copy(self.dir / name(10), self.dir / "mine.h5")
        self.assertIn("no checkpoint of a run", self.cairn("pin", stranger, code=FAILED).stderr)
        self.assertIn("no checkpoint of a run", self.cairn("verify", stranger, "--mark", code=FAILED).stderr)


if __name__ == "__main__":
    unittest.main()
