"""PyTorch's files: what real writers wrote must come out, and nothing hostile may run or exhaust the machine."""

import collections
import hashlib
import json
import os
import resource
import struct
import subprocess
import sys
import time
import unittest

import fake_torch
from harness import BIN, CORPUS, ENVIRONMENT, SANITIZED, Case, corpus_entries, memory_for, run

CAIRN = BIN / "cairn"
LOADED = ("torch/", "torch-legacy/", "training/", "lightning/", "inference/")
HOSTILE = ("hostile/pickle-", "hostile/legacy/", "hostile/tensor/", "hostile/zip/", "hostile/not-a-checkpoint/")
LIMITS = {"seconds": 20, "rss_mb": 1024}
if CORPUS.exists():
    LIMITS = json.loads((CORPUS / "MANIFEST.json").read_text())["default_limits"]


def inspect(path, cwd):
    """Runs `cairn inspect --json --hash sha256` within limits of time and memory; returns exit code and JSON."""
    start = time.monotonic()
    done = run([CAIRN, "inspect", "--json", "--hash", "sha256", path], cwd=cwd, timeout=LIMITS["seconds"],
               memory=memory_for(path))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # MiB, of the largest child so far
    assert time.monotonic() - start <= LIMITS["seconds"]
    if not SANITIZED:
        assert peak <= LIMITS["rss_mb"], f"{peak} MiB"
    try:
        return done.returncode, json.loads(done.stdout)
    except json.JSONDecodeError:
        raise AssertionError(f"exit code {done.returncode}, no JSON: {done.stdout[:500]} {done.stderr[-2000:]}") from None


def by_path(entries):
    return {json.dumps(entry["path"]): entry for entry in entries}


