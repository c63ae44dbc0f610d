"""Small files that ask for much: for memory beyond the file's size, for the stack, for hours, or for the terminal."""

import collections
import io
import json
import os
import pickle
import struct
import subprocess
import unicodedata
import unittest
import zipfile
import zlib

import h5py
import numpy

import fake_torch
from harness import BIN, ENVIRONMENT, Case, memory_for, run

MAGIC = 0x1950A86A20F9469CFC6C


def safetensors(header):
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text)) + text


def zipped(members):
    """A zip archive of {name: (bytes, method)}."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, (data, method) in members.items():
            archive.writestr(name, data, method, 9)
    return out.getvalue()


class Hostile(Case):
    def write(self, name, content):
        path = self.dir / name
        path.write_bytes(content)
        return path

    def inspect(self, path):
        done = run([BIN / "cairn", "inspect", "--json", path], cwd=self.dir, memory=memory_for(path))
        self.assertIn(done.returncode, (0, 2), done.stderr[-2000:])
        return json.loads(done.stdout)

    def refused(self, path, *codes):
        told = self.inspect(path)
        self.assertIn(told.get("error", {}).get("code"), codes, str(told)[:1000])
        return told["error"]["message"]

    def rewritten(self, name, chunk, filters, stored):
        """A container in which h5py replaced the dataset `name`; stored(its bytes) is what its one chunk is stored as."""
        path = self.dir / "rewritten.h5"
        self.assertEqual(self.sample_save(path, 1, 1).returncode, 0)
        with h5py.File(path, "r+") as file:
            value = numpy.asarray(file[name][()])
            body = value.tobytes()
            if value.dtype.kind == "S":
                shape, kind = (8192,), h5py.h5t.STD_U8LE
                body = body.ljust(8192, b"\0")
            else:
                shape, kind = value.shape, h5py.h5t.py_create(value.dtype)
            del file[name]
            creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            creation.set_chunk((chunk or shape[0], *shape[1:]))
            filters(creation)
            unlimited = (h5py.h5s.UNLIMITED,) * len(shape)
            space = h5py.h5s.create_simple(shape, unlimited)
            dataset = h5py.h5d.create(file.id, name.encode(), kind, space, creation)
            dataset.write_direct_chunk((0,) * len(shape), stored(body))
        return path

    @staticmethod
    def deflated(body, more=0):
        packer = zlib.compressobj(9 if more < 100 else 1)
        return packer.compress(body) + b"".join(packer.compress(bytes(1 << 20)) for _ in range(more)) + packer.flush()

    def test_a_rewritten_container_inflates_to_its_chunks(self):
        def nested(creation):
            for _ in range(3):
                creation.set_deflate(9)

        def shuffled_late(creation):
            creation.set_deflate(9)
            creation.set_shuffle()

        def foreign(creation):
            creation.set_filter(32000, h5py.h5z.FLAG_OPTIONAL)

        def once(creation):
            creation.set_deflate(9)

        one, many = self.deflated, lambda body: self.deflated(body, 512)
        three = lambda body: zlib.compress(zlib.compress(many(body), 9), 9)
        cases = [
            (None, nested, three, "unsafe", "filter 1 in place 2"),
            (None, shuffled_late, one, "unsafe", "filter 2 in place 2"),
            (None, foreign, one, "unsafe", "filter 32000"),
            (512 << 20, once, many, "unsafe", "64 MiB"),
            (None, once, many, "unsafe", "stored in"),
            (None, once, lambda body: self.deflated(body, 8), "corrupt", "does not give 8192 bytes"),
            (None, once, lambda body: self.deflated(body[:-1]), "corrupt", "does not give 8192 bytes"),
        ]
        for chunk, filters, stored, code, words in cases:
            with self.subTest(words=words):
                self.assertIn(words, self.refused(self.rewritten("commit", chunk, filters, stored), code))
        self.assertNotIn("error", self.inspect(self.rewritten("commit", None, once, one)))

    def test_a_tensor_of_a_rewritten_container_inflates_to_its_chunks(self):
        def once(creation):
            creation.set_deflate(9)

        for chunk, more, code in ((1 << 17, 512, "unsafe"), (None, 512, "unsafe"), (None, 16, "corrupt")):
            path = self.rewritten("model/large", chunk, once, lambda body: self.deflated(body, more))
            done = run([BIN / "cairn", "inspect", "--json", "--hash", "sha256", path], memory=memory_for(path))
            self.assertEqual(done.returncode, 2, done.stderr)
            error = json.loads(done.stdout)["error"]
            self.assertEqual(error["code"], code, error)
            self.assertIn("/model/large", error["message"])

    def test_a_pickle_unpacks_to_what_its_bytes_can_hold(self):
        small = zipped({"a/data.pkl": (b"\x80\x02}.", zipfile.ZIP_DEFLATED)})
        at = small.index(b"PK\1\2") + 24
        liar = small[:at] + struct.pack("<I", 512 << 20) + small[at + 4:]
        self.assertIn("claims", self.refused(self.write("liar.pt", liar), "corrupt"))
        bomb = zipped({"a/data.pkl": (b"\x80\x02" + b"N0" * (200 << 20) + b"}.", zipfile.ZIP_DEFLATED)})
        self.assertLess(len(bomb), 1 << 20)
        self.assertIn("unpacked", self.refused(self.write("bomb.pt", bomb), "unsafe"))

    def test_metadata_of_many_values_is_left_out(self):
        deflated = zipfile.ZIP_DEFLATED
        for text in ('{"a":[' + "[]," * 9_000_000 + "[]]}", '{"a":[' + "[]," * 20_000_000 + "[]]}"):
            path = self.write("a.pt", zipped({"a/data.pkl": (b"\x80\x02}.", 0), "a/anemoi.json": (text, deflated)}))
            told = self.inspect(path)
            self.assertNotIn("error", told)
            self.assertIn("anemoi", told["warnings"][0])
            self.assertNotIn("anemoi", told["documents"])

    def test_the_table_counts_every_dimension(self):
        tensor = fake_torch.tensor((1,) * 64, bytes(4), key="0")
        content = fake_torch.archive({"": [tensor] * 400_000})
        self.assertLess(len(content), 3 << 20)
        self.assertIn("table of tensors", self.refused(self.write("a.pt", content), "unsafe"))

    def test_a_long_list_of_numbers_is_left_out(self):
        numbers = b"\x80\x02}(X\x01\0\0\0a](" + b"K\x01" * 5_000_000 + b"eX\x01\0\0\0bK\x07u."
        told = self.inspect(self.write("a.pt", zipped({"a/data.pkl": (numbers, 0)})))
        self.assertNotIn("error", told)
        self.assertEqual(len(told["warnings"]), 1)

    def test_a_storage_that_is_named_again_and_again(self):
        one = b"(X\7\0\0\0storagectorch\nByteStorage\nX\1\0\0\x000X\3\0\0\0cpuK\4tq\1Q0"
        pickled = b"\x80\2" + one + b"](" + b"h\1Q" * 3_000_000 + b"e."
        content = zipped({"a/data.pkl": (pickled, 0), "a/data/0": (bytes(4), 0)})
        self.assertIn("storages", self.refused(self.write("a.pt", content), "unsafe"))

    def test_what_is_told_of_few_values_that_many_places_name(self):
        text = b"X" + struct.pack("<I", 1000) + b"x" * 1000
        record = b"cmine\nRecord\n(" + text + b"tR"
        unused = b"](" + b"N" * 14_000_000 + b"e0"
        named = {"told": b"h\1" * 22_000, "records": b"h\2" * 11_000, "tuples": b")" * 550_000}
        lists = b"".join(b"X" + struct.pack("<I", len(name)) + name.encode() + b"](" + items + b"e"
                         for name, items in named.items())
        pickled = b"\x80\2" + unused + b"}(X\1\0\0\0a" + text + b"q\1X\1\0\0\0b" + record + b"q\2" + lists + b"u."
        path = self.write("a.pt", zipped({"a/data.pkl": (pickled, zipfile.ZIP_DEFLATED)}))
        told = self.inspect(path)
        self.assertNotIn("error", told)
        self.assertIn("left out", " ".join(told["warnings"]))

    def test_a_large_pickle_is_not_held_twice(self):
        raw = 300 << 20
        pickles = b"".join(pickle.dumps(value, 2) for value in (MAGIC, 1001, {"little_endian": True}))
        path = self.dir / "old.pt"
        with open(path, "wb") as file:
            file.write(pickles + b"\x80\x03}X\x01\0\0\0aB" + struct.pack("<I", raw))
            for _ in range(raw >> 20):
                file.write(bytes(1 << 20))
            file.write(b"s." + pickle.dumps([], 2))
        told = self.inspect(path)
        self.assertEqual((told.get("format"), told["tensors"]), ("torch", []), str(told)[:1000])

    def test_empty_tensors_take_room_as_well(self):
        entry = ',"a%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
        header = "{" + "".join(entry % i for i in range(1_700_000))[1:] + "}"
        self.assertLess(len(header), 100_000_000)
        # The header, its list of tensors and the table: what the last needs may be refused by the system first.
        self.assertIn("table", self.refused(self.write("a.safetensors", safetensors(header)), "unsafe"))

    def test_a_part_in_many_pieces(self):
        part = fake_torch.save((2000, 2000), bytes(4_000_000), "ByteStorage", 1, strides=(1, 2000))
        fake_torch.dcp(self.dir / "dcp", {"w": ((2000, 2000), ("w",), [((0, 0), (2000, 2000), part)])}, dtype="uint8")
        self.assertIn("table of tensors", self.refused(self.dir / "dcp", "unsafe"))

    def zero(self, name, models, optimizers=()):
        """DeepSpeed's directory of a tag, with the files of as many ranks as there are."""
        tag = self.dir / name
        tag.mkdir()
        for kind, states in (("model", models), ("optim", optimizers)):
            contents = {}
            for rank, state in enumerate(states):
                if id(state) not in contents:
                    contents[id(state)] = fake_torch.archive(state)
                (tag / f"zero_pp_rank_{rank}_mp_rank_00_{kind}_states.pt").write_bytes(contents[id(state)])
        return tag

    def optimizer(self, stage, ranks=1, weights=None, state=()):
        key = "fp32_flat_groups" if stage == 3 else "single_partition_of_fp32_groups"
        inner = "optimizer_state_dict" if stage == 3 else "base_optimizer_state"
        return {"optimizer_state_dict": {
            "zero_stage": stage, "partition_count": ranks, inner: {"state": dict(state)},
            key: weights or [fake_torch.tensor((1,), bytes(4), key="0")]}}

    def test_parameters_that_are_named_again_and_again(self):
        names = {f"parameter {i}": fake_torch.size(1) for i in range(3000)}
        for stage in (2, 3):
            model = {"module": {}, "param_shapes": [names] * 30_000, "buffer_names": []}
            tag = self.zero(f"stage{stage}", [model], [self.optimizer(stage)])
            self.assertIn("table of tensors", self.refused(tag, "unsafe"))
        universal = self.dir / "universal"
        (universal / "zero" / "w").mkdir(parents=True)
        (universal / "zero" / "w" / "fp32.pt").write_bytes(fake_torch.save((1,), bytes(4)))
        (universal / "mp_rank_00_model_states.pt").write_bytes(fake_torch.archive(model))
        self.assertIn("table of tensors", self.refused(universal, "unsafe"))

    def test_runs_that_are_named_again_and_again(self):
        run = fake_torch.tensor((1,), bytes(4), key="0")
        state = {0: {f"slot {i}": run for i in range(20_000)}}
        model = {"module": {}, "param_shapes": [], "buffer_names": []}
        tag = self.zero("slots", [model], [self.optimizer(2, weights=[run] * 2000, state=state)])
        self.assertIn("table of tensors", self.refused(tag, "unsafe"))
        groups = self.optimizer(2)
        groups["optimizer_state_dict"]["base_optimizer_state"]["param_groups"] = [{}] * 6_000_000
        told = self.inspect(self.zero("groups", [{**model, "param_shapes": [{"w": fake_torch.size(1)}]}], [groups]))
        self.assertEqual(told["documents"]["deepspeed"]["param_groups"][-1], "...")
        tag = self.zero("runs", [model], [self.optimizer(2, weights=[run] * 6_000_000)])
        self.assertIn("table of tensors", self.refused(tag, "unsafe"))

    def test_a_long_name_that_many_share(self):
        shared = dict.fromkeys((f"alias {i}" for i in range(2000)), "x" * (1 << 20))
        model = {"module": {}, "param_shapes": [{"w": fake_torch.size(1)}], "buffer_names": [], "shared_params": shared}
        self.assertIn("table of tensors", self.refused(self.zero("shared", [model], [self.optimizer(2)]), "unsafe"))

    def test_files_of_many_ranks_come_one_by_one(self):
        ranks, shape = 6, fake_torch.size(6)
        part = {"module": {}, "param_shapes": [{"w": shape}], "buffer_names": [], "notes": list(range(3_000_000)),
                "frozen_param_shapes": {"f": shape},
                "frozen_param_fragments": {"f": fake_torch.tensor((1,), bytes(4), key="0")}}
        told = self.inspect(self.zero("ranks", [part] * ranks, [self.optimizer(3, ranks)] * ranks))
        self.assertNotIn("error", told)
        self.assertEqual([(t["name"], t["shape"]) for t in told["tensors"]], [("fp32/w", [6]), ("frozen/f", [6])])

    def test_the_table_counts_every_file(self):
        tensor = fake_torch.tensor((1,), bytes(4), key="0")
        iteration = self.dir / "megatron" / "iter_0000001"
        for rank in range(8):
            (iteration / f"mp_rank_{rank:02}").mkdir(parents=True)
            state = {"model": {f"{rank}.{i}": tensor for i in range(60_000)}}
            (iteration / f"mp_rank_{rank:02}" / "model_optim_rng.pt").write_bytes(fake_torch.archive(state))
        self.assertIn("table of tensors", self.refused(iteration, "unsafe"))
        ones = [1] * 20
        directory, shards, parts = self.dir / "shards", {}, self.dir / "parts"
        directory.mkdir()
        parts.mkdir()
        for shard in range(8):
            entries = {f"{shard}.{i}": {"dtype": "U8", "shape": ones, "data_offsets": [i, i + 1]}
                       for i in range(50_000)}
            shards |= dict.fromkeys(entries, f"{shard}.safetensors")
            (directory / f"{shard}.safetensors").write_bytes(safetensors(entries) + bytes(len(entries)))
            places = dict.fromkeys(entries, {"saved_offsets": [0] * 20})
            entries["__metadata__"] = {"DCP_SHARDING_INFO": json.dumps(places)}
            (parts / f"shard-0000{shard}-model-0000{shard}-of-00008.safetensors").write_bytes(
                safetensors(entries) + bytes(len(places)))
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
        self.assertIn("table of tensors", self.refused(directory, "unsafe"))
        self.assertIn("table of tensors", self.refused(parts, "unsafe"))

    def test_what_many_shards_say_is_counted(self):
        directory = self.dir / "shards"
        directory.mkdir()
        for shard in range(30):
            value = {f"w{shard}": fake_torch.tensor((1,), bytes(4)), "notes": [f"{shard}" + "x" * 1000] * 5_000}
            (directory / f"{shard}.bin").write_bytes(fake_torch.archive(value))
        index = {"weight_map": {f"w{shard}": f"{shard}.bin" for shard in range(30)}}
        (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        self.assertIn("table of tensors", self.refused(directory, "unsafe"))

    def test_metadata_of_parts_with_many_dimensions(self):
        module = "torch.distributed.checkpoint.metadata"
        ones, zeros = fake_torch.size(*[1] * 64), fake_torch.size(*[0] * 64)
        stored = fake_torch.made("torch.distributed.checkpoint.filesystem", "_StorageInfo",
                                 {"relative_path": "__0_0.distcp", "offset": 0, "length": 1})
        properties = fake_torch.made(module, "TensorProperties", {"dtype": fake_torch.named("torch", "uint8")})
        part = fake_torch.made(module, "ChunkStorageMetadata", {"offsets": zeros, "sizes": ones})
        tensor = fake_torch.made(module, "TensorStorageMetadata",
                                 {"properties": properties, "size": ones, "chunks": [part]})
        names = [str(i) for i in range(200_000)]
        places = {fake_torch.made(module, "MetadataIndex", {"fqn": name, "offset": zeros}): stored for name in names}
        (self.dir / "dcp").mkdir()
        (self.dir / "dcp" / ".metadata").write_bytes(pickle.dumps(fake_torch.made(module, "Metadata", {
            "state_dict_metadata": dict.fromkeys(names, tensor), "storage_data": places}), protocol=4))
        self.assertIn("table of tensors", self.refused(self.dir / "dcp", "unsafe"))

    def test_documents_that_are_nested_deep_are_refused(self):
        deep = '{"param_groups":' + "[" * 200_000 + "]" * 200_000 + "}"
        path = self.write("a.safetensors", safetensors({"__metadata__": {
            "cairn": "1", "cairn.step": "1", "cairn.document.optimizer": deep}}))
        for target in ("a.h5", "a.pt", "a.ckpt"):
            done = run([BIN / "cairn", "convert", "--json", path, self.dir / target])
            self.assertEqual(done.returncode, 2, done.stderr[-2000:])
            error = json.loads(done.stdout)["error"]
            self.assertEqual(error["code"], "unsafe", error)
            self.assertIn("nested", error["message"])
        self.assertEqual(list(self.dir.iterdir()), [path])

    def pickled(self, name, operations):
        return self.write(name, zipped({"a/data.pkl": (b"\x80\x02" + operations + b".", zipfile.ZIP_STORED),
                                        "a/version": (b"3\n", zipfile.ZIP_STORED)}))

    def test_tuples_that_hold_each_other_are_told_in_part(self):
        tuples = b"X\x01\0\0\0xq\0" + b"".join(  # 200 to the power of 8 values, as Python prints them
            b"0(" + b"h" + bytes([level]) + (b"h" + bytes([level])) * 199 + b"tq" + bytes([level + 1])
            for level in range(8)) + b"0"
        key = self.inspect(self.pickled("key.pt", tuples + b"}h\x08K\x01s"))
        self.assertEqual([record["key"] for record in key["opaque"]], ["..."])
        members = b"c__builtin__\nset\n](h\x08h\x07e\x85R"
        self.assertNotIn("error", self.inspect(self.pickled("set.pt", tuples + b"}X\x01\0\0\0k" + members + b"s")))

    def test_a_path_of_very_many_parts_is_not_put_together(self):
        parts = b"X\x01\0\0\0xq\x000cpathlib\nPureWindowsPath\n(" + b"h\0" * 100_000 + b"tR"
        told = self.inspect(self.pickled("path.pt", b"}X\x01\0\0\0p" + parts + b"s"))
        self.assertEqual([record["value"] for record in told["objects"]], ["..."])

    def test_a_time_whose_unit_is_none(self):
        stream = pickle.dumps({"t": numpy.datetime64(1, "ns")}, 2)
        self.assertEqual(stream.count(b"\x02\0\0\0ns"), 1)
        for unit in (b"\xc3\xbf", b"xs"):
            path = self.pickled("time.pt", stream[2:-1].replace(b"\x02\0\0\0ns", b"\x02\0\0\0" + unit))
            self.refused(path, "corrupt")

    def test_many_keys_of_metadata_take_their_time_once_each(self):
        keys = {f"key {i}": "" for i in range(400_000)}
        path = self.write("a.safetensors", safetensors({"__metadata__": {"cairn": "1", **keys}}))
        told = run([BIN / "cairn", "inspect", "--json", path])
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertEqual(list(json.loads(told.stdout)["documents"]["__metadata__"])[1:], list(keys))
        done = run([BIN / "cairn", "convert", path, self.dir / "a.h5"])
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_many_wrong_checksums_name_their_tensors(self):
        count = 50_000
        values = {f"t{i}": fake_torch.tensor((1,), bytes(4), key=str(i)) for i in range(count)}
        content = bytearray(fake_torch.archive(values))
        at = content.index(b"PK\1\2")
        while content[at:at + 4] == b"PK\1\2":
            name, extra, comment = struct.unpack_from("<3H", content, at + 28)
            if b"/data/" in content[at + 46:at + 46 + name]:
                struct.pack_into("<I", content, at + 16, 1)
            at += 46 + name + extra + comment
        done = run([BIN / "cairn", "verify", "--json", self.write("a.pt", content)])
        self.assertEqual(done.returncode, 1, done.stderr)
        texts = collections.Counter(d["text"].split("(")[1].split(")")[0] for d in json.loads(done.stdout)["defects"])
        self.assertEqual(texts, {f"tensor 't{i}'": 1 for i in range(count)})

    def table(self, names):
        """What `inspect` prints of a file with small tensors of these names; it may not take much."""
        entry = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
        path = self.write("a.safetensors", safetensors(dict.fromkeys(names, entry)))
        done = run([BIN / "cairn", "inspect", path], cwd=self.dir, memory=memory_for(path))
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        return done.stdout

    def test_a_name_of_many_components_is_no_stair(self):
        text = self.table(["/".join(["y"] * 30_000)])
        self.assertLess(len(text), 70_000)
        self.assertIn("/".join(["y"] * (30_000 - 20)) + "  u8", text)

    def test_a_long_name_makes_no_wide_table(self):
        text = self.table(["x" * 60_000] + [f"t{i}" for i in range(2000)])
        self.assertLess(len(text), 600_000)
        self.assertIn("x" * 60_000 + "  u8", text)

    def test_shapes_that_hdf5_has_not_are_refused(self):
        large = 1 << 63
        for shape, size, why in (([1] * 33, 1, "33 dimensions; .* at most 32"),
                                 ([0, large], 0, f"a dimension of {large}; .* at most {large - 1}")):
            entry = {"dtype": "U8", "shape": shape, "data_offsets": [0, size]}
            path = self.write("a.safetensors", safetensors({"w" * 3000: entry}) + bytes(size))
            done = run([BIN / "cairn", "convert", "--json", path, self.dir / "a.h5"], ranks=2)
            self.assertEqual(done.returncode, 2, done.stderr[-2000:])
            error = json.loads(done.stdout)["error"]
            self.assertEqual(error["code"], "unsupported", error)
            self.assertRegex(error["message"], f"tensor 'model/w+[.]{{3}}' has {why}")
            self.assertEqual(list(self.dir.iterdir()), [path])
        entry = {"dtype": "U8", "shape": [0, large - 1] + [1] * 30, "data_offsets": [0, 0]}
        path = self.write("b.safetensors", safetensors({"w": entry}))
        done = run([BIN / "cairn", "convert", path, self.dir / "b.h5"])
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_no_name_steers_the_terminal(self):
        name = "red\x9b31m\x85\u00e9\x1b[2J\x7f\x80\x9f\u20ac"
        shown = "red\\x9b31m\\x85\u00e9\\x1b[2J\\x7f\\x80\\x9f\u20ac"
        entry = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
        path = self.write("a.safetensors", safetensors({name: entry}))
        self.assertIn(shown, self.harmless(path).stdout)
        told = json.loads(self.harmless(path, "--json").stdout)
        self.assertEqual([t["name"] for t in told["tensors"]], [name])
        path = self.write("b.safetensors", safetensors({name: {**entry, "dtype": "none"}}))
        self.assertIn(shown, self.harmless(path).stderr)
        self.assertIn(name, json.loads(self.harmless(path, "--json").stdout)["error"]["message"])

    def test_a_file_whose_name_is_no_text_steers_no_terminal(self):
        path = self.dir / os.fsdecode(b"red\x9b31m\x80\x9f\xc2.pt")
        for there in (False, True):
            if there:
                path.write_bytes(b"nothing")
            self.assertIn("red\\x9b31m\\x80\\x9f\\xc2.pt", self.harmless(path).stderr)
            error = json.loads(self.harmless(path, "--json").stdout)["error"]
            self.assertIn("red\ufffd31m\ufffd\ufffd\ufffd.pt", error["message"])

    def harmless(self, path, *options):
        """What `inspect` says, which is UTF-8 without control characters."""
        done = subprocess.run([BIN / "cairn", "inspect", path, *options], capture_output=True, timeout=60,
                              env={**os.environ, **ENVIRONMENT})
        for text in (done.stdout, done.stderr):
            controls = [c for c in text.decode() if unicodedata.category(c) == "Cc" and c != "\n"]
            self.assertEqual(controls, [])
        done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
        return done


if __name__ == "__main__":
    unittest.main()
