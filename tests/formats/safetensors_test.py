"""Safetensors files, single and sharded, through the cairn tool: those of others, and those that must be refused."""

import hashlib
import json
import struct
import unittest

from harness import BIN, CORPUS, Case, corpus_entries, memory_for, run

F32 = {"dtype": "F32", "shape": [2]}
PAIR = struct.pack("<2f", 1.5, -2.0)


def safetensors(header, data=b""):
    """A file of that header, a text or what becomes one."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin, end, **more):
    return {**F32, "data_offsets": [begin, end], **more}


class Tool(Case):
    def inspect(self, path, *words, ranks=0):
        done = run([BIN / "cairn", "inspect", path, "--json", *words], ranks=ranks, cwd=self.dir,
                   memory=None if ranks else memory_for(path))
        self.assertIn(done.returncode, (0, 2), done.stderr[-2000:])
        return done.returncode, json.loads(done.stdout)

    def write(self, name, content):
        path = self.dir / name
        path.write_bytes(content)
        return path

    def refused(self, path):
        code, told = self.inspect(path)
        self.assertEqual(code, 2, f"{path} was read")
        self.assertIn(str(path), told["error"]["message"])
        return told["error"]


class Detection(Tool):
    def test_a_header_of_any_length_is_one(self):
        # As numbers these lengths are the first bytes of pickles, of gzip, of a zip archive and of JSON.
        for start in (b"\x80\x02", b"\x80\x05", b"\x1f\x8b", b"PK\x03", b"{ "):
            with self.subTest(start=start):
                length = int.from_bytes(start, "little")
                header = json.dumps({"a": entry(0, 8)}).encode().ljust(length)
                path = self.write("named.bin", struct.pack("<Q", length) + header + PAIR)
                code, table = self.inspect(path)
                self.assertEqual((code, table.get("format")), (0, "safetensors"), table)


class Corpus(Tool):
    def test_what_others_wrote_is_read(self):
        entries = [e for e in corpus_entries("safetensors/", "hostile/safetensors/", "hostile/hf/")
                   if e["expect"] == "load"]
        self.assertTrue(entries)
        for expected in entries:
            with self.subTest(path=expected["path"]):
                path = CORPUS / expected["path"]
                code, table = self.inspect(path, "--hash", "sha256")
                self.assertEqual(code, 0, table)
                self.assertEqual(table["format"], "safetensors")
                found = sorted(({key: tensor[key] for key in ("name", "path", "dtype", "shape", "sha256")}
                                for tensor in table["tensors"]), key=lambda tensor: tensor["name"])
                self.assertEqual(found, sorted(expected["tensors"], key=lambda tensor: tensor["name"]))
                if expected["kind"] == "file":
                    self.assertEqual(table["documents"], expected.get("metadata", {}))
                if "entry_point" in expected:
                    self.assertEqual(self.inspect(path / expected["entry_point"], "--hash", "sha256", ranks=2),
                                     (0, table))

    def test_what_is_wrong_is_refused_for_the_right_reason(self):
        entries = [e for e in corpus_entries("hostile/safetensors/", "hostile/hf/", "hostile/not-a-checkpoint/")
                   if e["expect"] == "refuse"]
        self.assertTrue(entries)
        for expected in entries:
            with self.subTest(path=expected["path"]):
                outcomes = [expected, *expected.get("also_accept", [])]
                reasons = {outcome.get("reason") for outcome in outcomes if outcome["expect"] == "refuse"}
                code, told = self.inspect(CORPUS / expected["path"])
                if code == 0:
                    self.assertIn("load", [outcome["expect"] for outcome in outcomes])
                else:
                    self.assertIn(told["error"]["code"], reasons, told)
                    self.assertIn(expected["path"], told["error"]["message"])
        self.assertEqual(list(self.dir.iterdir()), [], "reading a file made another")


class Strict(Tool):
    def test_a_header_must_be_right_to_the_last_byte(self):
        good = {"a": entry(0, 8)}
        text = json.dumps(good)
        self.assertEqual(self.inspect(self.write("a.safetensors", safetensors(good, PAIR)))[0], 0)
        self.assertEqual(self.inspect(self.write("b.safetensors", safetensors(text + "  ", PAIR)))[0], 0)
        cases = {
            "hole": ({"a": entry(0, 8), "b": entry(12, 20)}, PAIR + b"hole" + PAIR),
            "overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, PAIR + b"1234"),
            "bytes behind": (good, PAIR + b"x"),
            "bytes missing": (good, PAIR[:-1]),
            "two of a name": (f'{{"a": {json.dumps(entry(0, 8))}, "a": {json.dumps(entry(8, 16))}}}', 2 * PAIR),
            "a key twice": ('{"a": {"dtype": "F32", "dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}', PAIR),
            "shape twice": ('{"a": {"dtype": "F32", "shape": [2], "shape": [2], "data_offsets": [0, 8]}}', PAIR),
            "metadata twice": ('{"__metadata__": {}, "__metadata__": {}}', b""),
            "a word of metadata twice": ('{"__metadata__": {"a": "b", "a": "c"}}', b""),
            "NUL behind the text": (text + "\0\0", PAIR),
            "another text behind it": (text + text, PAIR),
            "a comment": ("/**/" + text, PAIR),
            "fraction": ({"a": entry(0, 8, shape=[2.0])}, PAIR),
            "negative": ({"a": entry(0, 8, shape=[-2, -1])}, PAIR),
            "wraps around": ({"a": entry(0, 8, shape=[2**32, 2**31, 2, 1])}, PAIR),
            "nested": ({"a": entry(0, 8, shape=[[2]])}, PAIR),
            "no offsets": ({"a": F32}, PAIR),
            "metadata that is nested": ({"__metadata__": {"a": {}}, **good}, PAIR),
            "deep": ('{"a":' + "[" * 200_000, b""),
            "empty": ("", b""),
        }
        for name, (header, data) in cases.items():
            with self.subTest(name=name):
                error = self.refused(self.write("bad.safetensors", safetensors(header, data)))
                self.assertEqual(error["code"], "corrupt", error)
                self.assertLess(len(error["message"]), 1000)

    def test_what_cairn_has_not_is_unsupported(self):
        for dtype in ("F4", "F6_E2M3", "F8_E8M0", "Q1"):
            file = safetensors({"a": entry(0, 8, dtype=dtype, shape=[8])}, PAIR)
            error = self.refused(self.write("a.safetensors", file))
            self.assertEqual(error["code"], "unsupported")
            self.assertIn(dtype, error["message"])

    def test_the_content_counts_and_not_the_name(self):
        file = safetensors({"a": entry(0, 8)}, PAIR)
        for name in ("model.h5", "weights", "model.pt"):
            code, table = self.inspect(self.write(name, file))
            self.assertEqual((code, table["format"]), (0, "safetensors"))
        # 123 bytes of header: the file starts with a brace.
        text = json.dumps({"a": entry(0, 8)})
        self.assertEqual(self.inspect(self.write("brace", safetensors(text.ljust(123), PAIR)))[0], 0)
        self.assertIn("git lfs pull", self.refused(self.write(
            "model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"))["message"])
        self.assertIn("JSON", self.refused(self.write("config.json", b'{"a": 1}'))["message"])


class Sharded(Tool):
    def shards(self, weight_map=None, total=16, **more):
        self.write("m-1.safetensors", safetensors({"__metadata__": {"format": "pt"}, "a": entry(0, 8)}, PAIR))
        self.write("m-2.safetensors", safetensors({"__metadata__": {"format": "pt", "n": "2"}, "b": entry(0, 8)},
                                                  PAIR[::-1]))
        index = {"metadata": {"total_size": total}, "weight_map": weight_map if weight_map is not None else
                 {"b": "m-2.safetensors", "a": "m-1.safetensors"}, **more}
        return self.write("model.safetensors.index.json", json.dumps(index).encode())

    def test_shards_are_one_checkpoint(self):
        index = self.shards()
        for path in (index, self.dir):
            code, table = self.inspect(path, "--hash", "sha256")
            self.assertEqual(code, 0, table)
            self.assertEqual({tensor["name"]: tensor["sha256"] for tensor in table["tensors"]},
                             {"a": hashlib.sha256(PAIR).hexdigest(),
                              "b": hashlib.sha256(PAIR[::-1]).hexdigest()})
            self.assertEqual([file["path"] for file in table["files"]],
                             [str(index), str(self.dir / "m-1.safetensors"), str(self.dir / "m-2.safetensors")])
            self.assertEqual(table["documents"], {
                "index": {"total_size": 16},
                "shards": {"m-1.safetensors": {"__metadata__": {"format": "pt"}},
                           "m-2.safetensors": {"__metadata__": {"format": "pt", "n": "2"}}}})
            self.assertEqual(table["warnings"], [])

    def test_a_wrong_sum_is_a_warning(self):
        warnings = self.inspect(self.shards(total=17))[1]["warnings"]
        self.assertEqual(len(warnings), 1)
        self.assertIn("17", warnings[0])

    def test_index_and_shards_must_agree(self):
        two = {"a": "m-1.safetensors", "b": "m-2.safetensors"}
        cases = {
            "m-3.safetensors": {**two, "c": "m-3.safetensors"},
            "'c'": {**two, "c": "m-2.safetensors"},
            "'b'": {"a": "m-1.safetensors", "b": "m-1.safetensors"},
            "places": {"a": "m-1.safetensors", "x": "m-2.safetensors"},
            "no shard": {**two, "c": "model.safetensors.index.json"},
            "file": {"a": ["m-1.safetensors"]},
        }
        for named, weight_map in cases.items():
            with self.subTest(named=named):
                error = self.refused(self.shards(weight_map))
                self.assertEqual(error["code"], "corrupt", error)

    def test_a_shard_is_below_the_directory_of_the_index(self):
        outside = self.dir / "outside.safetensors"
        outside.write_bytes(safetensors({"a": entry(0, 8)}, PAIR))
        (self.dir / "model").mkdir()
        for name in ("../outside.safetensors", str(outside), "x/../../outside.safetensors", "", "a\0b"):
            with self.subTest(name=name):
                index = self.write("model/model.safetensors.index.json",
                                   json.dumps({"weight_map": {"a": name}}).encode())
                self.assertEqual(self.refused(index)["code"], "unsafe")

    def test_a_directory_of_several_models_is_asked_about(self):
        for name in ("x.safetensors", "y.safetensors"):
            self.write(name, safetensors({"a": entry(0, 8)}, PAIR))
        code, told = self.inspect(self.dir)
        self.assertEqual((code, told["error"]["code"]), (2, "usage"))
        self.assertIn("x.safetensors", told["error"]["message"])

    def test_many_tensors(self):
        count = 100_000
        header = {f"layers.{i}.weight": entry(8 * i, 8 * i + 8) for i in range(count)}
        path = self.write("many.safetensors", safetensors(header, count * PAIR))
        done = run([BIN / "cairn", "verify", path, "--json"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(json.loads(done.stdout)["unchecked"], count)


class Verbs(Tool):
    def cairn(self, *words, ranks=0):
        done = run([BIN / "cairn", *words, "--json"], ranks=ranks)
        return done.returncode, json.loads(done.stdout)

    def test_verify_says_what_it_could_not_check(self):
        path = self.write("a.safetensors", safetensors({"a": entry(0, 8)}, PAIR))
        code, report = self.cairn("verify", path, ranks=2)
        self.assertEqual((code, report["tensors"], report["unchecked"]), (0, 0, 1))
        self.assertIn("not checked", run([BIN / "cairn", "verify", path]).stdout)
        path.write_bytes(path.read_bytes()[:-1])
        code, report = self.cairn("verify", path)
        self.assertEqual((code, len(report["defects"])), (1, 1))

    def test_diff_compares_values(self):
        one = self.write("one.safetensors", safetensors({"a": entry(0, 8), "b": entry(8, 16)}, PAIR + PAIR))
        two = self.write("two.safetensors", safetensors({"b": entry(0, 8), "a": entry(8, 16)}, PAIR + PAIR))
        self.assertEqual(self.cairn("diff", one, two, ranks=2)[0], 0)
        two.write_bytes(two.read_bytes()[:-1] + b"?")
        code, report = self.cairn("diff", one, two)
        self.assertEqual((code, [tensor["name"] for tensor in report["tensors"]]), (1, ["a"]))

    def test_diff_of_a_container_and_its_weights(self):
        container = self.dir / "step-00000001.h5"
        self.assertEqual(self.sample_save(container, 1, 1).returncode, 0)
        _, table = self.inspect(container)
        whole = container.read_bytes()
        header, data = {}, b""
        names = {"f32": "F32", "bf16": "BF16", "i64": "I64", "bool": "BOOL"}
        for tensor in table["tensors"]:
            if tensor["dtype"] not in names or tensor["layout"] != "contiguous" or not tensor["extents"]:
                continue
            if not tensor["name"].startswith("model/counting."):
                continue
            start = min(extent["offset"] for extent in tensor["extents"])
            header[tensor["name"].removeprefix("model/")] = {
                "dtype": names[tensor["dtype"]], "shape": tensor["shape"],
                "data_offsets": [len(data), len(data) + tensor["bytes"]]}
            data += whole[start : start + tensor["bytes"]]
        weights = self.write("weights.safetensors", safetensors(header, data))
        for a, b, mine in ((container, weights, "only_in_b"), (weights, container, "only_in_a")):
            code, report = self.cairn("diff", a, b, ranks=2)
            self.assertEqual(code, 1)
            self.assertEqual(report[mine], [])
            self.assertEqual(report["tensors"], [])
            self.assertEqual(report["compared"]["tensors"], len(header))
            self.assertEqual(report["documents"], [])


if __name__ == "__main__":
    unittest.main()