class Corpus(Case):
    def check(self, entry):
        path = CORPUS / entry["path"]
        code, found = inspect(path / entry["entry_point"] if "entry_point" in entry else path, self.dir)
        self.assertEqual(list(self.dir.iterdir()), [], "something was written or run")
        if code == 0:
            self.assertIn("load", self.outcomes(entry), found.get("warnings"))
            if entry["expect"] == "load":
                self.check_loaded(entry, found)
        else:
            self.assertEqual(code, 2)
            self.assertIn(found["error"]["code"], self.outcomes(entry), found["error"]["message"])

    @staticmethod
    def outcomes(entry):
        return {other.get("reason", "load") for other in [entry, *entry.get("also_accept", [])]}

    def check_loaded(self, entry, found):
        if entry.get("whole_module") or entry["format"] == "hf-index":
            wanted = {t["name"]: t for t in entry["tensors"]}
            tensors = {t["name"]: t for t in found["tensors"]}
        else:
            wanted, tensors = by_path(entry["tensors"]), by_path(found["tensors"])
        self.assertEqual(tensors.keys(), wanted.keys())
        for key, tensor in wanted.items():
            for field in ("name", "dtype", "shape", "sha256"):
                self.assertEqual(tensors[key][field], tensor[field], f"{key} {field}")
        if not entry["path"].endswith("/many_keys.pt"):  # slices of one tensor, which its entry does not mention
            self.assertEqual(sorted(found["aliases"]), sorted(entry.get("aliases", [])))
        self.check_listed(entry.get("arrays", []), found["arrays"])
        self.check_listed(entry.get("objects", []), found["objects"])
        self.check_listed(entry.get("opaque", []), found["opaque"])
        if not entry.get("whole_module"):
            for kind in ("objects", "arrays"):
                extra = by_path(found[kind]).keys() - by_path(entry.get(kind, [])).keys()
                self.assertEqual(extra, set(), f"more {kind} than there are")
        if "globals" in entry:
            self.assertEqual(found["documents"]["globals"], entry["globals"])
        if "archive_top" in entry:
            self.assertEqual(found["documents"]["archive"]["top"], entry["archive_top"])
        self.check_facts(entry, found["documents"])

    def check_listed(self, wanted, found):
        found = by_path(found)
        for key, value in by_path(wanted).items():
            self.assertIn(key, found)
            self.assertEqual({k: found[key].get(k) for k in value}, value)

    def check_facts(self, entry, documents):
        for role, path in entry.get("roles", {}).items():
            self.assertEqual(documents["roles"][role], path)
        facts = entry.get("metadata", {})
        if "optimizer_param_names" in facts:
            self.assertEqual(documents["optimizers"][0]["parameters"], facts["optimizer_param_names"])
        if "param_groups" in facts:
            self.assertEqual(self.plain(documents["optimizers"][0]["param_groups"]), facts["param_groups"])
        training = documents.get("training", {})
        for key in ("epoch", "global_step"):
            if key in facts:
                self.assertEqual(training[key], facts[key])
        if "pytorch_lightning_version" in facts:
            self.check_lightning(facts, training)
        if "anemoi" in facts:
            self.check_anemoi(entry, facts["anemoi"], documents["anemoi"])

    @staticmethod
    def plain(groups):
        return [{k: v for k, v in group.items() if not isinstance(v, dict)} for group in groups]

    def check_lightning(self, facts, training):
        self.assertEqual(training["kind"], "lightning")
        self.assertEqual(training["pytorch-lightning_version"], facts["pytorch_lightning_version"])
        fit = training["loops"]["fit_loop"]
        self.assertEqual(fit["epoch_progress"]["current"]["completed"], facts["loop_epoch_completed"])
        self.assertEqual(fit["epoch_loop.state_dict"]["_batches_that_stepped"], facts["loop_batches_that_stepped"])
        self.assertIn("EarlyStopping{'monitor': 'val_loss', 'mode': 'min'}", training["callbacks"])
        for key, value in facts["config"].items():
            node = training["hyper_parameters"]["config"]
            for part in key.split("."):
                node = node[part]
            self.assertEqual(node, value)
        self.assertEqual(training["hyper_parameters"]["metadata"]["run_id"], facts["lineage"]["run_id"])
        self.assertEqual([m["name"] for m in training["migrations"]], facts["migrations"])

    def check_anemoi(self, entry, wanted, found):
        data = (CORPUS / entry["path"]).read_bytes()

        def sha256(place):
            return hashlib.sha256(data[place["offset"]:place["offset"] + place["bytes"]]).hexdigest()

        self.assertEqual(found["member"], wanted["member"])
        self.assertEqual(sha256(found), wanted["json_sha256"])
        for key in ("run_id", "uuid", "version", "parent_uuid"):
            self.assertEqual(found["metadata"].get(key), wanted.get(key))
        arrays = [{**{k: array[k] for k in ("name", "dtype", "shape")}, "sha256": sha256(array)}
                  for array in found["supporting_arrays"]]
        self.assertEqual(arrays, wanted["supporting_arrays"])

    def check_all(self, folders):
        for entry in corpus_entries(*folders):
            with self.subTest(entry["path"]):
                self.check(entry)

    def test_what_pytorch_wrote_comes_out_whole(self):
        self.check_all(LOADED)

    def test_what_is_hostile_or_broken_is_refused_for_the_right_reason(self):
        self.check_all(HOSTILE)

    def test_damaged_weights_are_a_defect(self):
        corpus_entries()
        for name in ("bit_flip_in_weights", "crc_data"):
            done = subprocess.run([CAIRN, "verify", "--json", CORPUS / f"hostile/zip/{name}.pt"], capture_output=True,
                                  text=True, timeout=60, env={**os.environ, **ENVIRONMENT})
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("tensor 'w'", json.loads(done.stdout)["defects"][0]["text"])
        whole = subprocess.run([CAIRN, "verify", "--json", CORPUS / "torch/2.6/views.pt"], capture_output=True,
                               text=True, timeout=60, env={**os.environ, **ENVIRONMENT})
        self.assertEqual(whole.returncode, 0, whole.stderr)
        self.assertEqual(json.loads(whole.stdout)["unchecked"], 0)


