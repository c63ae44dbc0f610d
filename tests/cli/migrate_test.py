"""cairn migrate: a checkpoint's names and documents go forward and back, and its values stay what they are."""

import json
import os
import re
import shlex
import struct
import unittest

from harness import BIN, CORPUS, ROOT, Case, corpus_entries, run, snippets

try:
    import torch
except ImportError:
    torch = None

FINE, DIFFERENT, FAILED = 0, 1, 2
ORIGIN = {"topology", "provenance"}


class Migrate(Case):
    def cairn(self, *words, ranks=0, code=FINE, env=None):
        done = run([BIN / "cairn", *words, "--json"], ranks=ranks, env=env)
        self.assertEqual(done.returncode, code, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return json.loads(done.stdout)

    def steps(self, *texts, name="steps"):
        folder = self.dir / name
        folder.mkdir()
        for number, text in enumerate(texts, 1):
            (folder / f"{number}_step.yaml").write_text(f"version: 0.{number}\nsteps:\n{text}")
        return folder

    def sample(self, name="a.h5"):
        path = self.dir / name
        self.assertEqual(self.sample_save(path, 7, 1, cut="columns", ranks=2).returncode, 0)
        return path

    def table(self, path):
        told = self.cairn("inspect", path, "--hash", "sha256")
        return {t["name"]: (t["dtype"], t["shape"], t["sha256"]) for t in told["tensors"]}, told.get("documents", {})

    def equal(self, a, b):
        told = self.cairn("diff", a, b)
        self.assertEqual((told["equal"], told["documents"]), (True, []))

    def corpus(self, name):
        entries = {entry["path"] for entry in corpus_entries("lightning/", "training/")}
        self.assertIn(name, entries)
        return CORPUS / name


ALL = """
  - {type: rename, names: {large: encoder.large, deep: large.deep}}
  - {type: wrap, below: [all], segment: data}
  - {type: split, name: encoder.large, into: [q, k], dim: 1, sizes: [384, 768]}
  - {type: permute, names: [large.deep], dim: 1, order: [5, 4, 3, 2, 1, 0]}
  - {type: set, at: note, value: {text: more}}
"""


class Containers(Migrate):
    def test_forward_and_back_on_any_number_of_ranks(self):
        source = self.sample()
        steps = self.steps(ALL, "  - {type: cast, names: [all.data.bf16], dtype: f32}\n")
        before, _ = self.table(source)
        told = self.cairn("migrate", source, "--steps", steps, "--dry-run")
        self.assertEqual((told["written"], len(told["applied"][0]["steps"])), (False, 5))
        self.assertEqual(os.listdir(self.dir).count("b.h5"), 0)
        for ranks in (1, 2, 3):
            with self.subTest(ranks=ranks):
                new, back = self.dir / f"b{ranks}.h5", self.dir / f"c{ranks}.h5"
                self.cairn("migrate", source, "-o", new, "--steps", steps, ranks=ranks)
                after, documents = self.table(new)
                self.assertEqual(after["model/q"][1], [256, 384])
                self.assertEqual(after["model/all.data.bf16"][0], "f32")
                self.assertEqual(after["model/counting.f32"], before["model/counting.f32"])
                self.assertEqual(after["model/all.data.f16"], before["model/all.f16"])
                self.assertNotEqual(after["model/large.deep"][2], before["model/deep"][2])
                self.assertEqual(self.cairn("verify", new)["defects"], [])
                if ranks > 1:
                    self.assertEqual(self.table(self.dir / "b1.h5")[0], after)
                told = self.cairn("migrate", new, "-o", self.dir / "no.h5", "--steps", steps, ranks=ranks)
                self.assertEqual((told["written"], told["applied"]), (False, []))
                half = self.dir / "half.h5"
                self.cairn("migrate", new, "-o", half, "--rollback", "--force", ranks=ranks)
                self.cairn("migrate", half, "-o", back, "--rollback", ranks=ranks)
                self.equal(source, back)
                shown = [self.cairn("inspect", path) for path in (source, back)]
                self.assertEqual(shown[0]["step"], shown[1]["step"])
        # The state of single ranks is there, too.
        self.assertIn("equal step=7", self.sample_load(self.dir / "c2.h5", 1, ranks=2).stdout)

    def test_what_has_no_way_back_says_so(self):
        source = self.sample()
        steps = self.steps("  - {type: rename, names: {deep: other}}\n", "  - {type: drop, names: [large]}\n")
        self.cairn("migrate", source, "-o", self.dir / "b.h5", "--steps", steps)
        told = self.cairn("migrate", self.dir / "b.h5", "-o", self.dir / "c.h5", "--rollback", code=FAILED)
        self.assertRegex(told["error"]["message"], r"2_step.*drop.*'large', whose values are kept nowhere")
        self.assertFalse((self.dir / "c.h5").exists())
        self.cairn("migrate", source, "-o", self.dir / "d.h5", "--steps", steps, "--to", "0.1")
        self.assertIn("model/large", self.table(self.dir / "d.h5")[0])
        for unknown in ("3_step", "0.0.1", "abc", "v0.1", "0.1-rc1", "0.1 ", ".", "1e3"):
            told = self.cairn("migrate", source, "-o", self.dir / "e.h5", "--steps", steps, "--to", unknown, code=FAILED)
            self.assertRegex(told["error"]["message"], rf"'{unknown}'.*; there are: 1_step \(0\.1\), 2_step")
        self.cairn("migrate", self.dir / "d.h5", "-o", self.dir / "e.h5", "--rollback", "--to", "+0", code=FAILED)

    def test_nothing_is_replaced_and_nothing_half_done(self):
        source = self.sample()
        steps = self.steps("  - {type: rename, names: {deep: other}}\n")
        out = self.dir / "b.h5"
        out.write_text("mine")
        before = sorted(os.listdir(self.dir))
        for words in (["-o", out], ["-o", source], ["-o", self.dir / "b.xyz"], []):
            self.cairn("migrate", source, "--steps", steps, *words, ranks=2, code=FAILED)
        self.cairn("migrate", source, "-o", self.dir / "c.h5", code=FAILED)
        self.cairn("migrate", source, "-o", self.dir / "c.h5", "--steps", self.dir / "none", ranks=2, code=FAILED)
        bad = self.steps("  - {type: rename, names: {deep: large}}\n", name="bad")
        told = self.cairn("migrate", source, "-o", self.dir / "c.h5", "--steps", bad, ranks=3, code=FAILED)
        self.assertIn("1_step.yaml:3: 'steps[0]' (rename): 'deep' and 'large' would both be called 'large'",
                      told["error"]["message"])
        self.assertEqual(sorted(set(os.listdir(self.dir)) - {"bad"}), before)
        self.assertEqual(out.read_text(), "mine")
        self.cairn("migrate", source, "-o", out, "--steps", steps, "--force")
        self.assertIn("model/other", self.table(out)[0])

    def test_names_that_no_container_has_are_refused_at_their_step(self):
        source = self.sample()
        before = sorted(os.listdir(self.dir))
        twice = "  - {type: rename_regex, from: '^(.+)$', to: '$1$1'}\n"
        long = "  - {type: rename, names: {deep: %s}}\n" % ("x" * 70_000)
        for name, text, step in (("grows", twice * 30, r"rename_regex"), ("long", long, r"rename")):
            steps = self.steps(text, name=name)
            for words in (["-o", self.dir / "b.h5"], ["--dry-run"]):
                told = self.cairn("migrate", source, "--steps", steps, *words, ranks=2, code=FAILED)
                self.assertEqual(told["error"]["code"], "usage")
                self.assertRegex(told["error"]["message"],
                                 rf"1_step.yaml:\d+: 'steps\[\d+\]' \({step}\): tensor name 'model/.*[.]{{3}}' "
                                 "has a component over 4096 bytes")
                self.assertLess(len(told["error"]["message"]), 1000)
        self.assertEqual(sorted(set(os.listdir(self.dir)) - {"grows", "long"}), before)

    def test_damage_is_found_before_anything_is_written(self):
        source = self.sample()
        offset = next(t for t in self.cairn("inspect", source)["tensors"] if t["name"] == "model/large")
        with open(source, "r+b") as file:
            extents = offset.get("extents") or [offset]
            file.seek(extents[0]["offset"] + 5)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        for text in ("  - {type: split, name: large, into: [a, b]}\n", "  - {type: rename, names: {large: b}}\n"):
            steps = self.steps(text, name=f"steps{len(text)}")
            told = self.cairn("migrate", source, "-o", self.dir / "b.h5", "--steps", steps, ranks=2, code=FAILED)
            self.assertEqual(told["error"]["code"], "corrupt")
        self.assertFalse((self.dir / "b.h5").exists())

    def test_a_rank_that_dies_leaves_nothing(self):
        source = self.sample()
        steps = self.steps("  - {type: rename, names: {deep: other}}\n")
        for point in ("move", "commit.write", "publish"):
            done = run([BIN / "cairn", "migrate", source, "-o", self.dir / "b.h5", "--steps", steps], ranks=2,
                       env={"CAIRN_FAULT": f"{point}:0:kill"})
            self.assertNotEqual(done.returncode, 0)
            self.assertFalse((self.dir / "b.h5").exists())
        self.cairn("migrate", source, "-o", self.dir / "b.h5", "--steps", steps, ranks=2)
        self.assertIn("model/other", self.table(self.dir / "b.h5")[0])


LIGHTNING = """
  - {type: rename, names: {"*.processor.{c}.{b}": "*.proc.{c * (layers / chunks) + b}"},
     values: {layers: training.hyper_parameters.config.model.processor.num_layers,
              chunks: training.hyper_parameters.config.model.processor.num_chunks}}
  - {type: wrap, below: [model.model.encoder, model.pre_processors], segment: data}
  - {type: set, at: training.hyper_parameters.config.training.weight_averaging, value: null}
"""


class Others(Migrate):
    def test_lightning_keeps_its_optimizer_by_name(self):
        source = self.corpus("lightning/2.6/last_with_metadata.ckpt")
        text = LIGHTNING.replace('"*.processor.{c}.{b}": "*.proc.{c * (layers / chunks) + b}"',
                                 '"*.processor.0.{b}": "*.proc.{b}", "*.processor.1.{b}": "*.proc.{layers / chunks + b}"')
        steps = self.steps(text)
        plain, new, back = (self.dir / name for name in ("a.h5", "b.h5", "c.h5"))
        self.cairn("convert", source, plain)
        self.cairn("migrate", source, "-o", new, "--steps", steps, ranks=2)
        before, after = self.table(plain)[0], self.table(new)[0]
        self.assertEqual(len(before), len(after))
        old, now = "model.model.processor.1.0.weight", "model.model.proc.2.weight"
        for form in ("model/{}", "optimizer/{}/exp_avg", "optimizer/{}/step"):
            self.assertEqual(before[form.format(old)], after[form.format(now)])
        self.assertIn("model/model.pre_processors.data.processors.normalizer._norm_mul", after)
        self.cairn("migrate", new, "-o", back, "--rollback", ranks=3)
        self.equal(plain, back)
        # The same from and to files of Lightning, whose tree follows.
        ckpt = self.dir / "b.ckpt"
        self.cairn("migrate", source, "-o", ckpt, "--steps", steps)
        told = self.cairn("inspect", ckpt)
        paths = [tensor["path"] for tensor in told["tensors"]]
        self.assertIn(["state_dict", now], paths)
        self.assertIn(["optimizer_states", 0, "state", 0, "exp_avg"], paths)
        self.assertEqual(told["documents"]["training"]["hyper_parameters"]["config"]["training"]["weight_averaging"], None)
        parameters = told["documents"]["optimizers"][0]["parameters"]
        self.assertIn(now, parameters)
        self.assertEqual(self.cairn("migrate", ckpt, "--dry-run", "--steps", steps)["applied"], [])
        self.cairn("migrate", ckpt, "-o", self.dir / "back.ckpt", "--rollback")
        back = self.table(self.dir / "back.ckpt")[0]  # and arrays of NumPy's, which are tensors now
        self.assertEqual({name: back.get(name) for name in self.table(source)[0]}, self.table(source)[0])
        # So are the values, but for a set, which becomes a list.
        old, again = ({json.dumps(item["path"]): item["value"] for item in self.cairn("inspect", path)["objects"]
                       if item["path"][:2] != ["hyper_parameters", "flags"] and item["path"][0] != "cairn"}
                      for path in (source, self.dir / "back.ckpt"))
        self.assertEqual(again, old)
        self.assertEqual(self.cairn("migrate", self.dir / "back.ckpt", "--dry-run", "--steps", steps)["applied"][0]["name"],
                         "1_step")

    def test_safetensors_too(self):
        header = {"a.w": {"dtype": "F32", "shape": [4, 3], "data_offsets": [0, 48]}}
        text = json.dumps(header).encode()
        source = self.dir / "a.safetensors"
        source.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack("<12f", *range(12)))
        steps = self.steps("  - {type: split, name: '*.w', into: ['*.q', '*.k'], dim: 1, sizes: [1, 2]}\n",
                           "  - {type: cast, names: [a.q], dtype: f64}\n")
        out, back = self.dir / "b.safetensors", self.dir / "c.safetensors"
        self.cairn("migrate", source, "-o", out, "--steps", steps)
        tensors = {t["name"]: (t["dtype"], t["shape"]) for t in self.cairn("inspect", out)["tensors"]}
        self.assertEqual(tensors, {"a.k": ("f32", [4, 2]), "a.q": ("f64", [4, 1])})
        self.assertEqual(out.read_bytes()[-64:-32], struct.pack("<4d", 0, 3, 6, 9))
        self.assertEqual(self.cairn("migrate", out, "--dry-run", "--steps", steps)["applied"], [])
        told = self.cairn("migrate", out, "-o", back, "--rollback", "--to", "0", code=FAILED)
        self.assertIn("write a file between the two", told["error"]["message"])
        self.cairn("migrate", out, "-o", self.dir / "d.safetensors", "--rollback")
        self.cairn("migrate", self.dir / "d.safetensors", "-o", back, "--rollback")
        told = self.cairn("diff", source, back, code=DIFFERENT)
        self.assertEqual((told["only_in_a"], told["only_in_b"], told["tensors"]), ([], [], []))
        self.assertEqual(told["documents"], ["__metadata__"])  # Transformers asks for it: what is written anew has it


