"""cairn convert: what comes out is what went in, whatever the formats and the number of ranks."""

import json
import os
import struct
import subprocess
import unittest

from harness import BIN, CORPUS, ENVIRONMENT, Case, corpus_entries, run

FINE, DIFFERENT, FAILED = 0, 1, 2


class Convert(Case):
    def cairn(self, *words, ranks=0, code=FINE, env=None):
        done = run([BIN / "cairn", *words, "--json"], ranks=ranks, env=env)
        self.assertEqual(done.returncode, code, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return json.loads(done.stdout)

    def table(self, path):
        table = self.cairn("inspect", path, "--hash", "sha256")
        return table, {t["name"]: (t["dtype"], t["shape"], t["sha256"]) for t in table["tensors"]}

    def sample(self, name="step-00000007.h5", ranks=2):
        path = self.dir / name
        self.assertEqual(self.sample_save(path, 7, 1, cut="columns", ranks=ranks).returncode, 0)
        return path

    def weights(self, name="a.safetensors", count=300, items=1000):
        header = {f"h.{i}.w": {"dtype": "F32", "shape": [items], "data_offsets": [4 * items * i, 4 * items * (i + 1)]}
                  for i in range(count)}
        text = json.dumps(header).encode()
        values = b"".join(struct.pack(f"<{items}f", *(i + j / 7 for j in range(items))) for i in range(count))
        path = self.dir / name
        path.write_bytes(struct.pack("<Q", len(text)) + text + values)
        return path

    def assert_nothing_new(self, before):
        self.assertEqual(sorted(os.listdir(self.dir)), before)


class Flatten(Convert):
    def test_a_delta_becomes_one_file(self):
        first, second, out = (self.dir / f"step-0000000{step}.h5" for step in (1, 2, 3))
        self.assertEqual(self.sample_save(first, 1, 1).returncode, 0)
        self.assertEqual(self.sample_save(second, 2, 2, engine="direct-delta").returncode, 0)
        shown = run([BIN / "cairn", "inspect", second]).stdout
        self.assertRegex(shown, r"counting\.f32 .* in step-00000001\.h5\n")
        self.assertNotRegex(shown, r"large .* in step")
        self.assertEqual(len(self.cairn("inspect", second)["files"]), 2)
        before = sorted(os.listdir(self.dir))
        told = self.cairn("flatten", second, second, code=FAILED)
        self.assertIn("exists", told["error"]["message"])
        told = self.cairn("flatten", second, first, "--force", code=FAILED)
        self.assertIn("is a file of the checkpoint", told["error"]["message"])
        self.cairn("flatten", self.weights(), out, code=FAILED)
        os.unlink(self.dir / "a.safetensors")
        self.assert_nothing_new(before)
        for ranks, force in ((2, []), (0, ["--force"])):
            told = self.cairn("flatten", second, out, *force, ranks=ranks)
            self.assertEqual(told["files"], 2)
            self.assertEqual(self.cairn("diff", second, out)["equal"], True)
        self.assertEqual([self.cairn("inspect", file)["step"] for file in (second, out)], [2, 2])
        first.unlink()
        self.assertIn("step-00000001.h5', which is missing",
                      self.cairn("verify", second, code=DIFFERENT)["defects"][0]["text"])
        self.assertEqual(self.cairn("verify", out)["defects"], [])
        self.assertIn("equal step=2", self.sample_load(out, 2, ranks=3).stdout)


class RoundTrip(Convert):
    def test_safetensors_of_others_come_back_byte_for_byte(self):
        entries = [e for e in corpus_entries("safetensors/") if e["kind"] == "file"]
        self.assertTrue(entries)
        for ranks, entry in zip((0, 2, 3) * len(entries), entries):
            with self.subTest(path=entry["path"], ranks=ranks):
                source = CORPUS / entry["path"]
                container, back = self.dir / "a.h5", self.dir / "back.safetensors"
                told = self.cairn("convert", source, container, "--force", ranks=ranks)
                self.assertEqual(told["tensors"], len(entry["tensors"]))
                self.assertEqual(self.cairn("verify", container)["unchecked"], 0)
                self.assertEqual(self.cairn("diff", source, container)["equal"], True)
                self.cairn("convert", container, back, "--force", ranks=ranks)
                self.assertEqual(back.read_bytes(), source.read_bytes())

    def test_shards_become_one_file(self):
        source = CORPUS / "safetensors" / "hf_sharded"
        if not source.exists():
            self.skipTest(f"NOT TESTED: no corpus at {CORPUS}")
        target = self.dir / "one.safetensors"
        self.cairn("convert", source, target, ranks=2)
        self.assertEqual(self.table(target)[1], self.table(source)[1])

    def test_a_container_comes_back_with_all_but_the_state_of_ranks(self):
        container = self.sample()
        told = self.cairn("convert", container, self.dir / "a.safetensors", code=FAILED)
        self.assertEqual(told["error"]["code"], "unsupported")
        self.assertRegex(told["error"]["message"], "c128|c32")
        some, weights, back = self.dir / "some.h5", self.dir / "b.safetensors", self.dir / "back.h5"
        told = self.cairn("convert", container, some, "--select", r"^(?!.*c(128|32)$)", ranks=3)
        self.assertTrue(told["left_out"])
        self.assertEqual(self.cairn("diff", container, some, code=DIFFERENT)["tensors"], [])
        self.cairn("convert", some, weights, ranks=2)
        self.cairn("convert", weights, back, ranks=3)
        self.assertTrue(self.cairn("diff", some, back)["equal"])
        self.assertEqual(self.cairn("inspect", back)["step"], 7)
        names = set(self.table(weights)[1])
        self.assertIn("counting.f32", names)

    def test_ranks_do_not_matter(self):
        source = self.weights()
        one, many = self.dir / "one.h5", self.dir / "many.h5"
        self.cairn("convert", source, one)
        self.cairn("convert", source, many, ranks=8)
        self.assertTrue(self.cairn("diff", one, many)["equal"])
        self.assertTrue(self.cairn("diff", source, many)["equal"])
        back = [self.dir / f"{ranks}.safetensors" for ranks in (1, 3, 8)]
        for ranks, path in zip((1, 3, 8), back):
            self.cairn("convert", many, path, ranks=ranks)
        self.assertEqual(len({path.read_bytes() for path in back}), 1)


class Shards(Convert):
    def test_shards_hold_what_one_file_would(self):
        source, out = self.weights(count=10), self.dir / "sharded"
        told = self.cairn("convert", source, out, "--shard-size", "9000", ranks=2)
        self.assertEqual(told["tensors"], 10)
        self.assertEqual(sorted(os.listdir(out)),
                         [f"model-{i:05}-of-00005.safetensors" for i in range(1, 6)]
                         + ["model.safetensors.index.json"])
        table, tensors = self.table(out)
        self.assertEqual(table["warnings"], [])
        self.assertEqual(tensors, self.table(source)[1])
        index = json.loads((out / "model.safetensors.index.json").read_text())
        self.assertEqual(index["metadata"], {"total_size": 40000})
        self.assertEqual(index["weight_map"]["h.0.w"], "model-00001-of-00005.safetensors")
        # One file again.
        back = self.dir / "back.safetensors"
        self.cairn("convert", out, back)
        self.assertEqual(self.table(back)[1], tensors)
        self.cairn("convert", source, self.dir / "b.h5", "--shard-size", "9000", code=FAILED)

    def test_a_shard_that_is_there_stays(self):
        source, out = self.weights(count=10), self.dir / "sharded"
        out.mkdir()
        (out / "model-00003-of-00005.safetensors").write_text("precious")
        told = self.cairn("convert", source, out, "--shard-size", "9000", ranks=2, code=FAILED)
        self.assertEqual(told["error"]["code"], "usage")
        self.assertEqual(os.listdir(out), ["model-00003-of-00005.safetensors"])
        for point in ("preflight.write:0:error:3", "move.write:1:error:2", "commit.write:0:error:4"):
            done = run([BIN / "cairn", "convert", source, out, "--shard-size", "9000", "--force"], ranks=2,
                       env={"CAIRN_FAULT": point})
            self.assertEqual(done.returncode, FAILED, point)
            self.assertEqual(os.listdir(out), ["model-00003-of-00005.safetensors"], point)
            self.assertEqual((out / "model-00003-of-00005.safetensors").read_text(), "precious")
        self.cairn("convert", source, out, "--shard-size", "9000", "--force")
        self.assertTrue(self.cairn("diff", source, out)["equal"])


class Wishes(Convert):
    def test_select_rename_and_dtype(self):
        source, target = self.weights(count=12), self.dir / "b.safetensors"
        told = self.cairn("convert", source, target, "--select", r"^h\.1", "--rename", "h.=encoder.", "--dtype",
                          "bf16", ranks=2)
        self.assertEqual([cast["name"] for cast in told["casts"]],
                         ["encoder.1.w", "encoder.10.w", "encoder.11.w"])
        _, tensors = self.table(target)
        self.assertEqual({name: dtype for name, (dtype, _, _) in tensors.items()},
                         {"encoder.1.w": "bf16", "encoder.10.w": "bf16", "encoder.11.w": "bf16"})
        report = self.cairn("diff", source, target, code=DIFFERENT)
        self.assertEqual(len(report["only_in_a"]), 12)
        # Rounded to 8 bits of mantissa, ties to even.
        data = target.read_bytes()[-6000:][:2000]
        floats = [struct.unpack("<f", b"\0\0" + data[2 * j : 2 * j + 2])[0] for j in range(1000)]
        self.assertTrue(all(abs(f - (1 + j / 7)) <= (1 + j / 7) / 256 for j, f in enumerate(floats)))

    def test_weights_only(self):
        target = self.dir / "b.h5"
        self.cairn("convert", self.sample(), target, "--weights-only")
        table, tensors = self.table(target)
        self.assertTrue(all(name.startswith("model/") for name in tensors))
        self.assertEqual(set(table["documents"]), {"topology", "provenance"})

    def test_memory_is_bounded(self):
        source = self.dir / "large.safetensors"
        text = json.dumps({"w": {"dtype": "U8", "shape": [1 << 29], "data_offsets": [0, 1 << 29]}}).encode()
        with open(source, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + (1 << 29))
        process = subprocess.Popen([BIN / "cairn", "convert", source, self.dir / "b.h5", "--memory", "64M"],
                                   env={**os.environ, **ENVIRONMENT}, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        self.assertEqual(status, 0)
        self.assertLess(usage.ru_maxrss, 250 << 10, "KiB: half of the tensor")


class Failures(Convert):
    def test_what_is_there_is_not_overwritten(self):
        source = self.weights(count=3)
        target = self.dir / "b.h5"
        target.write_text("precious")
        for ranks in (0, 2):
            told = self.cairn("convert", source, target, ranks=ranks, code=FAILED)
            self.assertEqual(told["error"]["code"], "usage")
            self.assertIn("--force", told["error"]["message"])
        self.assertEqual(target.read_text(), "precious")
        self.cairn("convert", source, target, "--force")
        self.assertTrue(self.cairn("diff", source, target)["equal"])
        self.cairn("convert", source, source, "--force", code=FAILED)

    def test_a_failed_conversion_leaves_nothing(self):
        source = self.weights(count=30)
        before = sorted(os.listdir(self.dir))
        for target in ("b.h5", "b.safetensors"):
            for point in ("preflight.write", "move.write", "commit.write", "publish"):
                with self.subTest(target=target, point=point):
                    done = run([BIN / "cairn", "convert", source, self.dir / target, "--json"], ranks=2,
                               env={"CAIRN_FAULT": f"{point}:0:error"})
                    self.assertEqual(done.returncode, FAILED, done.stdout + done.stderr)
                    self.assert_nothing_new(before)

    def test_a_killed_conversion_leaves_no_target(self):
        source = self.weights(count=30)
        for target in ("b.h5", "b.safetensors"):
            done = run([BIN / "cairn", "convert", source, self.dir / target], ranks=2,
                       env={"CAIRN_FAULT": "move.end:1:kill"})
            self.assertNotEqual(done.returncode, FINE)
            self.assertFalse((self.dir / target).exists())
            # What it left is no checkpoint to anybody, and in nobody's way.
            for left in self.dir.glob(".*"):
                self.assertNotEqual(run([BIN / "cairn", "verify", left]).returncode, FINE, left)
            self.cairn("convert", source, self.dir / target, ranks=2)

    def test_a_damaged_source_is_not_converted(self):
        container = self.sample()
        whole = bytearray(container.read_bytes())
        extent = next(t for t in self.cairn("inspect", container)["tensors"] if t["bytes"] > 1000)["extents"][0]
        whole[extent["offset"] + 5] ^= 1
        container.write_bytes(whole)
        told = self.cairn("convert", container, self.dir / "b.h5", ranks=2, code=FAILED)
        self.assertEqual(told["error"]["code"], "corrupt")
        self.assertFalse((self.dir / "b.h5").exists())

    def test_wishes_that_cannot_be_met(self):
        source = self.weights(count=3)
        cases = {
            "not_found": ("--select", "nothing"),
            "mismatch": ("--rename", "h.0=x", "--rename", "h.1=x"),
            "usage": ("--rename", "h.0"),
        }
        for code, words in cases.items():
            told = self.cairn("convert", source, self.dir / "b.h5", *words, code=FAILED)
            self.assertEqual(told["error"]["code"], code)
        for words in (("b.xyz",), ("b.h5", "--dtype", "i8"), ("b.h5", "--memory", "much"), ("b.pt", "--shard-size", "1M"),
                      ("b.h5", "--rename", "nothing=x"), ("b.h5", "--select", "h.1", "--rename", "h.0=x")):
            told = self.cairn("convert", source, self.dir / words[0], *words[1:], code=FAILED)
            self.assertEqual(told["error"]["code"], "usage")


if __name__ == "__main__":
    unittest.main()