class Made(Case):
    def told(self, content):
        path = self.dir / "made.pt"
        path.write_bytes(content)
        code, told = inspect(path, self.dir)
        self.assertEqual(code, 0, told)
        return told

    def test_old_files_of_every_protocol(self):
        for protocol in range(5):
            with self.subTest(protocol=protocol):
                values = {"epoch": 3}
                if protocol > 0:  # which can't name a storage
                    values["w"] = fake_torch.tensor((2,), b"abcdefgh", key="0")
                told = self.told(fake_torch.legacy(values, protocol))
                self.assertEqual([(value["path"], value["value"]) for value in told["objects"]], [(["epoch"], 3)])
                self.assertEqual([tensor["sha256"] for tensor in told["tensors"]],
                                 [hashlib.sha256(b"abcdefgh").hexdigest()] * (protocol > 0))

    def test_old_files_of_modules(self):
        layers = [(str(i), fake_torch.module("Linear", {
            "weight": fake_torch.tensor((2,), bytes([i]) * 8, key=str(i)), "bias": None})) for i in range(2)]
        net = fake_torch.module("Sequential", modules=layers)
        told = self.told(fake_torch.legacy(net))
        self.assertEqual([(tensor["name"], tensor["sha256"]) for tensor in told["tensors"]],
                         [(f"{i}.weight", hashlib.sha256(bytes([i]) * 8).hexdigest()) for i in range(2)])
        self.assertEqual(told["opaque"][0]["class"], "torch.nn.modules.Sequential")
        told = self.told(fake_torch.legacy({"net": net, "act": type(net), "again": type(net), "layer": type(layers[0][1])}))
        self.assertEqual([record["path"] for record in told["opaque"]], [["net"], ["act"], ["again"], ["layer"]])

    def test_paths_are_what_python_prints(self):
        # Parts as Python up to 3.12 pickles them, and what was given, as 3.13 does; and str() of the path.
        posix = [((), "."), (("out",), "out"), (("/", "a", "b"), "/a/b"), (("//", "a"), "//a"), (("./out/",), "out"),
                 (("a//b", "./c"), "a/b/c"), (("a", "/b", "../c"), "/b/../c"), (("///a",), "/a"), (("", "."), ".")]
        windows = [((), "."), (("C:\\", "a", "b"), "C:\\a\\b"), (("C:", "a"), "C:a"), (("a/b", ".\\c"), "a\\b\\c"),
                   (("C:/a", "\\b"), "C:\\b"), (("C:\\a", "c:b"), "c:\\a\\b"), (("C:\\a", "D:b"), "D:b"),
                   (("\\\\server\\share\\", "a"), "\\\\server\\share\\a"), (("//server/share",), "\\\\server\\share\\"),
                   (("\\\\?\\UNC\\s\\t\\", "u"), "\\\\?\\UNC\\s\\t\\u"), (("\\\\.\\nul",), "\\\\.\\nul")]
        names = [("pathlib", "PosixPath", posix), ("pathlib._local", "PurePosixPath", posix),
                 ("pathlib", "PureWindowsPath", windows)]
        value = [[fake_torch.call(module, name, *parts) for parts, _ in cases] for module, name, cases in names]
        told = self.told(fake_torch.archive(value))["objects"]
        self.assertEqual([(entry["type"], entry["value"]) for entry in told],
                         [("path", text) for _, _, cases in names for _, text in cases])

    def test_names_are_those_of_today(self):
        lists = collections.UserList([1])
        values = {"steps": range(2, 9, 3), "type": int, "text": str, "pairs": zip, "lists": lists}
        told = self.told(fake_torch.archive(values))  # protocol 2, with the names of Python 2
        self.assertEqual({entry["path"][0]: entry["class"] for entry in told["opaque"]},
                         {"steps": "builtins.range", "type": "builtins.int", "text": "builtins.str",
                          "pairs": "builtins.zip", "lists": "collections.UserList"})
        self.assertEqual(told["opaque"][0]["args"], [2, 9, 3])
        self.assertIn("__builtin__.xrange", told["documents"]["globals"])

    def test_keys_that_are_no_names_are_told_as_python_prints_them(self):
        keys = [True, None, 1.0, -0.0, 1e16, 1e-5, 123456789.125, float("inf"), ("data", "hidden"), (1,), (), (("a", 2.5), b"x\0'"),
                "it's".encode(), 1 + 2.5j, -0.0 + 1j, ("it's", 'both \' "', "\n\\\u00e9\x7f\x85"), (2**70, -3),
                frozenset(), frozenset(["a"])]
        told = self.told(fake_torch.archive({"k": {key: 1 for key in keys}, "c": {collections.OrderedDict: {"x": 1}}}))
        # Of True and 1.0, which are equal, a dict keeps the first.
        self.assertEqual([record["key"] for record in told["opaque"]],
                         [repr(key) for key in dict.fromkeys(keys)] + [repr(collections.OrderedDict)])
        self.assertEqual([entry["path"] for entry in told["objects"]], [["c", "collections.OrderedDict", "x"]])

    def test_a_history_is_told_number_by_number(self):
        losses = [1 / i for i in range(1, 2049)]
        told = self.told(fake_torch.archive({"losses": losses, "table": [*losses, 0.5], "seeds": list(range(9))}))
        self.assertEqual([(entry["path"], entry["bits"]) for entry in told["objects"][:-2]],
                         [(["losses", i], struct.pack(">d", loss).hex()) for i, loss in enumerate(losses)])
        self.assertEqual([(entry["path"], entry["value"]) for entry in told["objects"][-2:]],
                         [(["table"], [*losses, 0.5]), (["seeds"], list(range(9)))])

    def test_containers_of_a_class_of_their_own_are_containers(self):
        def kind(name, base):
            value = type(name, (base,), {"__module__": "some.package"})
            setattr(fake_torch.named("some.package", "Home"), name, value)
            setattr(sys.modules["some.package"], name, value)
            return value
        table = kind("Table", dict)({"rate": 0.5, 3: {"x": 1}})
        table.name = "n"
        values = {"table": table, "rows": kind("Rows", list)(["a", 2]), "pair": kind("Pair", tuple)(([1], "b")),
                  "inner": kind("Inner", collections.OrderedDict)(y=None)}
        for protocol in (0, 1, 2, 4):
            with self.subTest(protocol=protocol):
                told = self.told(fake_torch.legacy(values, protocol))
                paths = [[*entry["path"], entry["value"]] for entry in told["objects"]]
                pair = ["pair"] if protocol < 2 else ["pair", 0]
                self.assertEqual(paths, [["table", "rate", 0.5], ["table", 3, "x", 1], ["rows", 0, "a"], ["rows", 1, 2],
                                         [*pair, 0, 0, 1], [*pair, 1, "b"], ["inner", "y", None]])
                self.assertEqual({entry["path"][0]: entry["class"] for entry in told["opaque"]},
                                 {"table": "some.package.Table", "rows": "some.package.Rows",
                                  "pair": "some.package.Pair", "inner": "some.package.Inner"})
                self.assertEqual(told["opaque"][0]["state"], {"name": "n"})

    def test_a_named_tuple_of_single_values_is_a_tuple(self):
        home = fake_torch.named("some.package", "Home").__module__
        for name, fields in (("Point", ["x", "y"]), ("One", ["x"])):
            setattr(sys.modules[home], name, collections.namedtuple(name, fields, module=home))
        number = type("Number", (int,), {"__module__": home})
        setattr(sys.modules[home], "Number", number)
        package = sys.modules[home]
        told = self.told(fake_torch.archive({"p": package.Point(1, None), "one": package.One([2]), "n": number(5)}))
        self.assertEqual([(entry["path"], entry["value"]) for entry in told["objects"]],
                         [(["p", 0], 1), (["p", 1], None), (["one", 0, 0], 2)])
        self.assertEqual([record["class"] for record in told["opaque"]],
                         [f"{home}.{name}" for name in ("Point", "One", "Number")])

    def test_nodes_of_omegaconf_are_their_values(self):
        root = fake_torch.made("omegaconf.dictconfig", "DictConfig", {"_metadata": None, "_parent": None})

        def node(module, name, **state):
            return fake_torch.made(module, name, {"_metadata": None, "_parent": root, **state})
        either = node("omegaconf.base", "UnionNode", _content=node("omegaconf.nodes", "IntegerNode", _val=3))
        unset = node("omegaconf.base", "UnionNode", _content=None)
        root.__dict__["_content"] = {"steps": either, "unset": unset,
                                     "name": node("omegaconf.nodes", "StringNode", _val="${steps}")}
        told = self.told(fake_torch.archive({"config": root}))
        self.assertEqual([(entry["path"][1], entry["value"]) for entry in told["objects"]],
                         [("steps", 3), ("unset", None), ("name", "${steps}")])
        self.assertEqual(told["opaque"], [])

    def test_tensors_with_attributes_of_every_release(self):
        def attributed(module, name, value):
            inner = value.__reduce__()
            return fake_torch.call(module, name, inner[0], fake_torch.named("torch.nn", "Buffer"), inner[1], {"tag": 1})
        makers = [("torch.tensor", "_rebuild_from_type"), ("torch._tensor", "_rebuild_from_type"),
                  ("torch._tensor", "_rebuild_from_type_v2")]
        told = self.told(fake_torch.archive([attributed(*maker, fake_torch.tensor((2,), bytes([i]) * 8))
                                             for i, maker in enumerate(makers)]))
        self.assertEqual([tensor["sha256"] for tensor in told["tensors"]],
                         [hashlib.sha256(bytes([i]) * 8).hexdigest() for i in range(3)])

    def test_archives_without_crcs_are_read_and_not_checked(self):
        note = ("anemoi-metadata/anemoi.json", json.dumps({"version": "1.0", "run_id": "r"}))
        value = {"w": fake_torch.tensor((2,), b"abcdefgh"), "empty": fake_torch.tensor((0,), b"")}
        whole = fake_torch.archive(value)
        later = fake_torch.archive(value, members=[note])  # by another program, which takes CRCs
        for content in (fake_torch.without_crcs(whole), fake_torch.without_crcs(later, b"/data")):
            told = self.told(fake_torch.without_crcs(content, b"version"))
            self.assertEqual(told["tensors"][0]["sha256"], hashlib.sha256(b"abcdefgh").hexdigest())
            self.assertIn("CRC", told["warnings"][0])
            done = run([CAIRN, "verify", "--json", self.dir / "made.pt"])
            self.assertEqual((done.returncode, json.loads(done.stdout)["unchecked"]), (0, 1), done.stdout)
        self.assertEqual(told["documents"]["anemoi"]["metadata"]["run_id"], "r")
        for only in (b"data.pkl", b"version"):  # where others have theirs, 0 is wrong
            code, told = self.refused(fake_torch.without_crcs(whole, only))
            self.assertEqual((code, told["error"]["code"]), (2, "corrupt"), told)

    def test_the_state_of_objects_is_told(self):
        inner = fake_torch.made("some.package", "Inner", {"sizes": [1, 2], "x": None})
        config = fake_torch.made("some.package", "Config", {
            "rate": 0.5, "name": "n", "layers": [1, 2, {"deep": [True, "x"]}], "raw": b"\1\2", "inner": inner,
            "weight": fake_torch.tensor((1,), bytes(4)), "many": [[1]] * 200_000})
        opaque = self.told(fake_torch.archive({"config": config}))["opaque"]
        self.assertEqual([record["path"] for record in opaque], [["config"]])
        record = opaque[0]
        self.assertEqual((record["class"], record["state"]), ("some.package.Config", {"rate": 0.5, "name": "n"}))
        many = record["nested"].pop("many")
        self.assertEqual((many[0], many[-1], len(many) < 200_000), ([1], "...", True))
        self.assertEqual(record["nested"], {
            "layers": [1, 2, {"deep": [True, "x"]}], "raw": "0102", "weight": {"class": "torch.Tensor"},
            "inner": {"class": "some.package.Inner", "state": {"x": None}, "nested": {"sizes": [1, 2]}}})

    def test_objects_that_know_what_holds_them_are_told_once(self):
        root = fake_torch.made("some.package", "Node", {"name": "root", "parent": None})
        leaves = [fake_torch.made("some.package", "Node", {"name": name, "parent": root}) for name in "ab"]
        root.children = leaves
        content = fake_torch.archive({"tree": root})
        told = self.told(content)
        children = told["opaque"][0]["nested"]["children"]
        self.assertEqual([child["state"]["name"] for child in children], ["a", "b"])
        self.assertLess(len(json.dumps(told)), 100 * len(content))
        # The same without a circle: each level names the next one three times.
        node = None
        for _ in range(38):
            node = fake_torch.made("some.package", "Node", {"parts": [node] * 3})
        self.assertLess(len(json.dumps(self.told(fake_torch.archive({"tree": node})), indent=2)), 20 << 20)

    def test_an_object_at_many_places_is_looked_at_so_often(self):
        config = fake_torch.made("some.package", "Config", {"layers": [1] * 7_000_000})
        told = self.told(fake_torch.archive({"configs": [config] * 50}))
        self.assertEqual([record["nested"] for record in told["opaque"]], [{"layers": "..."}] * 50)
        code, told = self.refused(fake_torch.archive({"configs": [config] * 1000}))
        self.assertEqual((code, told["error"]["code"]), (2, "unsafe"))

    def refused(self, content):
        path = self.dir / "made.pt"
        path.write_bytes(content)
        return inspect(path, self.dir)


if __name__ == "__main__":
    unittest.main()
