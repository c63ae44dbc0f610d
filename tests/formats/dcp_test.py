"""Directories of PyTorch's distributed checkpoints, through the cairn tool."""

import hashlib
import json
import shutil
import struct
import unittest

import fake_torch
from harness import BIN, CORPUS, Case, corpus_entries, memory_for, run


def many_tensors(count, length):
    """A .metadata of tensors of shape [2], each in one archive of `length` bytes, as PyTorch pickles it: names of
    classes and fields once, then by reference. (Objects in Python would take a minute.)"""
    metadata, torch = "torch.distributed.checkpoint.metadata", "torch"
    kept = []

    def keep(code):
        kept.append(code + b"q" + bytes([len(kept)]) + b"0")
        return b"h" + bytes([len(kept) - 1])

    def cls(module, name):
        return keep(f"c{module}\n{name}\n".encode())

    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def number(value):
        return b"J" + struct.pack("<i", value)

    def made(of, **fields):
        return of + b")\x81}(" + b"".join(names[name] + value for name, value in fields.items()) + b"ub"

    size = cls(torch, "Size")
    chunk, index = cls(metadata, "ChunkStorageMetadata"), cls(metadata, "MetadataIndex")
    properties, tensor, root = (cls(metadata, f"{name}") for name in
                                ("TensorProperties", "TensorStorageMetadata", "Metadata"))
    info = cls("torch.distributed.checkpoint.filesystem", "_StorageInfo")
    dtype = cls(torch, "float32")
    names = {name: keep(text(name)) for name in (
        "offsets", "sizes", "fqn", "offset", "index", "relative_path", "length", "dtype", "layout", "requires_grad",
        "properties", "size", "chunks", "state_dict_metadata", "planner_data", "storage_data")}
    file = keep(text("__0_0.distcp"))
    zero, two = size + b"K\x00\x85\x85R", size + b"K\x02\x85\x85R"
    entries, storage = [], []
    for i in range(count):
        name = text(f"model.layers.{i}.self_attn.q_proj.weight")
        part = made(chunk, offsets=zero, sizes=two)
        entries.append(name + made(tensor, properties=made(properties, dtype=dtype, layout=b"N", requires_grad=b"\x89"),
                                   size=two, chunks=b"]" + part + b"a"))
        storage.append(made(index, fqn=name, offset=zero, index=b"N") +
                       made(info, relative_path=file, offset=number(i * length), length=number(length)))
    whole = made(root, state_dict_metadata=b"}(" + b"".join(entries) + b"u", planner_data=b"}",
                 storage_data=b"}(" + b"".join(storage) + b"u")
    return b"\x80\x02" + b"".join(kept) + whole + b"."


