"""DeepSpeed's directories, through the cairn tool: the ranks' partitions are put together, or refused for the right reason."""

import json
import shutil
import unittest

from harness import BIN, CORPUS, Case, corpus_entries, run


class DeepSpeed(Case):
    def cairn(self, *words, ranks=0):
        done = run([BIN / "cairn", *words, "--json"], ranks=ranks, cwd=self.dir)
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

    def test_a_checkpoint_without_the_optimizers_files_is_refused(self):
        for name in ("stage2_ws2", "stage3_ws2"):
            with self.subTest(name=name):
                copy = self.copied(name)
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
            self.assertEqual(groups, wanted["param_groups"])

    def test_what_is_broken_is_refused(self):
        for entry in corpus_entries("hostile/deepspeed/"):
            with self.subTest(path=entry["path"]):
                code, found = self.cairn("inspect", CORPUS / entry["path"])
                self.assertEqual(code, 2, found)
                reasons = {other.get("reason") for other in [entry, *entry.get("also_accept", [])]}
                self.assertIn(found["error"]["code"], reasons, found["error"]["message"])


if __name__ == "__main__":
    unittest.main()