@unittest.skipIf(torch is None, "NOT TESTED: no PyTorch for Python; install python3-torch")
class Optimizers(Migrate):
    """What PyTorch's optimizers take back after their parameters were divided and joined."""

    def model(self, *names):
        """Linear layers, of 3 rows each but for "qkv", which has 9."""
        torch.manual_seed(1)
        return torch.nn.ModuleDict({name: torch.nn.Linear(4, 9 if name == "qkv" else 3) for name in names})

    def optimizer(self, model):
        matrices = [tensor for tensor in model.parameters() if tensor.dim() == 2]
        others = [tensor for tensor in model.parameters() if tensor.dim() == 1]
        return torch.optim.AdamW([{"params": matrices}, {"params": others, "weight_decay": 0.0}], lr=0.1)

    def step(self, model, optimizer, rows):
        """A gradient that depends on row and column only; `rows`: the first row of each layer."""
        for name, layer in model.items():
            first = rows[name]
            layer.weight.grad = torch.arange(first, first + len(layer.weight)).unsqueeze(1) + torch.arange(4.0)
            layer.bias.grad = torch.arange(first, first + len(layer.bias)) * 0.5
        optimizer.step()

    def saved(self, path):
        model = self.model("first", "qkv", "last")
        optimizer = self.optimizer(model)
        rows = {"first": 1, "qkv": 10, "last": 30}
        for _ in range(3):
            self.step(model, optimizer, rows)
        torch.save({"state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()], "lr_schedulers": [],
                    "epoch": 1, "global_step": 3, "pytorch-lightning_version": "2.0.0", "loops": {}, "callbacks": {}}, path)
        return model, optimizer

    def load(self, path, model):
        # The first weights_only, of 1.13, knows no numbers with a fraction.
        whole = torch.load(path, weights_only=torch.__version__ >= "2")
        model.load_state_dict(whole["state_dict"])
        optimizer = self.optimizer(model)
        optimizer.load_state_dict(whole["optimizer_states"][0])
        return optimizer

    def assert_rows(self, layer, optimizer, whole, its_optimizer, rows):
        for now, then in ((layer.weight, whole.weight), (layer.bias, whole.bias)):
            self.assertTrue(torch.equal(now, then[rows]))
            state, its = optimizer.state[now], its_optimizer.state[then]
            self.assertEqual(set(state), set(its))
            self.assertEqual(state["step"], its["step"])
            for slot in ("exp_avg", "exp_avg_sq"):
                self.assertTrue(torch.equal(state[slot], its[slot][rows]), slot)

    def test_they_go_on(self):
        source, new, again, back = (self.dir / f"{name}.ckpt" for name in ("a", "b", "c", "d"))
        model, optimizer = self.saved(source)
        split = "  - {type: split, name: 'qkv.*', into: ['q.*', 'k.*', 'v.*']}\n"
        join = "  - {type: merge, names: ['q.*', 'k.*', 'v.*'], into: 'qkv.*'}\n"
        drop = "  - {type: drop, names: [first]}\n"
        steps = self.steps(split, join, drop)
        self.cairn("migrate", source, "-o", new, "--steps", steps, "--to", "0.1", ranks=2)
        divided = self.model("first", "q", "k", "v", "last")
        its = self.load(new, divided)
        thirds = {"q": slice(0, 3), "k": slice(3, 6), "v": slice(6, 9)}
        for name, rows in thirds.items():
            self.assert_rows(divided[name], its, model["qkv"], optimizer, rows)
        every = slice(None)
        self.assert_rows(divided["last"], its, model["last"], optimizer, every)
        self.assertEqual([group["weight_decay"] for group in its.param_groups], [0.01, 0.0])
        # It trains on as the whole would have.
        self.step(model, optimizer, {"first": 1, "qkv": 10, "last": 30})
        self.step(divided, its, {"first": 1, "q": 10, "k": 13, "v": 16, "last": 30})
        for name, rows in thirds.items():
            self.assert_rows(divided[name], its, model["qkv"], optimizer, rows)
        # Joined again, and taken back, it is what it was.
        self.cairn("migrate", new, "-o", again, "--steps", steps, "--to", "0.2", ranks=3)
        self.cairn("migrate", new, "-o", back, "--rollback")
        first, its_optimizer = self.saved(source)
        for path in (again, back):
            same = self.model("first", "qkv", "last")
            its = self.load(path, same)
            for name in same:
                self.assert_rows(same[name], its, first[name], its_optimizer, every)
        # What goes takes its number along.
        self.cairn("migrate", again, "-o", new, "--steps", steps, "--force")
        fewer = self.model("qkv", "last")
        its = self.load(new, fewer)
        for name in fewer:
            self.assert_rows(fewer[name], its, first[name], its_optimizer, every)