class Dcp(Case):
    def cairn(self, *words, ranks=0, memory=None):
        done = run([BIN / "cairn", *words, "--json"], ranks=ranks, cwd=self.dir, memory=memory)
        self.assertIn(done.returncode, (0, 1, 2), done.stderr[-2000:])
        return done.returncode, json.loads(done.stdout)

    def test_what_pytorch_wrote_is_read(self):
        entries = [e for e in corpus_entries("dcp/", "hostile/dcp/") if e["expect"] == "load"]
        self.assertTrue(entries)
        for expected in entries:
            with self.subTest(path=expected["path"]):
                path = CORPUS / expected["path"]
                code, table = self.cairn("inspect", path, "--hash", "sha256", ranks=3)
                self.assertEqual(code, 0, table)
                self.assertEqual(table["format"], "dcp")
                keys = ("name", "path", "dtype", "shape", "sha256")
                self.assertEqual(sorted(([t[key] for key in keys] for t in table["tensors"]), key=str),
                                 sorted(([t[key] for key in keys] for t in expected["tensors"]), key=str))
                # What is no tensor is named.
                names = table["documents"].get("values", [])
                self.assertEqual(bool(names), bool(expected.get("objects")))

    def test_parts_wherever_they_lie(self):
        def floats(*values):
            return struct.pack(f"<{len(values)}f", *values)

        column = fake_torch.save((2, 1), floats(9, 0, 9, 3, 9), strides=(2, 1), first=1)  # not dense
        rest = fake_torch.save((2, 2), floats(1, 2, 4, 5))
        moment = fake_torch.save((2,), floats(7, 8))
        path = self.dir / "made"
        fake_torch.dcp(path, {
            "app.model.w": ((2, 3), ("app", "model", "w"), [((0, 0), (2, 1), column), ((0, 1), (2, 2), rest)]),
            "optimizer.state.w.exp_avg": ((2,), ("optimizer", "state", "w", "exp_avg"), [((0,), (2,), moment)]),
            "model.none": ((0, 4), ("model", "none"), []),
        }, values=["epoch"])
        code, table = self.cairn("inspect", path, "--hash", "sha256", ranks=2)
        self.assertEqual(code, 0, table)
        tensors = {t["name"]: t for t in table["tensors"]}
        self.assertEqual(tensors["app.model.w"]["sha256"],
                         hashlib.sha256(floats(0, 1, 2, 3, 4, 5)).hexdigest())
        self.assertEqual(tensors["app.model.w"]["path"], ["app", "model", "w"])
        self.assertEqual(tensors["model.none"]["shape"], [0, 4])
        self.assertEqual(table["documents"], {"values": ["epoch"]})
        # Their paths tell what they are in a container.
        target = self.dir / "a.h5"
        self.assertEqual(self.cairn("convert", path, target, ranks=2)[0], 0)
        self.assertEqual({t["name"] for t in self.cairn("inspect", target)[1]["tensors"]},
                         {"model/w", "model/none", "optimizer/w/exp_avg"})
        self.assertTrue(self.cairn("diff", target, path, ranks=3)[1]["equal"])

    def test_what_lightning_keeps_beside_it_is_missed(self):
        path = self.dir / "fsdp"
        fake_torch.dcp(path, {"w": ((2,), ("w",), [((0,), (2,), fake_torch.save((2,), bytes(8)))])})
        self.assertEqual(self.cairn("inspect", path)[1]["warnings"], [])
        (path / "meta.pt").write_bytes(fake_torch.archive({"epoch": 3, "pytorch-lightning_version": "2.4.0"}))
        code, table = self.cairn("inspect", path, ranks=2)
        self.assertEqual((code, [t["name"] for t in table["tensors"]]), (0, ["w"]), table)
        self.assertEqual(len(table["warnings"]), 1)
        self.assertRegex(table["warnings"][0], "'meta.pt'.*epoch.*loops.*callbacks.*not read")

    def test_what_ranks_saved_by_themselves(self):
        def part(*values):
            return fake_torch.save((len(values),), struct.pack(f"<{len(values)}f", *values))

        path = self.dir / "ranks"
        for rank in range(2):
            fake_torch.dcp(path, {
                "model.cut": ((4,), ("model", "cut"), [((2 * rank,), (2,), part(2 * rank, 2 * rank + 1))]),
                "model.same": ((2,), ("model", "same"), [((0,), (2,), part(8, 9))]),
                "own": ((1,), ("own",), [((0,), (1,), part(rank))]),
            }, values=["epoch"], rank=rank)
        code, table = self.cairn("inspect", path, "--hash", "sha256", ranks=2)
        self.assertEqual(code, 0, table)
        found = {t["name"]: (t["shape"], t["sha256"]) for t in table["tensors"]}
        self.assertEqual(found, {
            name: ([len(values)], hashlib.sha256(struct.pack(f"<{len(values)}f", *values)).hexdigest())
            for name, values in {"model.cut": (0, 1, 2, 3), "model.same": (8, 9), "__0/own": (0,),
                                 "__1/own": (1,)}.items()})
        self.assertEqual(table["documents"], {"values": ["epoch"]})
        (path / "__0.metadata").unlink()
        code, told = self.cairn("inspect", path)
        self.assertEqual((code, told["error"]["code"]), (2, "corrupt"), told)
        self.assertIn("missing", told["error"]["message"])

    def test_copies_without_crcs_are_tensors_of_their_own(self):
        part = fake_torch.without_crcs(fake_torch.save((1,), struct.pack("<f", 8)))
        for rank in range(2):
            fake_torch.dcp(self.dir / "ranks", {"same": ((1,), ("same",), [((0,), (1,), part)])}, rank=rank)
        code, table = self.cairn("inspect", self.dir / "ranks")
        self.assertEqual((code, [t["name"] for t in table["tensors"]]), (0, ["__0/same", "__1/same"]), table)
        code, told = self.cairn("verify", self.dir / "ranks")
        self.assertEqual((code, told["unchecked"]), (0, 2), told)

    def test_parts_in_safetensors(self):
        def shard(number, tensors):
            header, data = {"__metadata__": {"DCP_SHARDING_INFO": json.dumps(
                {name: {"saved_offsets": start} for name, (start, _, _) in tensors.items()}),
                "DCP_VERSION": "1.0", "format": "pt"}}, b""
            for name, (_, shape, values) in tensors.items():
                content = struct.pack(f"<{len(values)}f", *values)
                header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
                data += content
            text = json.dumps(header).encode()
            (path / f"shard-{number:05d}-model-00001-of-00001.safetensors").write_bytes(
                struct.pack("<Q", len(text)) + text + data)

        path = self.dir / "sharded"
        path.mkdir()
        shard(1, {"w": ([0, 0], [2, 1], (0, 2)), "bias": ([0], [2], (7, 8))})
        shard(2, {"w": ([0, 1], [2, 1], (1, 3))})
        code, table = self.cairn("inspect", path, "--hash", "sha256", ranks=2)
        self.assertEqual(code, 0, table)
        self.assertEqual({t["name"]: (t["shape"], t["sha256"]) for t in table["tensors"]},
                         {"w": ([2, 2], hashlib.sha256(struct.pack("<4f", 0, 1, 2, 3)).hexdigest()),
                          "bias": ([2], hashlib.sha256(struct.pack("<2f", 7, 8)).hexdigest())})
        self.assertEqual(self.cairn("convert", path, self.dir / "a.h5", ranks=2)[0], 0)
        self.assertTrue(self.cairn("diff", path, self.dir / "a.h5")[1]["equal"])
        for start, shape in (([0, 2], [2, 1]), ([0, 0], [2, 1]), ([0], [2, 1])):  # a gap, an overlap, nonsense
            with self.subTest(start=start):
                shard(2, {"w": (start, shape, (1, 3))})
                code, told = self.cairn("inspect", path)
                self.assertEqual((code, told["error"]["code"]), (2, "corrupt"), told)

    def test_a_hundred_thousand_tensors_are_read(self):
        count = 100_000
        path = self.dir / "many"
        path.mkdir()
        archive = fake_torch.save((2,), bytes(8))
        (path / "__0_0.distcp").write_bytes(archive * count)
        (path / ".metadata").write_bytes(many_tensors(count, len(archive)))
        code, told = self.cairn("inspect", path)
        self.assertEqual(code, 0, told)
        self.assertEqual(len(told["tensors"]), count)

    def test_parts_must_fit(self):
        two = fake_torch.save((2,), bytes(8))
        cases = {
            "gap": ((6,), [((0,), (2,), two), ((4,), (2,), two)]),
            "overlap": ((3,), [((0,), (2,), two), ((1,), (2,), two)]),
            "outside": ((3,), [((0,), (2,), two), ((2,), (2,), two)]),
            "another shape": ((3,), [((0,), (3,), two)]),
            "another type": ((2,), [((0,), (2,), fake_torch.save((2,), bytes(16), "DoubleStorage", 8))]),
            "no archive": ((2,), [((0,), (2,), b"nothing of the kind")]),
        }
        for name, (shape, parts) in cases.items():
            with self.subTest(name=name):
                path = self.dir / name
                fake_torch.dcp(path, {"w": (shape, ("w",), parts)})
                code, told = self.cairn("inspect", path, ranks=2)
                self.assertEqual((code, told["error"]["code"]), (2, "corrupt"), told)
                self.assertIn(str(path), told["error"]["message"])

    def test_it_becomes_a_container(self):
        for name in ("r2_fsdp2_adamw", "r4_mixed_placements"):
            source = CORPUS / "dcp" / name
            if not source.exists():
                self.skipTest(f"NOT TESTED: no corpus of checkpoints at {CORPUS}; set CAIRN_CORPUS")
            target = self.dir / f"{name}.h5"
            self.assertEqual(self.cairn("convert", source, target, ranks=3)[0], 0)
            self.assertEqual(self.cairn("diff", source, target, ranks=2), self.cairn("diff", source, target))
            self.assertTrue(self.cairn("diff", source, target)[1]["equal"])

    def test_what_is_wrong_is_refused_for_the_right_reason(self):
        entries = [e for e in corpus_entries("hostile/dcp/") if e["expect"] == "refuse"]
        self.assertTrue(entries)
        for expected in entries:
            with self.subTest(path=expected["path"]):
                outcomes = [expected, *expected.get("also_accept", [])]
                reasons = {outcome.get("reason") for outcome in outcomes if outcome["expect"] == "refuse"}
                path = CORPUS / expected["path"]
                code, told = self.cairn("inspect", path, memory=memory_for(path))
                if code == 0:
                    self.assertIn("load", [outcome["expect"] for outcome in outcomes])
                else:
                    self.assertIn(told["error"]["code"], reasons, told)
        self.assertEqual(list(self.dir.iterdir()), [], "reading a file made another")

    def test_a_data_file_that_is_cut_is_noticed(self):
        entries = [e for e in corpus_entries("dcp/") if e["path"] == "dcp/r1_plain"]
        self.assertTrue(entries)
        copy = self.dir / "copy"
        shutil.copytree(CORPUS / "dcp/r1_plain", copy)
        copy.chmod(0o755)
        data = copy / "__0_0.distcp"
        data.chmod(0o644)
        data.write_bytes(data.read_bytes()[:2000])
        code, told = self.cairn("inspect", copy, ranks=2)
        self.assertEqual((code, told["error"]["code"]), (2, "corrupt"))


if __name__ == "__main__":
    unittest.main()
