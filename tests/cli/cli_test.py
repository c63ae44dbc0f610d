"""The cairn tool from outside: results, exit codes, JSON, and what damaged or foreign input does to it."""

import hashlib
import json
import random
import shutil
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy

from harness import BIN, SAMPLE, run

FINE, DIFFERENT, FAILED = 0, 1, 2


def make_container(path, ranks, payload="mixed"):
    made = run([BIN / "cairn-bench", "save", "--payload", payload, "--quick", "--repeat", "1", "--dir",
                path.parent, "--keep", path], ranks=ranks)
    assert made.returncode == FINE, made.stderr
    return path


shared = Path(tempfile.mkdtemp(prefix="cairn-cli-"))
unittest.addModuleCleanup(shutil.rmtree, shared, ignore_errors=True)


def setUpModule():
    make_container(CliTest.one, 1)
    make_container(CliTest.three, 3)


class CliTest(unittest.TestCase):
    one = shared / "one.h5"
    three = shared / "three.h5"

    def setUp(self):
        self.dir = Path(tempfile.mkdtemp(prefix="cairn-cli-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def cairn(self, *words, ranks=0, code=FINE):
        """Runs the tool and checks its exit code; a crash or a hang is never one of them."""
        done = run([BIN / "cairn", *words], ranks=ranks)
        self.assertEqual(done.returncode, code,
                         f"{words} on {ranks} ranks\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return done

    def json(self, *words, ranks=0, code=FINE):
        return json.loads(self.cairn(*words, "--json", ranks=ranks, code=code).stdout)

    def copy(self, path, name="copy.h5"):
        return Path(shutil.copy(path, self.dir / name))

    def at_once(self, check, cases, workers=4):
        """Calls check(worker, case) for all cases: starting MPI is mostly waiting."""
        def share(worker):
            failures = []
            for case in cases[worker::workers]:
                try:
                    check(worker, case)
                except AssertionError as failure:
                    failures.append(f"{case}: {failure}")
            return failures

        with ThreadPoolExecutor(workers) as pool:
            failures = sum(pool.map(share, range(workers)), [])
        self.assertFalse(failures, "\n\n".join(failures))

    def sample(self, name, step, version, cut="rows", ranks=2, engine="direct"):
        path = self.dir / name
        done = run([SAMPLE, "save", path, step, version, cut, engine], ranks=ranks)
        self.assertEqual(done.returncode, 0, done.stderr)
        return path


class Inspect(CliTest):
    def test_json_tells_what_the_datasets_are(self):
        table = self.json("inspect", self.three)
        for key, value in {"format": "cairn", "format_version": 1, "committed": True, "step": 1,
                           "writers": 3, "path": str(self.three), "warnings": [],
                           "file_bytes": self.three.stat().st_size}.items():
            self.assertEqual(table[key], value, key)
        self.assertEqual(table["documents"]["context"]["payload"], "mixed")
        self.assertEqual(table["documents"]["topology"]["world_size"], 3)
        self.assertEqual(table["bytes"], sum(tensor["bytes"] for tensor in table["tensors"]))
        self.assertEqual(set(table["groups"]), {"model", "optimizer"})
        with h5py.File(self.three) as file:
            for tensor in table["tensors"]:
                dataset = file[tensor["dataset"]]
                self.assertEqual(tensor["dataset"], "/" + tensor["name"])
                self.assertEqual(tuple(tensor["shape"]), dataset.shape)
                self.assertEqual(tensor["bytes"], dataset.size * dataset.dtype.itemsize)
                self.assertEqual(tensor["dtype"], "f32")

    def test_extents_hold_the_bytes_they_claim(self):
        content = self.three.read_bytes()
        with h5py.File(self.three) as file:
            for tensor in self.json("inspect", self.three)["tensors"]:
                whole = file[tensor["dataset"]][()]
                self.assertEqual(sum(extent["bytes"] for extent in tensor["extents"]), tensor["bytes"])
                for extent in tensor["extents"]:
                    box = tuple(slice(start, start + count)
                                for start, count in zip(extent["start"], extent["count"]))
                    at = extent["offset"]
                    self.assertEqual(content[at:at + extent["bytes"]], whole[box].tobytes())
                    self.assertIn(extent["writer"], range(3))

    def test_sha256_is_that_of_the_values_whoever_wrote_and_reads(self):
        hashes = {}
        for path, ranks in ((self.one, 0), (self.three, 0), (self.three, 3)):
            tensors = self.json("inspect", path, "--hash", "sha256", ranks=ranks)["tensors"]
            hashes[path, ranks] = {tensor["name"]: tensor["sha256"] for tensor in tensors}
        with h5py.File(self.one) as file:
            expected = {name: hashlib.sha256(file[name][()].tobytes()).hexdigest()
                        for name in hashes[self.one, 0]}
        for found in hashes.values():
            self.assertEqual(found, expected)

    def test_statistics_are_shown_where_they_were_recorded(self):
        self.assertNotIn("statistics", self.json("inspect", self.one)["tensors"][0])
        path = self.sample("stat.h5", 1, 1, engine="statistics")
        tensors = {tensor["name"]: tensor for tensor in self.json("inspect", path)["tensors"]}
        self.assertEqual(tensors["model/counting.f16"]["statistics"],
                         {"nan": 0, "inf": 0, "min": 0.0, "max": 7.0, "l2": 140.0 ** 0.5})
        self.assertEqual(tensors["model/empty"]["statistics"],
                         {"nan": 0, "inf": 0, "min": None, "max": None, "l2": 0.0})
        with h5py.File(path) as file:
            values = file["model/all.f16"][()].astype(numpy.float64)
        finite = values[numpy.isfinite(values)]
        found = tensors["model/all.f16"]["statistics"]
        self.assertEqual((found["nan"], found["inf"]),
                         (numpy.isnan(values).sum(), numpy.isinf(values).sum()))
        self.assertEqual((found["min"], found["max"]), (finite.min(), finite.max()))
        self.assertAlmostEqual(found["l2"] / numpy.linalg.norm(finite), 1)
        text = self.cairn("inspect", path).stdout
        self.assertRegex(text, r"counting\.f16 .* 0 to 7, l2 11\.83")
        self.assertRegex(text, r"empty .* no finite element")

    def test_text_is_the_same_on_any_number_of_ranks(self):
        plain = self.cairn("inspect", self.three, "--hash", "sha256").stdout
        self.assertEqual(self.cairn("inspect", self.three, "--hash", "sha256", ranks=3).stdout, plain)
        for part in ("committed", "3 ranks", "model/", "transformer.wte.weight", "f32 [5025, 192]"):
            self.assertIn(part, plain)

    def test_chunked_tensors_and_every_dtype_hash_like_h5py_reads_them(self):
        path = self.sample("sample.h5", 1, 1, cut="columns", ranks=4)
        tensors = self.json("inspect", path, "--hash", "sha256", ranks=2)["tensors"]
        self.assertIn("chunked", {tensor["layout"] for tensor in tensors})
        with h5py.File(path) as file:
            for tensor in tensors:
                if tensor["dtype"] not in ("f64", "f32", "f16", "i64", "i32", "i16", "i8", "u8", "u16",
                                           "u32", "u64"):
                    continue
                expected = hashlib.sha256(file[tensor["dataset"]][()].tobytes()).hexdigest()
                self.assertEqual(tensor["sha256"], expected, tensor["name"])

    def test_a_run_directory_is_its_newest_committed_checkpoint(self):
        run_dir = self.dir / "run"
        run_dir.mkdir()
        for step in (7, 9):
            shutil.copy(self.one, run_dir / f"step-{step:08}.h5")
        with open(run_dir / "step-00000012.h5", "wb") as file:
            file.write(self.one.read_bytes()[:-1000])
        self.assertEqual(self.json("inspect", run_dir, ranks=2)["path"],
                         str(run_dir / "step-00000009.h5"))


class Diff(CliTest):
    def test_the_number_of_writers_is_no_difference(self):
        for ranks in (0, 3):
            done = self.cairn("diff", self.one, self.three, ranks=ranks)
            self.assertRegex(done.stdout, r"^equal: \d+ tensors, \d+ B\n$")
            report = self.json("diff", self.one, self.three, ranks=ranks)
            self.assertTrue(report["equal"])
            self.assertEqual(report["compared"]["by_digest"], report["compared"]["tensors"])

    def test_values_are_compared_as_numpy_would(self):
        a = self.sample("a.h5", 1, 1, cut="columns", ranks=3)
        b = self.sample("b.h5", 2, 2, cut="rows", ranks=3)
        report = self.json("diff", a, b, code=DIFFERENT)
        self.assertEqual(self.json("diff", a, b, ranks=3, code=DIFFERENT), report)
        self.assertEqual((report["only_in_a"], report["only_in_b"], report["documents"]), ([], [], []))
        found = {tensor["name"]: tensor for tensor in report["tensors"]}
        self.assertFalse([name for name in found if "counting" in name])
        compared = 0
        with h5py.File(a) as first, h5py.File(b) as second:
            for dtype in ("f64", "f32", "f16", "i64", "i32", "i16", "i8", "u8", "u16", "u32", "u64"):
                name = "model/all." + dtype
                x, y = first[name][()].ravel(), second[name][()].ravel()
                entry = found[name]
                self.assertEqual(entry["differing"],
                                 sum(p.tobytes() != q.tobytes() for p, q in zip(x, y)))
                self.assertEqual(entry["elements"], x.size)
                if dtype[0] == "f":
                    x, y = x.astype(numpy.float64), y.astype(numpy.float64)
                    with numpy.errstate(all="ignore"):
                        expected = numpy.max(numpy.abs(x - y))
                    if not numpy.isfinite(expected):
                        self.assertEqual(entry["max_abs"], "NaN" if numpy.isnan(expected) else "Infinity")
                        continue
                    self.assertAlmostEqual(entry["max_abs"] / expected, 1.0)
                else:
                    self.assertEqual(entry["max_abs"], max(abs(int(p) - int(q)) for p, q in zip(x, y)))
                compared += 1
        self.assertGreaterEqual(compared, 8)

    def test_names_and_shapes(self):
        other = make_container(self.dir / "many.h5", 2, payload="many")
        report = self.json("diff", self.one, other, code=DIFFERENT)
        self.assertEqual(len(report["only_in_b"]), 1000)
        self.assertEqual(len(report["only_in_a"]), len(self.json("inspect", self.one)["tensors"]))
        self.assertEqual(report["documents"], ["context"])
        self.assertIn("different: 0 of 0 tensors in both",
                      self.cairn("diff", self.one, other, ranks=2, code=DIFFERENT).stdout)

    def test_state_of_single_ranks_is_compared(self):
        a = self.sample("a.h5", 1, 1, ranks=2)
        b = self.sample("b.h5", 1, 1, ranks=3)
        (tensor,) = self.json("diff", a, b, code=DIFFERENT)["tensors"]
        self.assertEqual(tensor["name"], "ranks/rng")
        self.assertNotEqual(*tensor["shape"])


class Damage(CliTest):
    def flip(self, path, offset, bit):
        with open(path, "r+b") as file:
            file.seek(offset)
            value = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([value ^ (1 << bit)]))

    def test_whole(self):
        for ranks in (0, 3):
            self.assertRegex(self.cairn("verify", self.three, ranks=ranks).stdout,
                             r"^ok: \d+ tensors, \d+ extents, \d+ B\n$")
        report = self.json("verify", self.three)
        self.assertTrue(report["ok"])
        self.assertEqual(report["defects"], [])

    def test_a_flipped_bit_anywhere_is_a_defect(self):
        path = self.three
        size = path.stat().st_size
        extents = sorted((extent["offset"], extent["offset"] + extent["bytes"])
                         for tensor in self.json("inspect", path)["tensors"]
                         for extent in tensor["extents"])
        # Most of the file is data: look at everything else just as often.
        between, at = [], 0
        for start, end in extents + [(size, size)]:
            between.extend(range(at, start))
            at = max(at, end)
        rng = random.Random(2)
        offsets = [0, 7, 8, size - 64, size - 1]
        offsets += [rng.randrange(size) for _ in range(27)] + rng.sample(between, 28)
        copies = [self.copy(path, f"copy-{worker}.h5") for worker in range(4)]

        def check(worker, place):
            copy = copies[worker]
            self.flip(copy, *place)
            report = self.json("verify", copy, code=DIFFERENT)
            self.assertFalse(report["ok"])
            self.assertTrue(report["defects"])
            for defect in report["defects"]:
                self.assertIn(str(copy), defect["text"])
            self.flip(copy, *place)

        self.at_once(check, [(offset, rng.randrange(8)) for offset in offsets])
        for copy in copies:
            self.cairn("verify", copy)

    def test_damaged_data_is_named_and_never_shown(self):
        path = self.copy(self.three)
        rng = random.Random(3)
        for tensor in rng.sample(self.json("inspect", path)["tensors"], 4):
            extent = rng.choice(tensor["extents"])
            offset = extent["offset"] + rng.randrange(extent["bytes"])
            with self.subTest(tensor=tensor["name"]):
                self.flip(path, offset, 5)
                (defect,) = self.json("verify", path, ranks=2, code=DIFFERENT)["defects"]
                # Of the same content by their digests: no value is read, so none can be wrong.
                self.assertTrue(self.json("diff", self.one, path, ranks=2)["equal"])
                self.assertEqual((defect["tensor"], defect["start"], defect["count"], defect["writer"]),
                                 (tensor["name"], extent["start"], extent["count"], extent["writer"]))
                for ranks in (0, 2):
                    self.expect_corrupt(path, tensor["name"], "inspect", "--hash", "sha256", path,
                                        ranks=ranks)
                self.flip(path, offset, 5)

    def test_diff_never_compares_damaged_values(self):
        a, b = self.sample("a.h5", 1, 1), self.sample("b.h5", 1, 2)
        rng = random.Random(4)
        changed = [t for t in self.json("inspect", b)["tensors"] if t["name"].startswith("model/all.")]
        for tensor in rng.sample(changed, 3):
            extent = rng.choice([e for e in tensor["extents"] if e["bytes"]])
            self.flip(b, extent["offset"], 1)
            for ranks in (0, 2):
                self.expect_corrupt(b, tensor["name"], "diff", a, b, ranks=ranks)
            self.flip(b, extent["offset"], 1)
        self.assertFalse(self.json("diff", a, b, code=DIFFERENT)["equal"])

    def expect_corrupt(self, path, tensor, *words, ranks):
        error = self.json(*words, ranks=ranks, code=FAILED)["error"]
        self.assertEqual(error["code"], "corrupt")
        self.assertIn(str(path), error["message"])
        self.assertIn(tensor, error["message"])

    def test_truncated_and_lengthened(self):
        path = self.copy(self.three)
        whole = path.read_bytes()
        size = len(whole)
        for length in (8, 100, 4096, size // 3, size - 4096, size - 65, size - 1, size + 100):
            with self.subTest(length=length):
                path.write_bytes(whole[:length] + bytes(max(0, length - size)))
                self.assertIn(str(path), self.cairn("verify", path, code=DIFFERENT).stdout)
                self.assertIn(str(path), self.cairn("inspect", path, code=FAILED).stderr)

    def test_without_its_trailer_a_container_is_read_as_rewritten(self):
        # What h5py leaves when it edits in place: whole for HDF5, so only the digests can judge.
        path = self.copy(self.three)
        with h5py.File(path, "r+") as file:
            self.assertEqual(file["model/transformer.wpe.weight"].shape, (256, 192))
            name = "model/transformer.ln_f.bias"
            value = file[name][3]
            file[name][3] = value + 1
        (defect,) = self.json("verify", path, ranks=2, code=DIFFERENT)["defects"]
        self.assertEqual(defect["tensor"], name)
        with h5py.File(path, "r+") as file:
            file[name][3] = value
        report = self.json("verify", path, ranks=2)
        self.assertIn("rewritten", report["warnings"][0])
        report = self.json("diff", self.one, path, ranks=2)
        self.assertTrue(report["equal"])
        self.assertEqual(report["compared"]["by_digest"], 0)  # they may be another program's

    def test_an_incomplete_save_is_an_error_that_says_so(self):
        path = self.copy(self.three)
        with open(path, "r+b") as file:
            file.write(bytes(8))
            file.seek(-64, 2)
            file.write(bytes(64))
        self.assertIn("committed", self.cairn("inspect", path, code=FAILED).stderr)


class BadInput(CliTest):
    def inputs(self):
        empty = self.dir / "empty.h5"
        empty.touch()
        text = self.dir / "text.h5"
        text.write_text("once upon a time\n" * 1000)
        foreign = self.dir / "foreign.h5"
        with h5py.File(foreign, "w") as file:
            file["model/weight"] = numpy.arange(100.0)
        directory = self.dir / "no-run"
        directory.mkdir()
        return [self.dir / "missing.h5", empty, text, foreign, directory, Path("/dev/zero")]

    def test_it_is_an_error_that_names_the_file(self):
        cases = [(path, verb, ranks) for path in self.inputs() for ranks in (0, 2)
                 for verb in ("inspect", "verify", "diff")]

        def check(_, case):
            path, verb, ranks = case
            words = (verb, self.one, path) if verb == "diff" else (verb, path)
            done = self.cairn(*words, ranks=ranks, code=FAILED)
            self.assertEqual(done.stdout, "")
            self.assertEqual(done.stderr.count("cairn: error: "), 1)
            self.assertIn(str(path), done.stderr)

        self.at_once(check, cases)

    def test_json_errors_are_json(self):
        codes = {"missing.h5": "not_found", "no-run": "not_found"}
        for path in self.inputs():
            error = self.json("inspect", path, ranks=2, code=FAILED)["error"]
            self.assertEqual(set(error), {"code", "message", "rank"})
            self.assertEqual(error["code"], codes.get(path.name, "unsupported"), path)
            self.assertIn(str(path), error["message"])

    def test_usage_errors_are_told_once(self):
        cases = [(words, ranks) for ranks in (0, 2) for words in (
            (), ("frobnicate",), ("inspect",), ("inspect", self.one, "--hash", "md5"),
            ("inspect", self.one, "--unknown"), ("diff", self.one), ("verify", "a", "b"))]

        def check(_, case):
            words, ranks = case
            done = self.cairn(*words, ranks=ranks, code=FAILED)
            self.assertEqual(done.stderr.count("cairn: error: "), 1)

        self.at_once(check, cases)
        self.assertEqual(self.json("diff", self.one, code=FAILED)["error"]["code"], "usage")
        self.assertIn("frobnicate", self.cairn("frobnicate", code=FAILED).stderr)
        self.assertIn("inspect, diff, verify, ls, prune, pin, unpin, begin, convert, flatten, migrate, config or migrate-config",
                      self.cairn(code=FAILED).stderr)

    def test_help_and_version(self):
        self.assertRegex(self.cairn("--version").stdout, r"^cairn \d+\.\d+\.\d+\n$")
        self.assertEqual(self.cairn("--version", ranks=2).stdout.count("cairn"), 1)
        self.assertIn("Exit codes", self.cairn("--help").stdout)
        for verb in ("inspect", "diff", "verify", "convert"):
            self.assertIn("--json", self.cairn(verb, "--help").stdout)

    def test_output_that_cannot_be_written_is_an_error(self):
        bench = f"cairn-bench' save --payload many --quick --repeat 1 --dir '{self.dir}"
        for words, told in ((f"cairn' inspect '{self.one}", "standard output"),
                            (f"cairn' inspect --json '{self.one}", "standard output"),
                            ("cairn' inspect --json '/nonexistent", "not_found"),
                            ("cairn' diff '--help", "standard output"), (bench, "standard output")):
            with self.subTest(words=words):
                done = run(["sh", "-c", f"'{BIN}/{words}' > /dev/full"])
                self.assertEqual(done.returncode, FAILED)
                self.assertIn(told, done.stderr)


if __name__ == "__main__":
    unittest.main()