@unittest.skipIf(torch is None, "NOT TESTED: no PyTorch for Python; install python3-torch")
class Documented(Migrate):
    """The steps of docs/migrations.md, by its commands, both as they stand there."""

    PAGE = "docs/migrations.md"
    CONFIG = {"config": {"model": {"num_layers": 4, "num_chunks": 2}, "training": {"weight_averaging": {"on": True}}}}

    def setUp(self):
        super().setUp()
        names = [f"m.proc.{chunk}.blocks.{block}.weight" for chunk in range(2) for block in range(2)]
        weights = {name: torch.full((2, 2), float(i)) for i, name in
                   enumerate(["encoder.trainable", "encoder.weight", "decoder.weight", *names])}
        torch.save({"state_dict": weights, "optimizer_states": [], "lr_schedulers": [], "epoch": 1, "global_step": 3,
                    "pytorch-lightning_version": "2.0.0", "loops": {}, "callbacks": {},
                    "hyper_parameters": self.CONFIG}, self.dir / "last.ckpt")
        (self.dir / "runs" / "a").mkdir(parents=True)
        self.cairn("convert", self.dir / "last.ckpt", self.dir / "runs/a/step-00000003.h5")
        (self.dir / "migrations").mkdir()
        for _, text in snippets("yaml", self.PAGE):
            name = re.match(r"# (\S+\.yaml)\n", text).group(1)
            (self.dir / "migrations" / name).write_text(text)

    def test_the_page_is_true(self):
        self.assertEqual(os.listdir(self.dir / "migrations"), ["10_graph_provider.yaml"])
        lines = re.findall(r"^    (cairn migrate .*)$", (ROOT / self.PAGE).read_text(), re.M)
        self.assertEqual(len(lines), 4)
        for line in lines:
            words = shlex.split(line, comments=True)
            done = run([BIN / words[0], *words[1:]], cwd=self.dir)
            self.assertEqual(done.returncode, FINE, f"{line}\n{done.stdout}\n{done.stderr}")
        wanted = {"encoder_graph_provider.trainable": 0, "encoder.data.weight": 1, "decoder.data.weight": 2,
                  "m.proc.0.weight": 3, "m.proc.1.weight": 4, "m.proc.2.weight": 5, "m.proc.3.weight": 6}
        whole = torch.load(self.dir / "new.ckpt")
        self.assertEqual({name: int(tensor[0, 0]) for name, tensor in whole["state_dict"].items()}, wanted)
        self.assertIs(whole["hyper_parameters"]["config"]["training"]["weight_averaging"], None)
        self.assertEqual(set(self.table(self.dir / "new.h5")[0]), {f"model/{name}" for name in wanted})
        self.equal(self.dir / "runs/a", self.dir / "old.h5")


if __name__ == "__main__":
    unittest.main()
