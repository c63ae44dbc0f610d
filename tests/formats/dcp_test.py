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
    file, model = keep(text("__0_0.distcp")), keep(text("model"))
    zero, two = size + b"K\x00\x85\x85R", size + b"K\x02\x85\x85R"
    entries, storage, paths = [], [], []
    for i in range(count):
        key = f"layers.{i}.self_attn.q_proj.weight"
        name = text("model." + key)
        part = made(chunk, offsets=zero, sizes=two)
        entries.append(name + made(tensor, properties=made(properties, dtype=dtype, layout=b"N", requires_grad=b"\x89"),
                                   size=two, chunks=b"]" + part + b"a"))
        storage.append(made(index, fqn=name, offset=zero, index=b"N") +
                       made(info, relative_path=file, offset=number(i * length), length=number(length)))
        paths.append(name + model + text(key) + b"\x86")
    whole = made(root, state_dict_metadata=b"}(" + b"".join(entries) + b"u",
                 planner_data=b"}(" + b"".join(paths) + b"u",
                 storage_data=b"}(" + b"".join(storage) + b"u")
    return b"\x80\x02" + b"".join(kept) + whole + b"."


def by_path(entries):
    return {json.dumps(entry["path"]): entry for entry in entries}


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
                self.assertEqual(by_path(table["objects"]), by_path(expected.get("objects", [])))
                self.assertEqual((table["opaque"], table["arrays"], table["warnings"]), ([], [], []))
                self.assertEqual(table["documents"]["globals"], expected.get("globals", table["documents"]["globals"]))
                self.assertNotIn("values", table["documents"])
                facts = expected.get("metadata", {})
                groups = [o["param_groups"] for o in table["documents"].get("optimizers", [])]
                self.assertEqual(groups, [facts["param_groups"]] if "param_groups" in facts else [])

    def test_a_container_tells_what_the_values_said(self):
        corpus_entries()
        source, target, back = CORPUS / "dcp" / "r2_fsdp2_adamw", self.dir / "a.h5", self.dir / "a.pt"
        self.assertEqual(self.cairn("convert", source, target, ranks=2)[0], 0)
        told = self.cairn("inspect", target)[1]["documents"]
        self.assertEqual((told["training"]["extra"], told["optimizers"][0]["param_groups"][0]["lr"]),
                         ({"epoch": 2, "global_step": 2}, 0.002))
        # A file of PyTorch's has all at its place.
        code, done = self.cairn("convert", source, back)
        self.assertEqual((code, done["left_out"]), (0, []))
        whole, found = self.cairn("inspect", source)[1], self.cairn("inspect", back)[1]
        self.assertEqual(by_path(found["objects"]), by_path(whole["objects"]))
        self.assertEqual(by_path(found["tensors"]).keys(), by_path(whole["tensors"]).keys())
        self.assertEqual(found["documents"]["optimizers"][0]["parameters"],
                         whole["documents"]["optimizers"][0]["parameters"])
        self.assertTrue(self.cairn("diff", target, back)[1]["equal"])

    def test_values_that_are_not_read_are_named(self):
        weight = fake_torch.save((2,), bytes(8))
        values = {"large": (("large",), fake_torch.archive(b"x" * (2 << 20))),
                  "raw": (("raw",), b"no file of torch.save's"),
                  "sparse": (("sparse",), fake_torch.archive([fake_torch.call(
                      "torch._utils", "_rebuild_sparse_tensor", 0, ())])),
                  "a.lr": (("a", "lr"), fake_torch.archive(0.5))}
        fake_torch.dcp(self.dir / "some", {"w": ((2,), ("w",), [((0,), (2,), weight)])}, values)
        code, table = self.cairn("inspect", self.dir / "some", ranks=2)
        self.assertEqual(code, 0, table)
        self.assertEqual(table["documents"]["values"], ["large", "raw", "sparse"])
        self.assertEqual(len(table["warnings"]), 1)
        self.assertIn("'sparse' is not read", table["warnings"][0])
        self.assertEqual([(o["path"], o["value"]) for o in table["objects"]], [(["a", "lr"], 0.5)])
        # Many small ones are read up to a bound of all, and the others named.
        many = {f"v{i:02}": ((f"v{i:02}",), fake_torch.archive(b"x" * 1_000_000)) for i in range(20)}
        fake_torch.dcp(self.dir / "many", {"w": ((2,), ("w",), [((0,), (2,), weight)])}, many)
        path = self.dir / "many"
        code, table = self.cairn("inspect", path, memory=memory_for(path))
        self.assertEqual(code, 0, table)
        self.assertEqual(table["documents"]["values"], [f"v{i:02}" for i in range(16, 20)])

    def test_values_that_are_broken_are_refused(self):
        weight, good = fake_torch.save((2,), bytes(8)), fake_torch.archive({"epoch": 3})
        at = good.index(b"epoch")
        cases = {"damaged": (good[:at] + b"EPOCH" + good[at + 5:], "corrupt"),
                 "cut": (good[:-40], "corrupt"),
                 "unsafe": (fake_torch.archive(fake_torch.call("os", "system", "true")), "unsafe")}
        for name, (content, reason) in cases.items():
            with self.subTest(name=name):
                path = self.dir / name
                fake_torch.dcp(path, {"w": ((2,), ("w",), [((0,), (2,), weight)])}, {"extra": (("extra",), content)})
                code, told = self.cairn("inspect", path, ranks=2)
                self.assertEqual((code, told["error"]["code"]), (2, reason), told)
                self.assertIn("'extra'", told["error"]["message"])

    def test_tensors_within_values_are_tensors(self):
        content = struct.pack("<3f", 1, 2, 3)
        value = fake_torch.archive((fake_torch.tensor((3,), content), {"n": 1}))  # PyTorch flattens no tuples
        weight = fake_torch.save((2,), bytes(8))
        path = self.dir / "tuple"
        fake_torch.dcp(path, {"model.w": ((2,), ("model", "w"), [((0,), (2,), weight)])},
                       {"pair": (("pair",), value)})
        code, table = self.cairn("inspect", path, "--hash", "sha256", ranks=2)
        self.assertEqual(code, 0, table)
        tensor = by_path(table["tensors"])['["pair", 0]']
        self.assertEqual((tensor["name"], tensor["sha256"]), ("pair.0", hashlib.sha256(content).hexdigest()))
        self.assertEqual([o["path"] for o in table["objects"]], [["pair", 1, "n"]])
        self.assertEqual(self.cairn("verify", path)[0], 0)
        data = path / "__0_0.distcp"
        data.write_bytes(data.read_bytes().replace(content, bytes(12)))
        self.assertEqual(self.cairn("verify", path)[0], 1)

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
            "app.model.none": ((0, 4), ("app", "model", "none"), []),
        }, {"epoch": (("epoch",), fake_torch.archive(3))})
        code, table = self.cairn("inspect", path, "--hash", "sha256", ranks=2)
        self.assertEqual(code, 0, table)
        tensors = {t["name"]: t for t in table["tensors"]}
        self.assertEqual(tensors["app.model.w"]["sha256"],
                         hashlib.sha256(floats(0, 1, 2, 3, 4, 5)).hexdigest())
        self.assertEqual(tensors["app.model.w"]["path"], ["app", "model", "w"])
        self.assertEqual(tensors["app.model.none"]["shape"], [0, 4])
        self.assertEqual(table["documents"]["training"], {"kind": "pytorch", "epoch": 3})
        # Their paths tell what they are in a container.
        target = self.dir / "a.h5"
        self.assertEqual(self.cairn("convert", path, target, ranks=2)[0], 0)
        self.assertEqual({t["name"] for t in self.cairn("inspect", target)[1]["tensors"]},
                         {"model/w", "model/none", "optimizer/w/exp_avg"})
        self.assertTrue(self.cairn("diff", target, path, ranks=3)[1]["equal"])

    def test_what_lightning_keeps_beside_it_is_read(self):
        path = self.dir / "fsdp"
        weight = fake_torch.save((2,), bytes(8))
        groups = {f"optimizer_0.param_groups.0.{key}": (("optimizer_0", "param_groups", 0, key), fake_torch.archive(value))
                  for key, value in {"lr": 0.25, "params": ["w"]}.items()}
        fake_torch.dcp(path, {"model.w": ((2,), ("model", "w"), [((0,), (2,), weight)]),
                              "optimizer_0.state.w.exp_avg": ((2,), ("optimizer_0", "state", "w", "exp_avg"),
                                                              [((0,), (2,), weight)])}, groups)
        (path / "meta.pt").write_bytes(fake_torch.archive({
            "epoch": 3, "global_step": 7, "pytorch-lightning_version": "2.4.0", "loops": {"fit_loop": {}},
            "lr_schedulers": [{"last_epoch": 2}], "hyper_parameters": {"rate": fake_torch.tensor((1,), bytes(4))}}))
        code, table = self.cairn("inspect", path, ranks=2)
        self.assertEqual((code, table["warnings"]), (0, []), table)
        self.assertIn("hyper_parameters/rate", {t["name"] for t in table["tensors"]})
        told = table["documents"]["training"]
        self.assertEqual((told["kind"], told["epoch"], told["lr_schedulers"]), ("lightning", 3, [{"last_epoch": 2}]))
        self.assertEqual(table["documents"]["roles"], {"model": ["model"], "optimizer": ["optimizer_0"]})
        code, done = self.cairn("convert", path, self.dir / "a.ckpt")
        self.assertEqual((code, [part["name"] for part in done["left_out"]]), (0, ["optimizer_0"]), done)
        found = self.cairn("inspect", self.dir / "a.ckpt")[1]
        self.assertIn(["state_dict", "w"], [t["path"] for t in found["tensors"]])
        self.assertEqual(found["documents"]["training"]["lr_schedulers"], [{"last_epoch": 2}])
        # What is no file of torch.save's, or broken.
        (path / "meta.pt").write_bytes(fake_torch.archive(fake_torch.call("os", "system", "true")))
        code, told = self.cairn("inspect", path)
        self.assertEqual((code, told["error"]["code"]), (2, "unsafe"), told)

    def test_what_ranks_saved_by_themselves(self):
        def part(*values):
            return fake_torch.save((len(values),), struct.pack(f"<{len(values)}f", *values))

        path = self.dir / "ranks"
        for rank in range(2):
            fake_torch.dcp(path, {
                "model.cut": ((4,), ("model", "cut"), [((2 * rank,), (2,), part(2 * rank, 2 * rank + 1))]),
                "model.same": ((2,), ("model", "same"), [((0,), (2,), part(8, 9))]),
                "own": ((1,), ("own",), [((0,), (1,), part(rank))]),
            }, {"epoch": (("epoch",), fake_torch.archive(3)), "seed": (("seed",), fake_torch.archive(rank))}, rank=rank)
        code, table = self.cairn("inspect", path, "--hash", "sha256", ranks=2)
        self.assertEqual(code, 0, table)
        found = {t["name"]: (t["shape"], t["sha256"]) for t in table["tensors"]}
        self.assertEqual(found, {
            name: ([len(values)], hashlib.sha256(struct.pack(f"<{len(values)}f", *values)).hexdigest())
            for name, values in {"model.cut": (0, 1, 2, 3), "model.same": (8, 9), "__0/own": (0,),
                                 "__1/own": (1,)}.items()})
        self.assertEqual({tuple(o["path"]): o["value"] for o in table["objects"]},
                         {("epoch",): 3, ("__0/seed",): 0, ("__1/seed",): 1})
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
        self.assertIn("without CRCs", " ".join(table["warnings"]))
        code, told = self.cairn("verify", self.dir / "ranks")
        self.assertEqual((code, told["unchecked"]), (0, 2), told)

    def test_a_flattened_optimizer_is_one(self):
        part = fake_torch.save((1,), struct.pack("<f", 8))
        tensors = {"layers.0.w": ("layers.0.w",), "optimizer.state.layers.0.w.exp_avg": ("optimizer", "state.layers.0.w.exp_avg"),
                   "optimizer.state.w": ("optimizer", "state.w")}
        fake_torch.dcp(self.dir / "flat", {name: ((1,), path, [((0,), (1,), part)]) for name, path in tensors.items()})
        code, told = self.cairn("convert", self.dir / "flat", self.dir / "a.h5")
        self.assertEqual(code, 0, told)
        self.assertEqual({t["name"] for t in self.cairn("inspect", self.dir / "a.h5")[1]["tensors"]},
                         {"model/layers.0.w", "optimizer/layers.0.w/exp_avg", "model/optimizer.state.w"})
        self.assertTrue(self.cairn("diff", self.dir / "flat", self.dir / "a.h5")[1]["equal"])

    def test_parts_must_not_share_their_bytes(self):
        part = fake_torch.save((1,), struct.pack("<f", 8))
        bare = fake_torch.without_crcs(part)
        value = fake_torch.without_crcs(fake_torch.archive({"w": fake_torch.tensor((1,), bytes(4))}))
        around = fake_torch.save((len(bare) // 4 + 1,), bare + bytes(4 - len(bare) % 4))
        tensors = {"two parts": (part, part, {"b": 0}), "without CRCs": (bare, bare, {"b": 0}),
                   "one in the other": (around, bare, {"b": around.find(bare)})}
        for name, (first, second, at) in tensors.items():
            with self.subTest(name=name):
                count = (len(bare) // 4 + 1,) if first is around else (1,)
                fake_torch.dcp(self.dir / name, {"a": (count, ("a",), [((0,), count, first)]),
                                                 "b": ((1,), ("b",), [((0,), (1,), second)])}, at=at)
                self.expect_shared(self.dir / name)
        fake_torch.dcp(self.dir / "values", {}, {name: ((name,), value) for name in "ab"}, at={"b": 0})
        self.expect_shared(self.dir / "values")

    def expect_shared(self, path):
        code, told = self.cairn("inspect", path)
        self.assertEqual((code, told.get("error", {}).get("code")), (2, "corrupt"), told)
        self.assertIn("same place", told["error"]["message"])

    def test_values_without_crcs_are_told_of(self):
        value = fake_torch.without_crcs(fake_torch.archive({"epoch": 3}))
        fake_torch.dcp(self.dir / "values", {}, {"meta": (("meta",), value)})
        code, table = self.cairn("inspect", self.dir / "values")
        self.assertEqual((code, len(table["objects"])), (0, 1), table)
        self.assertIn("without CRCs", " ".join(table["warnings"]))

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
        contents = [struct.pack("<2f", i, -i) for i in range(7)]
        archives = [fake_torch.save((2,), content) for content in contents]
        (path / "__0_0.distcp").write_bytes(b"".join(archives[i % 7] for i in range(count)))
        (path / ".metadata").write_bytes(many_tensors(count, len(archives[0])))
        code, told = self.cairn("inspect", path, "--hash", "sha256")
        self.assertEqual(code, 0, told)
        self.assertEqual(len(told["tensors"]), count)
        sums = [hashlib.sha256(content).hexdigest() for content in contents]
        for tensor in told["tensors"]:
            layer = int(tensor["name"].split(".")[2])
            self.assertEqual(tensor["sha256"], sums[layer % 7], tensor["name"])
            self.assertEqual(tensor["path"], ["model", tensor["name"].removeprefix("model.")])

    def test_small_parts_in_any_order(self):
        order = [3, 4, 5, 0, 1, 2, 8, 6, 7]
        contents = [struct.pack("<2f", i, i) for i in range(9)]
        archives = [fake_torch.save((2,), content) for content in contents]
        bytes_of_each = len(archives[0])
        fake_torch.dcp(self.dir / "a", {f"w{i}": ((2,), (f"w{i}",), [((0,), (2,), archives[i])]) for i in order},
                       at={f"w{i}": i * bytes_of_each for i in order}, later={"w4": 8 * bytes_of_each, "w8": 4 * bytes_of_each})
        (self.dir / "a" / "__0_0.distcp").write_bytes(b"".join(archives))
        code, told = self.cairn("inspect", self.dir / "a", "--hash", "sha256")
        self.assertEqual(code, 0, told)
        contents[4], contents[8] = contents[8], contents[4]  # of two equal keys, the last counts
        self.assertEqual({t["name"]: t["sha256"] for t in told["tensors"]},
                         {f"w{i}": hashlib.sha256(contents[i]).hexdigest() for i in order})

    def test_one_text_in_many_paths_takes_its_memory(self):
        names, key = [f"n{i}" for i in range(2000)], "k" * (1 << 20)
        path = self.dir / "a"
        fake_torch.dcp(path, {name: ((0,), (key,), []) for name in names})
        self.assertLess((path / ".metadata").stat().st_size, 4 << 20)
        code, told = self.cairn("inspect", path, memory=memory_for(path))
        self.assertEqual((code, told["error"]["code"]), (2, "unsafe"), told)
        self.assertIn("table of tensors", told["error"]["message"])

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
