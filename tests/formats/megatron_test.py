"""Megatron-LM's own checkpoints, through the cairn tool: ranks are put together where it is known how."""

import argparse
import json
import struct
import unittest

import fake_torch
from harness import BIN, Case, run

HEADS, HIDDEN, MLP, VOCABULARY = 4, 4, 8, 6  # two rows of query, key and value for each head


def matrix(rows, columns, first):
    return [[float(first + r * columns + c) for c in range(columns)] for r in range(rows)]


def tensor(rows):
    """A matrix, or a vector, as torch.save has it."""
    shape = (len(rows), len(rows[0])) if isinstance(rows[0], list) else (len(rows),)
    flat = [x for row in rows for x in row] if len(shape) == 2 else rows
    return fake_torch.tensor(shape, struct.pack(f"<{len(flat)}f", *flat))


def columns_of(rows, part, parts):
    step = len(rows[0]) // parts
    return [row[part * step:(part + 1) * step] for row in rows]


def rows_of(rows, part, parts):
    step = len(rows) // parts
    return rows[part * step:(part + 1) * step]


def pieces_of(rows, part, parts, pieces):
    """A rank's part of several matrices that lie side by side."""
    return [row for piece in range(pieces) for row in rows_of(rows_of(rows, piece, pieces), part, parts)]


