"""What `cairn convert` writes is read by PyTorch and the safetensors library, and by no code of cairn's in between."""

import collections
import hashlib
import json
import struct
import unittest

from harness import BIN, CORPUS, Case, corpus_entries, run

try:
    import torch
except ImportError:
    torch = None
try:
    import safetensors
except ImportError:
    safetensors = None

DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex128",
          "complex64"]


def raw(tensor):
    """The bytes of a tensor, row by row."""
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()) if tensor.numel() else b""


class Convert(Case):
    def setUp(self):
        super().setUp()
        if torch is None:
            self.skipTest("NOT TESTED: no PyTorch for Python; install python3-torch")

    def cairn(self, *words, ranks=0):
        done = run([BIN / "cairn", *words, "--json"], ranks=ranks)
        self.assertEqual(done.returncode, 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return json.loads(done.stdout)

    def there_and_back(self, value, ranks=0, floats=False):
        """Saves with PyTorch, converts to a container and back, and loads with PyTorch."""
        torch.save(value, self.dir / "a.pt")
        self.cairn("convert", self.dir / "a.pt", self.dir / "a.h5", "--force", ranks=ranks)
        self.assertTrue(self.cairn("diff", self.dir / "a.pt", self.dir / "a.h5")["equal"])
        self.cairn("convert", self.dir / "a.h5", self.dir / "b.pt", "--force", ranks=ranks)
        return self.load(self.dir / "b.pt", floats)

    def load(self, path, floats=False):
        # The first weights_only, of 1.13, knows no numbers with a fraction.
        return torch.load(path, weights_only=not floats or torch.__version__ >= "2")

    def assert_same(self, found, wanted, place=""):
        if isinstance(wanted, torch.Tensor):
            self.assertEqual((found.dtype, found.shape), (wanted.dtype, wanted.shape), place)
            self.assertEqual(raw(found), raw(wanted), place)
        elif isinstance(wanted, dict):
            self.assertIsInstance(found, dict, place)
            self.assertEqual(list(found), list(wanted), place)
            for key in wanted:
                self.assert_same(found[key], wanted[key], f"{place}/{key}")
        elif isinstance(wanted, (list, tuple)):
            self.assertEqual((type(found), len(found)), (type(wanted), len(wanted)), place)
            for i, (a, b) in enumerate(zip(found, wanted)):
                self.assert_same(a, b, f"{place}/{i}")
        else:
            self.assertEqual((type(found), found), (type(wanted), wanted), place)


class WeightsOnly(Case):
    def names(self, path, *words):
        done = run([BIN / "cairn", *words, "--json"])
        self.assertEqual(done.returncode, 0, done.stdout[-2000:])
        done = run([BIN / "cairn", "inspect", path, "--json"])
        return sorted(t["name"] for t in json.loads(done.stdout)["tensors"])

    def test_what_is_beside_the_model_is_none_of_its_weights(self):
        corpus_entries()
        # With callbacks that hold tensors, and an optimizer whose parameters have no names.
        source = CORPUS / "lightning" / "2.6" / "last_with_metadata.ckpt"
        done = run([BIN / "cairn", "inspect", source, "--json"])
        tensors = [t["path"] for t in json.loads(done.stdout)["tensors"]]
        model = sorted(path[1] for path in tensors if path[0] == "state_dict" and len(path) == 2)
        self.assertLess(len(model), len(tensors))
        for name in ("a.pt", "a.safetensors"):
            target = self.dir / name
            self.assertEqual(self.names(target, "convert", source, target, "--weights-only"), model)
        target = self.dir / "a.h5"
        self.assertEqual(self.names(target, "convert", source, target, "--weights-only"),
                         [f"model/{name}" for name in model])
        whole = self.dir / "whole.h5"
        names = self.names(whole, "convert", source, whole)
        self.assertEqual([name for name in names if name.startswith("model/")], [f"model/{name}" for name in model])
        self.assertEqual(len(names), len(tensors))


class ForPyTorch(Convert):
    def test_every_dtype_and_shape(self):
        values = torch.arange(-30, 30, dtype=torch.float64).reshape(3, 4, 5)
        state = {name: (values + 0.5).to(getattr(torch, name)) for name in DTYPES}
        state.update({"scalar": torch.tensor(1.5), "none": torch.empty(0, 3), "a/b\\c": torch.ones(2),
                      "odd \u00e9%": torch.ones(1)})
        self.assert_same(self.there_and_back(state, ranks=2), dict(state))

    def test_how_an_archive_was_written_is_no_difference(self):
        self.there_and_back({"w": torch.ones(2, 3), "b": torch.zeros(3)})
        self.assertTrue(self.cairn("diff", self.dir / "a.pt", self.dir / "b.pt")["equal"])

    def test_tied_weights_and_views(self):
        base = torch.arange(24.0).reshape(4, 6)
        state = {"embed": base, "head": base, "turned": base.t(), "row": base[1], "wide": torch.ones(1).expand(5)}
        torch.save(state, self.dir / "a.pt")
        self.cairn("convert", self.dir / "a.pt", self.dir / "direct.pt")
        direct = torch.load(self.dir / "direct.pt", weights_only=True)
        for key, tensor in state.items():
            self.assert_same(direct[key], tensor, key)
            self.assertEqual(direct[key].stride(), tensor.stride(), key)
        self.assertEqual(direct["head"].data_ptr(), direct["embed"].data_ptr())
        self.assertEqual(direct["row"].data_ptr(), direct["embed"].data_ptr() + 24)
        back = self.there_and_back(state)
        self.assert_same({key: back[key] for key in state}, state)
        self.assertEqual(back["head"].data_ptr(), back["embed"].data_ptr())

    def test_a_training_goes_on(self):
        model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.125)
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        saved = {"epoch": 2, "model": dict(model.state_dict()), "optimizer": optimizer.state_dict(),
                 "notes": ("a", 1, 2.5, None, True, -(2**40), 10**30, float("inf")), "list": [torch.ones(2), "x"]}
        back = self.there_and_back(saved, floats=True)
        self.assert_same(back["notes"], saved["notes"])
        self.assert_same(back["model"], saved["model"])
        self.assert_same(back["list"], saved["list"])
        self.assertEqual(back["optimizer"]["param_groups"][0]["lr"], 0.125)
        torch.optim.Adam(model.parameters()).load_state_dict(back["optimizer"])
        names = [t["name"] for t in self.cairn("inspect", self.dir / "a.h5")["tensors"]]
        self.assertIn("optimizer/1.bias/exp_avg", names)

    def test_long_lists_keep_every_bit(self):
        nan, inf = float("nan"), float("inf")
        payload = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000ABCDEF))[0]
        saved = {"w": torch.ones(1), "few": [nan, payload, 0.5] * 100, "losses": [nan, payload, inf, -inf, -0.0, 5e-324, 0.1] * 300,
                 "seeds": [2**60, -(2**63), 2**53, 2**70, 3, True, "x"] * 9, "pair": tuple([nan] * 2049),
                 "set": {2**60}, "tuples": {(2**61, 0.5)}, "frozen": frozenset([1.5, 2**55])}
        torch.save(saved, self.dir / "a.pt")
        self.cairn("convert", self.dir / "a.pt", self.dir / "a.h5")
        for source, target in (("a.pt", "direct.pt"), ("a.h5", "b.pt")):
            told = self.cairn("convert", self.dir / source, self.dir / target)
            self.assertEqual(told["left_out"], [])
            found = torch.load(self.dir / target)
            for key in ("losses", "pair", "few"):
                self.assertEqual([struct.pack("<d", x) for x in found[key]], [struct.pack("<d", x) for x in saved[key]])
                self.assertIs(type(found[key]), type(saved[key]))
            self.assert_same(found["seeds"], saved["seeds"])
            self.assertEqual([found["set"], found["tuples"]], [[2**60], [(2**61, 0.5)]])
            self.assertEqual(sorted(found["frozen"]), [1.5, 2**55])

    def test_what_a_list_cannot_tell_is_left_out_and_told(self):
        torch.save({"w": torch.ones(1), "bytes": {b"ab"}, "deep": {(frozenset([1]),)}}, self.dir / "a.pt")
        told = self.cairn("convert", self.dir / "a.pt", self.dir / "b.pt")
        self.assertEqual(sorted(left["name"] for left in told["left_out"]), ["bytes", "deep"])
        self.assertEqual(list(torch.load(self.dir / "b.pt")), ["w"])

    def test_one_large_value_hides_no_other(self):
        # The list alone is more than cairn lists; what comes behind it is told all the same.
        torch.save({"w": torch.ones(1), "large": ["x" * 1000] * 30000, "epoch": 7, "pair": (1, "a"),
                    "state": {0: {"m": 1.5}, 1: {"m": 2.5}}, "optimizer": {"state": {}, "param_groups": []}},
                   self.dir / "a.pt")
        told = self.cairn("convert", self.dir / "a.pt", self.dir / "b.pt")
        self.assertEqual([left["name"] for left in told["left_out"]], ["large"])
        self.assertEqual(len(told["warnings"]), 1, told)
        found = torch.load(self.dir / "b.pt")
        self.assert_same((found["epoch"], found["pair"], found["state"]),
                         (7, (1, "a"), {0: {"m": 1.5}, 1: {"m": 2.5}}))

    def test_the_epoch_comes_before_a_vocabulary(self):
        torch.save({"model": {"w": torch.ones(1)}, "vocab": {f"word{i}": i for i in range(150_000)}, "epoch": 7,
                    "optimizer": {"state": {}, "param_groups": [{"params": []}]}}, self.dir / "a.pt")
        training = self.cairn("inspect", self.dir / "a.pt")["documents"]["training"]
        self.assertEqual(training["epoch"], 7)

    def test_a_class_as_a_key_is_its_name(self):
        torch.save({"state_dict": {"w": torch.ones(1)}, "pytorch-lightning_version": "1.4.0",
                    "callbacks": {collections.OrderedDict: {"best": torch.ones(2), "score": 0.5}}}, self.dir / "a.pt")
        told = self.cairn("convert", self.dir / "a.pt", self.dir / "b.pt")
        self.assertIn("collections.OrderedDict", str(told["left_out"]))
        found = torch.load(self.dir / "b.pt")["callbacks"]["collections.OrderedDict"]
        self.assert_same(found, {"best": torch.ones(2), "score": 0.5})

    def test_random_generators_of_numpy_do_no_harm(self):
        try:
            import numpy
        except ImportError:
            self.skipTest("NOT TESTED: no NumPy for Python; install python3-numpy")
        torch.save({"w": torch.ones(1), "old": numpy.random.RandomState(3), "new": numpy.random.default_rng(3)},
                   self.dir / "a.pt")
        opaque = self.cairn("inspect", self.dir / "a.pt")["opaque"]
        self.assertEqual([entry["path"] for entry in opaque], [["old"], ["new"]])

    def test_shards_keep_tied_weights(self):
        tied = torch.ones(3)
        torch.save({"a": tied, "b": tied}, self.dir / "one.bin")
        torch.save({"c": torch.zeros(2)}, self.dir / "two.bin")
        index = self.dir / "pytorch_model.bin.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": {"a": "one.bin", "b": "one.bin", "c": "two.bin"}}))
        self.assertEqual(self.cairn("inspect", index)["aliases"], [["a", "b"]])
        self.cairn("convert", index, self.dir / "whole.bin")
        found = torch.load(self.dir / "whole.bin")
        self.assertEqual(found["a"].data_ptr(), found["b"].data_ptr())

    def test_lightnings_checkpoint_has_what_a_trainer_asks_for(self):
        model = torch.nn.Linear(3, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.5)
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        torch.save({"epoch": 2, "global_step": 9, "model_state_dict": model.state_dict(),
                    "optimizer_state_dict": optimizer.state_dict(), "scheduler": {"last_epoch": 2}},
                   self.dir / "a.pt")
        self.cairn("convert", self.dir / "a.pt", self.dir / "a.ckpt")
        found = self.load(self.dir / "a.ckpt", floats=True)
        self.assert_same(found["state_dict"], dict(model.state_dict()))
        torch.optim.SGD(model.parameters(), lr=1.0).load_state_dict(found["optimizer_states"][0])
        self.assertEqual(found["lr_schedulers"], [{"last_epoch": 2}])
        self.assertEqual((found["epoch"], found["global_step"]), (2, 9))
        self.assertEqual(set(found["loops"]), {"fit_loop", "validate_loop", "test_loop", "predict_loop"})
        for key in ("callbacks", "hyper_parameters", "pytorch-lightning_version"):
            self.assertIn(key, found)

    def keys(self, path, *dicts):
        found = self.load(path, floats=True)
        for key in dicts:
            found = found[key]
        return set(found)

    def test_new_names_stay_by_way_of_a_container(self):
        corpus_entries()
        source = CORPUS / "training" / "1.13" / "adamw_two_groups.pt"
        self.cairn("convert", source, self.dir / "a.h5", "--rename", "model_state_dict/encoder=model_state_dict/enc")
        self.cairn("convert", self.dir / "a.h5", self.dir / "b.pt")
        found = self.keys(self.dir / "b.pt", "model_state_dict")
        self.assertLess({"enc.weight", "enc.bias"}, found)
        self.assertNotIn("encoder.weight", found)

    def test_a_new_name_may_be_one_that_was_not_selected(self):
        torch.save({"model": {"w": torch.zeros(2)}, "ema": {"w": torch.ones(2)}}, self.dir / "a.pt")
        self.cairn("convert", self.dir / "a.pt", self.dir / "a.h5", "--select", "^ema/", "--rename", "ema/=model/")
        self.cairn("convert", self.dir / "a.h5", self.dir / "b.pt")
        found = self.load(self.dir / "b.pt")
        self.assertEqual(found["model"]["w"].tolist(), [1, 1])

    def test_new_names_keep_the_keys_around_them(self):
        corpus_entries()
        self.cairn("convert", CORPUS / "dcp" / "r2_fsdp2_adamw", self.dir / "a.h5", "--rename", "model.encoder=model.enc",
                   "--rename", "optimizer.state.encoder=optimizer.state.enc")
        self.cairn("convert", self.dir / "a.h5", self.dir / "b.pt")
        self.assertLess({"enc.weight", "enc.bias"}, self.keys(self.dir / "b.pt", "model"))
        self.assertEqual(self.keys(self.dir / "b.pt", "optimizer", "state", "enc.weight"), {"exp_avg", "exp_avg_sq", "step"})
        torch.save({"model": {"w": torch.zeros(2)}, "ema": [torch.ones(1), torch.ones(2)]}, self.dir / "c.pt")
        self.cairn("convert", self.dir / "c.pt", self.dir / "d.pt", "--rename", "ema=avg")
        self.assertEqual([value.tolist() for value in self.load(self.dir / "d.pt")["avg"]], [[1], [1, 1]])

    def test_a_document_is_no_reason_to_be_dropped(self):
        torch.save({"model": {"w": torch.ones(2)}, "epoch": 3}, self.dir / "a.pt")
        self.cairn("convert", self.dir / "a.pt", self.dir / "a.safetensors", "--weights-only")
        raw_file = (self.dir / "a.safetensors").read_bytes()
        length = int.from_bytes(raw_file[:8], "little")
        header = json.loads(raw_file[8:8 + length])
        header["__metadata__"] = {"cairn": "1", "cairn.document.model": json.dumps(
            {"aliases": {}, "quantized": {}, "adapters": {"a": 2}})}
        text = json.dumps(header).encode()
        (self.dir / "b.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + raw_file[8 + length:])
        self.cairn("convert", self.dir / "b.safetensors", self.dir / "b.h5")
        self.cairn("convert", self.dir / "b.h5", self.dir / "b.pt")
        self.cairn("convert", self.dir / "b.pt", self.dir / "c.h5")
        self.assertEqual(self.cairn("inspect", self.dir / "c.h5")["documents"]["model"]["adapters"], {"a": 2})

    def test_a_new_name_of_deepspeeds_is_of_the_same_kind(self):
        corpus_entries()
        source = CORPUS / "deepspeed" / "stage2_ws2"
        for number, words in enumerate((["a.ckpt"], ["b.h5"], ["c.pt", "--weights-only"],
                                        ["d.safetensors", "--weights-only"])):
            self.cairn("convert", source, self.dir / words[0], *words[1:], "--rename", "fp32/encoder=fp32/enc")
            if words[0].endswith((".h5", ".safetensors")):
                self.cairn("convert", self.dir / words[0], self.dir / f"{number}.pt", "--weights-only")
                words[0] = f"{number}.pt"
            found = self.keys(self.dir / words[0], *(["state_dict"] if words[0].endswith(".ckpt") else []))
            tied = {"head.weight"} if number < 3 else set()
            self.assertEqual(found, {"enc.weight", "enc.bias", "norm.weight", "decoder.weight", "decoder.bias",
                                     "latlons", "frozen.table"} | tied, words)

    def test_tied_weights_stay_tied_or_are_told_of(self):
        corpus_entries()
        source = CORPUS / "deepspeed" / "stage2_ws2"
        self.cairn("convert", source, self.dir / "a.h5")
        self.cairn("convert", source, self.dir / "w.h5", "--weights-only")
        self.cairn("convert", self.dir / "a.h5", self.dir / "v.h5", "--weights-only")
        self.cairn("convert", self.dir / "a.h5", self.dir / "r.h5", "--rename", "model/encoder=model/enc")
        self.cairn("convert", self.dir / "a.h5", self.dir / "s.safetensors")
        for name in ("w.h5", "v.h5", "r.h5", "s.safetensors"):
            self.cairn("convert", self.dir / name, self.dir / "b.pt", "--force")
            model = self.load(self.dir / "b.pt", floats=True)
            model = model.get("model", model)
            of = "enc.weight" if name == "r.h5" else "encoder.weight"
            self.assertEqual(model["head.weight"].data_ptr(), model[of].data_ptr(), name)
        for start in (source, self.dir / "a.h5"):
            told = self.cairn("convert", start, self.dir / "t.safetensors", "--weights-only", "--force")
            self.assertIn("head.weight", [left["name"] for left in told["left_out"]])

    def test_tied_weights_alone_are_a_dict_again(self):
        tied = torch.ones(3)
        value = {"a": tied, "b": tied}
        self.assertEqual(list(self.there_and_back(value)), ["a", "b"])
        torch.save({"model": value, "epoch": 1}, self.dir / "m.pt")
        self.cairn("convert", self.dir / "m.pt", self.dir / "m.h5")
        self.cairn("convert", self.dir / "m.h5", self.dir / "w.pt", "--weights-only")
        self.assertEqual(self.keys(self.dir / "w.pt"), {"a", "b"})
        self.cairn("convert", self.dir / "m.h5", self.dir / "r.pt", "--rename", "model/a=model/c")
        self.assertEqual(self.keys(self.dir / "r.pt", "model"), {"b", "c"})
        self.cairn("convert", self.dir / "m.h5", self.dir / "l.ckpt")
        self.assertEqual(self.keys(self.dir / "l.ckpt", "state_dict"), {"a", "b"})

    def test_an_optimizer_of_whose_state_nothing_is_selected_is_left_out(self):
        corpus_entries()
        source = CORPUS / "training" / "1.13" / "adamw_two_groups.pt"
        self.cairn("convert", source, self.dir / "a.h5")
        for start, wanted in ((source, "model_state_dict"), (self.dir / "a.h5", "^model/")):
            told = self.cairn("convert", start, self.dir / "b.pt", "--select", wanted, "--force")
            self.assertIn("optimizer_state_dict", [left["name"] for left in told["left_out"]])
            self.assertNotIn("optimizer_state_dict", self.keys(self.dir / "b.pt"))
        told = self.cairn("convert", CORPUS / "deepspeed" / "stage2_ws2", self.dir / "c.h5", "--select", "^fp32/")
        self.assertIn("optimizer", [left["name"] for left in told["left_out"]])
        self.assertNotIn("optimizer", self.cairn("inspect", self.dir / "c.h5")["documents"])

    def test_epoch_and_step_are_found_where_trainers_keep_them(self):
        for progress in ({"epoch": 3, "global_step": 7}, {"trainer": {"epoch": 3, "global_step": 7}},
                         {"extra": {"epoch": 3, "step": 7}}, {"epoch": 3, "app": {"iteration": 7}}):
            torch.save({"model": {"w": torch.ones(2)}, "optimizer": {"state": {}, "param_groups": []}, **progress},
                       self.dir / "a.pt")
            self.cairn("convert", self.dir / "a.pt", self.dir / "a.ckpt", "--force")
            found = self.load(self.dir / "a.ckpt", floats=True)
            self.assertEqual((found["epoch"], found["global_step"]), (3, 7), progress)

    def test_files_of_one_format_that_share_no_name_are_compared_by_what_they_mean(self):
        corpus_entries()
        source = CORPUS / "training" / "1.13" / "adamw_two_groups.pt"
        self.cairn("convert", source, self.dir / "a.ckpt")
        done = run([BIN / "cairn", "diff", source, self.dir / "a.ckpt", "--json"])
        told = json.loads(done.stdout)
        self.assertEqual((told["only_in_a"], told["only_in_b"], told["tensors"]), ([], [], []))
        self.cairn("convert", CORPUS / "dcp" / "r1_plain", self.dir / "b.pt")
        self.assertTrue(self.cairn("diff", CORPUS / "dcp" / "r1_plain", self.dir / "b.pt")["equal"])

    def test_lightnings_own_checkpoint_gets_no_arguments(self):
        mine = {"epoch": 1, "global_step": 5, "pytorch-lightning_version": "2.4.0", "state_dict": {"w": torch.ones(2)},
                "loops": {}, "callbacks": {}, "optimizer_states": [], "lr_schedulers": []}
        torch.save(mine, self.dir / "a.ckpt")
        self.cairn("convert", self.dir / "a.ckpt", self.dir / "b.ckpt")
        self.assertEqual(set(self.load(self.dir / "b.ckpt", floats=True)), set(mine))

    def test_by_way_of_a_container_a_distributed_checkpoint_keeps_its_places(self):
        corpus_entries()
        self.cairn("convert", CORPUS / "dcp" / "r2_fsdp2_adamw", self.dir / "a.h5")
        self.cairn("convert", self.dir / "a.h5", self.dir / "b.pt")
        self.cairn("convert", CORPUS / "dcp" / "r2_fsdp2_adamw", self.dir / "c.pt")
        self.assertEqual(set(self.load(self.dir / "b.pt", floats=True)), {"model", "optimizer", "extra"})
        self.assertTrue(self.cairn("diff", self.dir / "b.pt", self.dir / "c.pt")["equal"])

    def test_deepspeeds_training_goes_on_in_pytorch_and_lightning(self):
        corpus_entries()
        for name in ("stage1_ws2_padded", "stage2_ws2", "stage3_ws2"):
            source = CORPUS / "deepspeed" / name
            self.cairn("convert", source, self.dir / "a.h5", "--force", ranks=2)
            weights = self.load_weights(self.dir / "a.h5")
            sums = {t["name"]: t["sha256"] for t in self.cairn("inspect", source, "--hash", "sha256")["tensors"]}
            groups = self.cairn("inspect", source)["documents"]["deepspeed"]["param_groups"]
            for start, target in ((self.dir / "a.h5", "b.pt"), (source, "b.ckpt"), (self.dir / "a.h5", "c.ckpt")):
                with self.subTest(source=name, start=start.name, target=target):
                    told = self.cairn("convert", start, self.dir / target, "--force")
                    self.assertNotIn("optimizer", [left["name"] for left in told["left_out"]])
                    found = self.load(self.dir / target, floats=True)
                    if target.endswith(".ckpt"):
                        self.assertEqual(found["global_step"], 20)
                    model = found["state_dict" if target.endswith(".ckpt") else "model"]
                    self.assertEqual({key: raw(value) for key, value in model.items()},
                                     {key: raw(value) for key, value in weights.items()})
                    self.go_on(found["optimizer_states"][0] if target.endswith(".ckpt") else found["optimizer"],
                               model, groups, sums)

    def go_on(self, state, model, groups, sums):
        """PyTorch's own AdamW takes the state, by the groups of the file, and goes on from its step, which was 2."""
        names = [group["param_names"] for group in state["param_groups"]]
        parameters = {name: torch.nn.Parameter(model[name].float()) for of_group in names for name in of_group}
        optimizer = torch.optim.AdamW([{"params": [parameters[name] for name in of_group]} for of_group in names])
        optimizer.load_state_dict(state)
        self.assertEqual([(group["lr"], tuple(group["betas"]), group["weight_decay"]) for group in optimizer.param_groups],
                         [(group["lr"], tuple(group["betas"]), group["weight_decay"]) for group in groups])
        self.assertEqual({f"fp32/{name}" for name in parameters}, {name for name in sums if name.startswith("fp32/")})
        for name, parameter in parameters.items():
            for slot in ("exp_avg", "exp_avg_sq"):
                value = optimizer.state[parameter][slot]
                self.assertEqual(hashlib.sha256(raw(value)).hexdigest(), sums[f"{slot}/{name}"], name)
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        self.assertEqual({float(optimizer.state[parameter]["step"]) for parameter in parameters.values()}, {3.0})

    def load_weights(self, container):
        self.cairn("convert", container, self.dir / "weights.pt", "--weights-only", "--force")
        return self.load(self.dir / "weights.pt")

    def test_a_pickled_module_is_lightnings_by_way_of_a_container(self):
        corpus_entries()
        self.cairn("convert", CORPUS / "inference" / "1.13" / "sequential_model.pt", self.dir / "a.h5")
        self.cairn("convert", self.dir / "a.h5", self.dir / "b.ckpt")
        found = self.load(self.dir / "b.ckpt", floats=True)
        self.assert_same(dict(found["state_dict"]), self.load_weights(self.dir / "a.h5"))

    def test_the_order_of_keys_is_no_difference(self):
        value = {"model": {"w": torch.ones(2)}, "epoch": 3, "loss": torch.zeros(1), "name": "x"}
        found = self.there_and_back(value)
        self.assertEqual(set(found), set(value))
        self.cairn("convert", self.dir / "b.pt", self.dir / "c.h5")
        self.assertTrue(self.cairn("diff", self.dir / "a.h5", self.dir / "c.h5")["equal"])

    def test_two_formats_are_compared_by_what_they_mean(self):
        corpus_entries()
        self.cairn("convert", CORPUS / "dcp" / "r2_fsdp2_adamw", self.dir / "a.pt")
        done = run([BIN / "cairn", "diff", CORPUS / "dcp" / "r2_fsdp2_adamw", self.dir / "a.pt", "--json"])
        told = json.loads(done.stdout)
        self.assertEqual((told["only_in_a"], told["only_in_b"]), ([], []))

    def test_a_number_and_a_text_are_two_keys(self):
        torch.save({"7": torch.zeros(2), 7: torch.ones(2)}, self.dir / "a.pt")
        self.assertTrue(self.cairn("diff", self.dir / "a.pt", self.dir / "a.pt")["equal"])
        torch.save({"7": torch.zeros(2), 7: torch.zeros(2)}, self.dir / "b.pt")
        done = run([BIN / "cairn", "diff", self.dir / "a.pt", self.dir / "b.pt", "--json"])
        self.assertFalse(json.loads(done.stdout)["equal"])

    def test_a_key_that_only_one_has_is_told_by_its_path(self):
        torch.save({"7": torch.zeros(2), 7: torch.zeros(2)}, self.dir / "a.pt")
        torch.save({"7": torch.zeros(2)}, self.dir / "b.pt")
        for first, second, side in (("a", "b", "only_in_a"), ("b", "a", "only_in_b")):
            done = run([BIN / "cairn", "diff", self.dir / f"{first}.pt", self.dir / f"{second}.pt", "--json"])
            self.assertEqual(json.loads(done.stdout)[side], ["7"])

    def test_a_tied_weight_is_renamed_alone(self):
        weight = torch.ones(2, 3)
        torch.save({"embed.w": weight, "lm.w": weight}, self.dir / "a.pt")
        self.cairn("convert", self.dir / "a.pt", self.dir / "b.pt", "--rename", "lm.=head.")
        self.assertEqual(set(self.load(self.dir / "b.pt")), {"embed.w", "head.w"})
        self.cairn("convert", self.dir / "a.pt", self.dir / "a.h5", "--rename", "lm.=head.")
        model = self.cairn("inspect", self.dir / "a.h5")["documents"]["model"]
        self.assertEqual(model["aliases"], {"head.w": "embed.w"})

    def test_a_directory_is_known_by_its_file(self):
        corpus_entries()
        for name in ("dcp/r2_fsdp2_adamw/.metadata", "deepspeed/stage2_ws2/latest"):
            path = CORPUS / name
            self.assertEqual(self.cairn("inspect", path)["tensors"], self.cairn("inspect", path.parent)["tensors"])

    def test_weights_alone_are_a_state_dict(self):
        state = {"w": torch.ones(3, 2), "b": torch.zeros(2)}
        torch.save({"model": state, "epoch": 1}, self.dir / "a.pt")
        self.cairn("convert", self.dir / "a.pt", self.dir / "a.h5")
        self.cairn("convert", self.dir / "a.h5", self.dir / "b.bin", "--weights-only", "--dtype", "f16")
        found = torch.load(self.dir / "b.bin", weights_only=True)
        self.assert_same({key: found[key] for key in state}, {key: value.half() for key, value in state.items()})


class ForSafetensors(Convert):
    @staticmethod
    def metadata(path):
        data = path.read_bytes()
        return json.loads(data[8:8 + int.from_bytes(data[:8], "little")]).get("__metadata__")

    def test_transformers_finds_the_format(self):
        torch.save({"w": torch.ones(2)}, self.dir / "a.pt")
        self.cairn("convert", self.dir / "a.pt", self.dir / "a.h5")
        for source in ("a.pt", "a.h5"):
            self.cairn("convert", self.dir / source, self.dir / "b.safetensors", "--force")
            self.assertEqual(self.metadata(self.dir / "b.safetensors")["format"], "pt")
            self.cairn("convert", self.dir / source, self.dir / "shards", "--shard-size", "800", "--force")
            for file in (self.dir / "shards").glob("*.safetensors"):
                self.assertEqual(self.metadata(file)["format"], "pt")
        # Nothing of that comes back into a container.
        self.cairn("convert", self.dir / "a.h5", self.dir / "b.safetensors", "--force")
        self.cairn("convert", self.dir / "b.safetensors", self.dir / "b.h5")
        documents = [self.cairn("inspect", self.dir / name)["documents"] for name in ("a.h5", "b.h5")]
        own = {"topology", "provenance"}
        self.assertEqual(documents[1].keys() - own, documents[0].keys() - own)

    def test_a_file_comes_back_without_metadata_or_with_none_in_it(self):
        entry = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
        for header in (entry, {"__metadata__": {}, **entry}, {"__metadata__": {"note": "x"}, **entry}):
            with self.subTest(header=header):
                text = json.dumps(header, separators=(",", ":")).encode()
                text += b" " * (-len(text) % 8)
                (self.dir / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
                self.cairn("convert", self.dir / "a.safetensors", self.dir / "a.h5", "--force")
                self.cairn("convert", self.dir / "a.h5", self.dir / "b.safetensors", "--force")
                self.cairn("convert", self.dir / "a.safetensors", self.dir / "c.safetensors", "--force")
                for name in ("b", "c"):
                    self.assertEqual((self.dir / f"{name}.safetensors").read_bytes(),
                                     (self.dir / "a.safetensors").read_bytes())

    def test_what_has_no_place_is_told(self):
        torch.save({"model": {"w": torch.ones(1)}, "epoch": 3, "name": "x", "set": object}, self.dir / "a.pt")
        told = self.cairn("convert", self.dir / "a.pt", self.dir / "b.safetensors")
        self.assertEqual([(left["name"], left["why"].split(" ")[0]) for left in told["left_out"]],
                         [("objects", "2"), ("opaque", "1")])
        told = self.cairn("convert", self.dir / "a.pt", self.dir / "b.safetensors", "--weights-only", "--force")
        self.assertEqual(told["left_out"], [])

    def test_the_library_reads_shards(self):
        if safetensors is None:
            self.skipTest("NOT TESTED: no safetensors for Python; install python3-safetensors (Debian 13)")
        from safetensors.torch import load_file
        state = {f"w{i}": torch.full((100,), float(i)) for i in range(5)}
        torch.save(state, self.dir / "a.pt")
        self.cairn("convert", self.dir / "a.pt", self.dir / "shards", "--shard-size", "800")
        found = {}
        for file in sorted((self.dir / "shards").glob("*.safetensors")):
            found.update(load_file(file))
        self.assert_same({key: found[key] for key in state}, state)


if __name__ == "__main__":
    unittest.main()
