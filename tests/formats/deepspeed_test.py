"""DeepSpeed's directories, through the cairn tool: the ranks' partitions are put together, or refused for the right reason."""

import hashlib
import json
import pathlib
import shutil
import struct
import unittest

import fake_torch
from harness import BIN, CORPUS, Case, corpus_entries, memory_for, run


def floats(*values):
    return struct.pack(f"<{len(values)}f", *values)


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class DeepSpeed(Case):
    def cairn(self, *words, ranks=0, memory=None):
        done = run([BIN / "cairn", *words, "--json"], ranks=ranks, cwd=self.dir, memory=memory)
        self.assertIn(done.returncode, (0, 1, 2), done.stderr[-2000:])
        return done.returncode, json.loads(done.stdout)

    def test_the_partitions_are_put_together(self):
        entries = [e for e in corpus_entries("deepspeed/") if e["expect"] == "load"]
        self.assertTrue(entries)
        keys = ("name", "dtype", "shape", "sha256")
        for expected in entries:
            with self.subTest(path=expected["path"]):
                path = CORPUS / expected["path"]
                code, table = self.cairn("inspect", path, "--hash", "sha256")
                self.assertEqual(code, 0, table)
                self.assertEqual(sorted(([t[key] for key in keys] for t in table["tensors"]), key=str),
                                 sorted(([t[key] for key in keys] for t in expected["tensors"]), key=str))
                facts = table["documents"]["deepspeed"]
                for key in ("tag", "zero_stage", "dp_world_size", "global_steps", "ds_version"):
                    self.assertEqual(facts[key], expected["metadata"][key])
                self.assertEqual(facts["shared_params"], expected["metadata"].get("shared_params", {}))
                self.assertEqual(facts["client_state"], expected["metadata"]["client_state"])
                objects = {tuple(o["path"]): o["value"] for o in table["objects"]}
                self.assertLessEqual({(key,): value for key, value in facts["client_state"].items()}.items(),
                                     objects.items())
                self.assertEqual(objects["lr_scheduler", "last_batch_iteration"], 20)
                # The tag's directory is the same checkpoint.
                tagged = self.cairn("inspect", path / facts["tag"])[1]
                self.assertEqual(len(tagged["tensors"]), len(expected["tensors"]))

    def test_a_container_has_weights_and_state_by_names(self):
        corpus_entries()
        source, target = CORPUS / "deepspeed" / "stage3_ws2", self.dir / "a.h5"
        code, told = self.cairn("convert", source, target, ranks=2)
        self.assertEqual(code, 0, told)
        names = {t["name"] for t in self.cairn("inspect", target)[1]["tensors"]}
        self.assertLessEqual({"model/encoder.weight", "model/frozen.w", "model/counter",
                              "optimizer/scale/exp_avg_sq"}, names)
        self.assertTrue(self.cairn("diff", source, target)[1]["equal"])
        self.assertEqual(self.cairn("verify", source)[0], 0)

    def universal(self, shape=(2, 3)):
        """A checkpoint of two parameters: `a` as stages 1 and 2 have it, `b` flat, as stage 3 has it."""
        tag = self.dir / "run" / "global_step7_universal"
        files = {
            "zero/a/fp32.pt": {"param": fake_torch.tensor((2, 2), floats(1, 2, 3, 4)), "cat_dim": 0},
            "zero/a/exp_avg.pt": {"param": fake_torch.tensor((2, 2), floats(5, 6, 7, 8)), "cat_dim": 0},
            "zero/a/step.pt": 7,
            "zero/b.c/fp32.pt": fake_torch.tensor((6,), floats(0, 1, 2, 3, 4, 5)),
            "zero/b.c/step.pt": 7,
            "zero/optimizer_state.pt": {"zero_stage": 2, "param_groups": [{"lr": 0.5, "params": [0]}]},
            "mp_rank_00_model_states.pt": {
                "module": {"a": fake_torch.tensor((2, 2), floats(1, 2, 3, 4))},
                "param_shapes": [{"a": fake_torch.size(2, 2), "b.c": fake_torch.size(*shape)}],
                "buffer_names": [], "global_steps": 7, "ds_version": "0.15.0"},
        }
        for name, value in files.items():
            path = tag / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(fake_torch.archive(value))
        (self.dir / "run" / "latest_universal").write_text(tag.name)
        return tag

    def test_universal_checkpoints_are_read(self):
        tag = self.universal()
        code, table = self.cairn("inspect", tag.parent, "--hash", "sha256", ranks=2)
        self.assertEqual(code, 0, table)
        found = {t["name"]: (t["shape"], t["sha256"]) for t in table["tensors"]}
        self.assertEqual(found, {
            "fp32/a": ([2, 2], sha256(floats(1, 2, 3, 4))), "exp_avg/a": ([2, 2], sha256(floats(5, 6, 7, 8))),
            "fp32/b.c": ([2, 3], sha256(floats(0, 1, 2, 3, 4, 5))), "module/a": ([2, 2], sha256(floats(1, 2, 3, 4)))})
        facts = table["documents"]["deepspeed"]
        self.assertEqual({key: facts[key] for key in ("tag", "universal", "step", "zero_stage", "global_steps")},
                         {"tag": tag.name, "universal": True, "step": 7, "zero_stage": 2, "global_steps": 7})
        self.assertEqual(table["documents"]["optimizer"],
                         {"type": None, "param_groups": [{"lr": 0.5, "params": ["a", "b.c"], "step": 7}]})
        self.assertEqual(self.cairn("inspect", tag)[1]["tensors"].__len__(), 4)
        target = self.dir / "a.h5"
        self.assertEqual(self.cairn("convert", tag, target, ranks=2)[0], 0)
        self.assertEqual({t["name"] for t in self.cairn("inspect", target)[1]["tensors"]},
                         {"model/a", "model/b.c", "optimizer/a/exp_avg", "module/a"})
        self.assertTrue(self.cairn("diff", tag, target)[1]["equal"])
        self.assertEqual(self.cairn("verify", tag)[0], 0)

    def test_universal_checkpoints_must_be_whole(self):
        tag = self.universal(shape=(2, 2))
        code, told = self.cairn("inspect", tag)
        self.assertEqual((code, told["error"]["code"]), (2, "corrupt"), told)
        self.assertIn("zero/b.c/fp32.pt", told["error"]["message"])
        tag = self.universal()
        (tag / "zero/b.c/fp32.pt").unlink()
        code, told = self.cairn("inspect", tag)
        self.assertEqual((code, told["error"]["code"]), (2, "corrupt"), told)
        self.assertIn("'b.c' has no 'fp32.pt'", told["error"]["message"])

    def test_any_file_called_latest_makes_no_checkpoint(self):
        for content, code in (("global_step5", "corrupt"), ("", "unsupported"), ("two\nlines\n", "unsupported"),
                              ("x" * 300, "unsupported")):
            with self.subTest(content=content[:20]):
                path = pathlib.Path(self.dir) / f"d{len(content)}"
                path.mkdir()
                (path / "latest").write_text(content)
                (path / "notes.txt").write_text("other things")
                status, told = self.cairn("inspect", path)
                self.assertEqual((status, told["error"]["code"]), (2, code), told)
                self.assertIn("latest", told["error"]["message"])

    def test_without_the_optimizers_files_the_module_is_the_model(self):
        copy = self.copied("stage2_ws2")
        whole = {t["name"]: t["sha256"] for t in self.cairn("inspect", copy, "--hash", "sha256")[1]["tensors"]}
        for file in copy.glob("*_optim_states.pt"):
            file.unlink()
        self.assertEqual(self.cairn("convert", copy, self.dir / "a.h5", ranks=2)[0], 0)
        table = self.cairn("inspect", copy)[1]
        self.assertIn("*_optim_states.pt", str(table["warnings"]))
        self.assertEqual(table["documents"]["deepspeed"]["zero_stage"], 2)
        found = self.cairn("inspect", self.dir / "a.h5", "--hash", "sha256")[1]["tensors"]
        self.assertEqual({t["name"]: t["sha256"] for t in found},
                         {f"model/{name[7:]}": value for name, value in whole.items() if name.startswith("module/")})

    def test_stage_3_without_the_optimizers_files_is_refused(self):
        copy = self.copied("stage3_ws2")
        for file in copy.glob("*_optim_states.pt"):
            file.unlink()
        code, told = self.cairn("inspect", copy)
        self.assertEqual((code, told["error"]["code"]), (2, "corrupt"), told)
        self.assertIn("*_optim_states.pt", told["error"]["message"])

    def copied(self, name):
        """A copy of the tag's directory of a checkpoint of the corpus."""
        corpus_entries()
        copy = self.dir / name
        shutil.copytree(CORPUS / "deepspeed" / name / "global_step20", copy, copy_function=shutil.copyfile)
        copy.chmod(0o755)
        return copy

    def test_tied_weights_are_there_by_both_names(self):
        corpus_entries()
        source = CORPUS / "deepspeed" / "stage2_ws2"
        self.assertEqual(self.cairn("convert", source, self.dir / "a.pt", "--weights-only")[0], 0)
        table = self.cairn("inspect", self.dir / "a.pt", "--hash", "sha256")[1]
        sums = {t["name"]: t["sha256"] for t in table["tensors"]}
        self.assertEqual(sums["head.weight"], sums["encoder.weight"])
        self.assertEqual(table["aliases"], [["encoder.weight", "head.weight"]])

    def test_what_the_optimizer_is_set_to_is_told(self):
        for expected in (e for e in corpus_entries("deepspeed/") if e["expect"] == "load"):
            facts = self.cairn("inspect", CORPUS / expected["path"])[1]["documents"]["deepspeed"]
            wanted = expected["metadata"]
            self.assertEqual(facts["optimizer"]["step"], wanted["adam_step"])
            groups = [{key: group[key] for key in wanted["param_groups"][0]} for group in facts["param_groups"]]
            # Stage 3 divides a group once more.
            told = [group for i, group in enumerate(groups) if i == 0 or group != groups[i - 1]]
            self.assertEqual(told, wanted["param_groups"])

    def stage_1(self, steps, params, options={}):
        """One rank, with a group of `a` and one of `b`, stepped as often as told."""
        tag = self.dir / "global_step7"
        self.model_file(tag, {"param_shapes": [{"a": fake_torch.size(2)}, {"b": fake_torch.size(3)}]})
        flat = {count: fake_torch.tensor((count,), bytes(4 * count)) for count in (2, 3)}
        state = {number: {"exp_avg": flat[count], **({} if steps[number] is None else {"step": steps[number]})}
                 for number, count in enumerate((2, 3))}
        (tag / "zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(fake_torch.archive({
            "optimizer_state_dict": {"zero_stage": 1, "partition_count": 1,
                                     "single_partition_of_fp32_groups": [flat[2], flat[3]],
                                     "base_optimizer_state": {"state": state, "param_groups": [
                                         {"lr": 0.5, "params": of_group, **options} for of_group in params]}}}))
        return tag

    def test_groups_of_parameters_have_names_and_steps(self):
        float_step = fake_torch.tensor((), floats(9))
        cases = {
            "as DeepSpeed has it": ((7, float_step), [[0], [1]], [(["a"], 7), (["b"], 9)], [7, 9.0]),
            "not stepped yet": ((7, None), [[0], [1]], [(["a"], 7), (["b"], None)], [7, None]),
            "no number of steps": ((7, -1), [[1], [0]], [(["b"], None), (["a"], 7)], [7, -1]),
            "runs of one group": ((7, 7), [[0, 1]], [(["a", "b"], 7)], 7),
            "runs of different steps": ((7, 8), [[0, 1]], [(["a", "b"], None)], [7, 8]),
            "the parameters' numbers": ((7, 7), [[0, 1, 2, 3]], [(["a", "b"], 7)], 7),
            "unknown numbers": ((7, 7), [[0], [2]], None, 7),
            "one twice": ((7, 7), [[0], [0]], None, 7),
            "options that are no values": ((7, 7), [[0], [1]], [(["a"], 7), (["b"], 7)], 7,
                                           {"eps": fake_torch.tensor((), floats(1))}),
        }
        # DeepSpeed's own Adam leaves a 0 in the groups; older ones count there, and only there.
        cases |= {
            "an old step in the groups": ((7, 8), [[0], [1]], [(["a"], 7), (["b"], 8)], [7, 8], {"step": 0}),
            "an old step and different ones": ((7, 8), [[0, 1]], [(["a", "b"], None)], [7, 8], {"step": 0}),
            "steps of groups": ((None, None), [[0], [1]], [(["a"], 5), (["b"], 5)], None, {"step": 5}),
        }
        for name, (steps, params, groups, told, *options) in cases.items():
            with self.subTest(name=name):
                tag = self.stage_1(steps, params, *options)
                code, table = self.cairn("inspect", tag)
                self.assertEqual(code, 0, table)
                self.assertEqual(table["documents"]["deepspeed"].get("optimizer", {}).get("step"), told)
                document = table["documents"].get("optimizer")
                self.assertEqual(document and [(group["params"], group.get("step")) for group in document["param_groups"]],
                                 groups)
                warns = " ".join(table["warnings"])
                self.assertEqual("'eps'" in warns, "eps" in (options or [{}])[0], warns)
                self.assertEqual("was not stepped as one" in warns, "different" in name or name == "not one step", warns)
                code, told = self.cairn("convert", tag, self.dir / "a.ckpt", "--force")
                self.assertEqual(code, 0, told)
                self.assertEqual("optimizer" in [left["name"] for left in told["left_out"]], groups is None)

    def test_state_may_not_be_called_as_weights_are(self):
        for slot in ("fp32", "module", "buffer", "frozen"):
            tag = self.dir / slot
            self.model_file(tag, {"param_shapes": [{"a": fake_torch.size(2)}]})
            flat = fake_torch.tensor((2,), floats(1, 2))
            (tag / "zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(fake_torch.archive({
                "optimizer_state_dict": {"zero_stage": 1, "partition_count": 1, "single_partition_of_fp32_groups": [flat],
                                         "base_optimizer_state": {"state": {0: {slot: flat}}, "param_groups": []}}}))
            code, told = self.cairn("inspect", tag)
            self.assertEqual((code, told["error"]["code"]), (2, "corrupt"), told)

    def test_groups_of_which_nothing_is_selected_are_left_out(self):
        tag = self.stage_1((7, 7), [[0], [1]])
        code, told = self.cairn("convert", tag, self.dir / "a.ckpt", "--select", "^fp32/")
        self.assertEqual(code, 0, told)
        self.assertIn("selected", {left["name"]: left["why"] for left in told["left_out"]}["optimizer"])
        table = self.cairn("inspect", self.dir / "a.ckpt")[1]
        self.assertEqual(table["documents"].get("optimizers", []), [])

    def test_parameters_that_were_reordered_are_in_the_order_of_the_module(self):
        tag = self.stage_1((7, 7), [[0, 1]])
        weights = {name: fake_torch.tensor((count,), bytes(4 * count)) for name, count in (("b", 3), ("a", 2))}
        for on in (False, True):
            self.model_file(tag, {"param_shapes": [{"a": fake_torch.size(2), "b": fake_torch.size(3)}], "module": weights,
                                  "ds_config": {"zero_optimization": {"stage": 1, "round_robin_gradients": on}}})
            flat = fake_torch.tensor((5,), bytes(20))
            (tag / "zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(fake_torch.archive({
                "optimizer_state_dict": {"zero_stage": 1, "partition_count": 1, "single_partition_of_fp32_groups": [flat],
                                         "base_optimizer_state": {"state": {0: {"exp_avg": flat}},
                                                                  "param_groups": [{"params": [0]}]}}}))
            code, table = self.cairn("inspect", tag)
            self.assertEqual(code, 0, table)
            self.assertEqual(table["documents"]["optimizer"]["param_groups"][0]["params"], ["b", "a"] if on else ["a", "b"])
            self.assertEqual([w for w in table["warnings"] if "round_robin" in w] != [], on)

    def model_file(self, tag, change):
        """Puts a file of the model in the place of that of the corpus, whose tensors it names anew."""
        state = {"module": {"w": fake_torch.tensor((2, 2), floats(1, 2, 3, 4))}, "buffer_names": [], "optimizer": None,
                 "param_shapes": [{"w": fake_torch.size(2, 2)}], "global_steps": 7, "ds_version": "0.16.4"} | change
        tag.mkdir(exist_ok=True)
        (tag / "mp_rank_00_model_states.pt").write_bytes(fake_torch.archive(state))

    def test_what_the_trainer_added_is_told(self):
        tag = self.dir / "global_step7"
        state = fake_torch.tensor((3,), floats(7, 8, 9))
        self.model_file(tag, {"epoch": 3, "global_step": 70, "pytorch-lightning_version": "2.4.0",
                              "lr_scheduler": {"last_epoch": 6}, "rng": state, "callbacks": {"best": {"score": state}},
                              "hyper_parameters": fake_torch.made("trainer.config", "Options", {"lr": 0.5})})
        code, table = self.cairn("inspect", tag, "--hash", "sha256", ranks=2)
        self.assertEqual((code, table["warnings"]), (0, []), table)
        self.assertEqual(table["documents"]["deepspeed"]["client_state"]["callbacks"],
                         {"best": {"score": {"tensor": "client_state/callbacks/best/score"}}})
        training = table["documents"]["training"]
        self.assertEqual([training[key] for key in ("kind", "epoch", "global_step", "lr_scheduler")],
                         ["lightning", 3, 70, {"last_epoch": 6}])
        self.assertEqual([o["class"] for o in table["opaque"]], ["trainer.config.Options"])
        self.assertEqual({t["name"]: t["sha256"] for t in table["tensors"]}, {
            "module/w": sha256(floats(1, 2, 3, 4)), "client_state/rng": sha256(floats(7, 8, 9)),
            "client_state/callbacks/best/score": sha256(floats(7, 8, 9))})
        self.assertEqual(self.cairn("convert", tag, self.dir / "a.h5", ranks=2)[0], 0)
        self.assertEqual({t["name"] for t in self.cairn("inspect", self.dir / "a.h5")[1]["tensors"]},
                         {"model/w", "other/client_state%2Frng", "other/client_state%2Fcallbacks%2Fbest%2Fscore"})
        self.model_file(tag, {"epoch": fake_torch.call("os", "system", "true")})
        code, told = self.cairn("inspect", tag)
        self.assertEqual((code, told["error"]["code"]), (2, "unsafe"), told)

    def test_a_module_that_keeps_more_than_tensors(self):
        tag = self.dir / "global_step7"
        weight = fake_torch.tensor((2, 2), floats(1, 2, 3, 4))
        self.model_file(tag, {"module": {"w": weight, "a._extra_state": None,
                                         "b._extra_state": fake_torch.call("_io", "BytesIO", b"fp8")}})
        code, table = self.cairn("inspect", tag)
        self.assertEqual((code, [t["name"] for t in table["tensors"]]), (0, ["module/w"]), table)
        self.assertEqual(len(table["warnings"]), 1)
        self.assertIn("'b._extra_state'", table["warnings"][0])

    def stage_3(self, name, elements, moments=None):
        """Two ranks that share parameters of 3 and of 4 elements: 2 and 2 each."""
        tag = self.dir / name
        tag.mkdir()
        for rank in range(2):
            flat = fake_torch.tensor((elements,), bytes(4 * elements))
            count = moments if rank == 1 and moments else elements
            state = {"state": {0: {"exp_avg": fake_torch.tensor((count,), bytes(4 * count))}}, "param_groups": []}
            (tag / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").write_bytes(fake_torch.archive({
                "optimizer_state_dict": {"zero_stage": 3, "partition_count": 2, "fp32_flat_groups": [flat],
                                         "optimizer_state_dict": state}}))
            (tag / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt").write_bytes(fake_torch.archive({
                "module": {}, "buffer_names": [], "frozen_param_shapes": None, "frozen_param_fragments": None,
                "param_shapes": [{"a": fake_torch.size(3), "b": fake_torch.size(4)}]}))
        return tag

    def test_groups_of_stage_3_have_whole_parameters(self):
        """Each run has a part of the parameters; groups number the runs, and the model names parameters by runs, or all
        at once."""
        shapes = {"a": 3, "z": 0, "b": 4, "c": 2, "y": 0}  # 2, 0, 2, 1 and 0 elements in each rank
        divided = [["a", "z"], ["b", "c", "y"]]
        cases = [([[0, 1]], divided, [["a", "z", "b", "c", "y"]]), ([[0], [1]], divided, divided),
                 ([[0], [1]], [list(shapes)], divided), ([[1], [0]], divided, divided[::-1]), ([[0], [5]], divided, None)]
        for number, (params, named, wanted) in enumerate(cases):
            with self.subTest(params=params, named=named):
                tag = self.dir / f"tag{number}"
                tag.mkdir()
                flat = [fake_torch.tensor((count,), bytes(4 * count)) for count in (2, 3)]
                state = {"state": {i: {"exp_avg": flat[i], "step": 4} for i in range(2)},
                         "param_groups": [{"lr": i, "params": of_group} for i, of_group in enumerate(params)]}
                for rank in range(2):
                    (tag / f"zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").write_bytes(fake_torch.archive({
                        "optimizer_state_dict": {"zero_stage": 3, "partition_count": 2, "fp32_flat_groups": flat,
                                                 "optimizer_state_dict": state}}))
                    (tag / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt").write_bytes(fake_torch.archive({
                        "module": {}, "buffer_names": [], "frozen_param_shapes": None, "frozen_param_fragments": None,
                        "param_shapes": [{name: fake_torch.size(shapes[name]) for name in group} for group in named]}))
                code, table = self.cairn("inspect", tag)
                self.assertEqual(code, 0, table)
                document = table["documents"].get("optimizer")
                self.assertEqual(document and [(g["lr"], g["params"], g["step"]) for g in document["param_groups"]],
                                 wanted and [(i, names, 4) for i, names in enumerate(wanted)])

    def test_stage_3_has_nothing_left_over(self):
        code, table = self.cairn("inspect", self.stage_3("exact", 4))
        self.assertEqual((code, len(table["tensors"])), (0, 4), table)
        for name, elements, moments in (("longer", 5, None), ("one_role", 4, 6), ("shorter", 3, None)):
            with self.subTest(name=name):
                code, told = self.cairn("inspect", self.stage_3(name, elements, moments))
                self.assertEqual((code, told["error"]["code"]), (2, "corrupt"), told)
                self.assertIn("elements", told["error"]["message"])

    def test_what_is_broken_is_refused(self):
        for entry in corpus_entries("hostile/deepspeed/"):
            with self.subTest(path=entry["path"]):
                path = CORPUS / entry["path"]
                code, found = self.cairn("inspect", path, memory=memory_for(path))
                self.assertEqual(code, 2, found)
                reasons = {other.get("reason") for other in [entry, *entry.get("also_accept", [])]}
                self.assertIn(found["error"]["code"], reasons, found["error"]["message"])


if __name__ == "__main__":
    unittest.main()