class Megatron(Case):
    def cairn(self, *words, ranks=0):
        done = run([BIN / "cairn", *words, "--json"], ranks=ranks, cwd=self.dir)
        self.assertIn(done.returncode, (0, 1, 2), done.stderr[-2000:])
        return done.returncode, json.loads(done.stdout)

    def whole(self):
        """The model as one: by names, the values and how they are divided."""
        layers = {}
        for n in range(4):
            layers |= {
                f"layers.{n}.input_layernorm.weight": ([float(n)] * HIDDEN, "all"),
                f"layers.{n}.self_attention.query_key_value.weight": (matrix(3 * HEADS, HIDDEN, 100 * n), "qkv"),
                f"layers.{n}.self_attention.dense.weight": (matrix(HIDDEN, HIDDEN, 1000 + n), "rows"),
                f"layers.{n}.self_attention.dense.bias": ([float(n)] * HIDDEN, "all"),
                f"layers.{n}.mlp.dense_h_to_4h.weight": (matrix(MLP, HIDDEN, 2000 + 100 * n), "mlp"),
                f"layers.{n}.mlp.dense_4h_to_h.weight": (matrix(HIDDEN, MLP, 3000 + 100 * n), "rows"),
                f"layers.{n}.mlp.gate": ([float(n)] * 2, "unknown"),
            }
        return layers

    def write(self, tensor_ranks, pipeline_ranks, version=3.0, swiglu=False, args=True, chunks=1):
        root = self.dir / f"m{len(list(self.dir.iterdir()))}"
        per_part = 4 // (pipeline_ranks * chunks)
        for t in range(tensor_ranks):
            for p in range(pipeline_ranks):
                name = f"mp_rank_{t:02d}" + (f"_{p:03d}" if pipeline_ranks > 1 else "")
                state = {"checkpoint_version": version, "iteration": 20, "rng_state": [
                    {"torch_rng_state": fake_torch.tensor((2,), bytes([t, p]), "ByteStorage", 1)}]}
                for c in range(chunks):
                    first = (c * pipeline_ranks + p) * per_part
                    state["model" if chunks == 1 else f"model{c}"] = self.part(t, p, first, per_part, tensor_ranks,
                                                                             version, swiglu)
                if args:
                    state["args"] = argparse.Namespace(
                        tensor_model_parallel_size=tensor_ranks, pipeline_model_parallel_size=pipeline_ranks,
                        swiglu=swiglu, num_layers=4)
                path = root / "iter_0000020" / name
                path.mkdir(parents=True)
                (path / "model_optim_rng.pt").write_bytes(fake_torch.archive(state))
        (root / "latest_checkpointed_iteration.txt").write_text("20")
        return root

    def part(self, t, p, first, count, tensor_ranks, version, swiglu):
        encoder = {}
        for name, (value, split) in self.whole().items():
            number = int(name.split(".")[1])
            if not first <= number < first + count:
                continue
            if split == "rows":
                value = columns_of(value, t, tensor_ranks)
            elif split == "qkv":
                value = pieces_of(value, t, tensor_ranks, 3 if version < 1 else 1)
            elif split == "mlp":
                value = pieces_of(value, t, tensor_ranks, 2 if swiglu else 1)
            encoder[name.replace(f"layers.{number}.", f"layers.{number - first}.")] = tensor(value)
        model = {"language_model": {"encoder": encoder}}
        if first == 0:
            embedding = rows_of(matrix(VOCABULARY, HIDDEN, 7000), t, tensor_ranks)
            model["language_model"]["embedding"] = {"word_embeddings": {"weight": tensor(embedding)}}
        return model

    def check(self, root, tensor_ranks, left_apart=("mlp.gate",)):
        target = self.dir / f"{root.name}.h5"
        code, told = self.cairn("convert", root, target, "--weights-only", ranks=2)
        self.assertEqual(code, 0, told)
        whole = self.dir / f"{root.name}.pt"
        expected = {f"language_model.encoder.{name}": value for name, (value, _) in self.whole().items()}
        expected["language_model.embedding.word_embeddings.weight"] = matrix(VOCABULARY, HIDDEN, 7000)
        if tensor_ranks > 1:
            expected = {name: value for name, value in expected.items() if not name.endswith(left_apart)}
        whole.write_bytes(fake_torch.archive({name: tensor(value) for name, value in expected.items()}))
        found = self.cairn("diff", whole, target)[1]
        self.assertEqual(found["only_in_a"], [], found)
        self.assertEqual(found["tensors"], [], found)
        return self.cairn("inspect", root)[1]

    def test_ranks_are_put_together(self):
        for tensor_ranks, pipeline_ranks, options in (
                (1, 1, {}), (2, 1, {}), (1, 2, {}), (2, 2, {}), (2, 2, {"swiglu": True}), (2, 1, {"version": 0}),
                (1, 2, {"chunks": 2}), (2, 2, {"chunks": 2, "swiglu": True})):
            with self.subTest(tensor=tensor_ranks, pipeline=pipeline_ranks, **options):
                table = self.check(self.write(tensor_ranks, pipeline_ranks, **options), tensor_ranks)
                facts = table["documents"]["megatron"]
                self.assertEqual((facts["tensor_parallel"], facts["pipeline_parallel"], facts["iteration"]),
                                 (tensor_ranks, pipeline_ranks, 20))
                self.assertEqual(facts["separate"], 4 * tensor_ranks if tensor_ranks > 1 else 0)
                self.assertEqual(bool(table["warnings"]), tensor_ranks > 1)

    def test_distributed_checkpoints_have_the_common_state(self):
        common = {"args": argparse.Namespace(lr=0.5), "iteration": 20, "checkpoint_version": 3.0, "rng": tensor([1.0, 2.0]),
                  "optimizer": {"param_groups": [{"lr": 0.25}]}}
        weight = fake_torch.save((2,), struct.pack("<2f", 3, 4))
        for newest in (False, True):
            with self.subTest(newest=newest):
                root = self.dir / f"dist{newest}"
                root.mkdir()
                (root / "latest_checkpointed_iteration.txt").write_text("20")
                path, content = root / "iter_0000020", fake_torch.archive(common)
                item = "common_state/shard_0_1"
                fake_torch.dcp(path, {"decoder.weight": ((2,), ("decoder.weight",), [((0,), (2,), weight)])},
                               {item: ((item,), content)} if newest else {})
                if not newest:
                    (path / "common.pt").write_bytes(content)
                code, table = self.cairn("inspect", root, ranks=2)
                self.assertEqual((code, table["warnings"], table["format"]), (0, [], "dcp"), table)
                self.assertEqual({t["name"] for t in table["tensors"]}, {"decoder.weight", "rng"})
                values = {tuple(o["path"]): o["value"] for o in table["objects"]}
                self.assertEqual(values, {("args", "lr"): 0.5, ("iteration",): 20, ("checkpoint_version",): 3.0,
                                          ("optimizer", "param_groups", 0, "lr"): 0.25})
                self.assertEqual(table["documents"]["training"]["iteration"], 20)
                self.assertIn(str(root / "latest_checkpointed_iteration.txt"), [f["path"] for f in table["files"]])
                self.assertEqual(self.cairn("verify", root)[0], 0)
                target = self.dir / f"{newest}.h5"
                self.assertEqual(self.cairn("convert", root, target, ranks=2)[0], 0)
                self.assertTrue(self.cairn("diff", root, target)[1]["equal"])

    def test_what_is_not_known_stays_apart(self):
        # Without the options nobody knows whether the MLP's first layer is one or two.
        root = self.write(2, 1, args=False)
        table = self.check(root, 2, left_apart=("mlp.gate", "dense_h_to_4h.weight"))
        names = {t["name"] for t in table["tensors"]}
        self.assertIn("mp_rank_01/model/language_model/encoder/layers.3.mlp.dense_h_to_4h.weight", names)
        self.assertIn("mp_rank_01/rng_state/0/torch_rng_state", names)

    def test_for_lightning_the_state_is_told_to_be_apart(self):
        root = self.dir / "run"
        for rank in range(2):
            part = root / "iter_0000005" / f"mp_rank_0{rank}"
            part.mkdir(parents=True)
            (part / "model_optim_rng.pt").write_bytes(fake_torch.archive({
                "model": {"encoder": {"final_layernorm.weight": fake_torch.tensor((2,), bytes(8))}},
                "optimizer": {"state": {0: {"exp_avg": fake_torch.tensor((2,), bytes(8))}}},
                "args": {"tensor_model_parallel_size": 2}, "checkpoint_version": 3.0, "iteration": 5}))
        (root / "latest_checkpointed_iteration.txt").write_text("5")
        code, told = self.cairn("convert", root, self.dir / "a.ckpt")
        self.assertEqual(code, 0, told)
        self.assertIn("optimizer", [left["name"] for left in told["left_out"]])
        table = self.cairn("inspect", self.dir / "a.ckpt")[1]
        self.assertIn("state_dict/encoder.final_layernorm.weight", [t["name"] for t in table["tensors"]])
        self.assertEqual(table["documents"]["training"]["global_step"], 5)

    def test_a_missing_rank_is_noticed(self):
        root = self.write(2, 2)
        path = root / "iter_0000020" / "mp_rank_01_001"
        (path / "model_optim_rng.pt").rename(path / "gone.pt")
        code, told = self.cairn("inspect", root)
        self.assertEqual((code, told["error"]["code"]), (2, "corrupt"), told)
        self.assertIn("mp_rank_01_001", told["error"]["message"])
        path.rename(root / "gone")
        code, told = self.cairn("inspect", root)
        self.assertEqual((code, told["error"]["code"]), (2, "corrupt"), told)
        (root / "latest_checkpointed_iteration.txt").write_text("21")
        code, told = self.cairn("inspect", root)
        self.assertEqual((code, told["error"]["code"]), (2, "corrupt"), told)
        self.assertIn("iter_0000021", told["error"]["message"])

    def test_experts_on_ranks_of_their_own_are_refused(self):
        root = self.write(1, 1)
        path = root / "iter_0000020"
        (path / "mp_rank_00").rename(path / "mp_rank_00_000_000")
        code, told = self.cairn("inspect", root)
        self.assertEqual((code, told["error"]["code"]), (2, "unsupported"), told)


if __name__ == "__main__":
    unittest.main()
