"""All readers on the corpus and on broken copies of it; in the preset "asan" with AddressSanitizer and UBSan."""

import json
import re
import shutil
import struct
import subprocess
import unittest

import fake_torch
from harness import CORPUS, ROOT, TEST_BIN, Case

SECONDS = 45
FUZZER = TEST_BIN / "fuzz_readers"


class Fuzz(Case):
    def seeds(self):
        """What the corpus does not have."""
        root = self.dir / "seeds"
        root.mkdir()
        one = fake_torch.save((2,), bytes(8))
        for rank in range(2):
            fake_torch.dcp(root / "ranks", {
                "cut": ((4,), ("cut",), [((2 * rank,), (2,), one)]), "same": ((2,), ("same",), [((0,), (2,), one)])},
                values={"epoch": (("epoch",), fake_torch.archive({"epoch": 3, "by_rank": [rank, 0.5]}))}, rank=rank)
        for number in range(2):
            header = {"__metadata__": {"DCP_SHARDING_INFO": json.dumps({"w": {"saved_offsets": [2 * number]}}),
                                       "DCP_VERSION": "1.0"},
                      "w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
            text = json.dumps(header).encode()
            path = root / "sharded" / f"shard-0000{number}-model-00001-of-00001.safetensors"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
        files = {
            "universal/latest_universal": b"tag",
            "universal/tag/zero/a.b/fp32.pt": fake_torch.archive({"param": fake_torch.tensor((2,), bytes(8))}),
            "universal/tag/zero/a.b/exp_avg.pt": fake_torch.archive(fake_torch.tensor((2,), bytes(8))),
            "universal/tag/zero/a.b/step.pt": fake_torch.archive(3),
            "universal/tag/zero/optimizer_state.pt": fake_torch.archive({"zero_stage": 3}),
            "universal/tag/mp_rank_00_model_states.pt": fake_torch.archive({
                "module": {"a.b": fake_torch.tensor((1, 2), bytes(8))}, "param_shapes": [{"a.b": fake_torch.size(1, 2)}],
                "buffer_names": []}),
            "megatron/latest_checkpointed_iteration.txt": b"5",
        }
        for rank in range(4):
            files[f"megatron/iter_0000005/mp_rank_0{rank % 2}_00{rank // 2}/model_optim_rng.pt"] = fake_torch.archive({
                "model": {"encoder": {
                    "layers.0.self_attention.query_key_value.weight": fake_torch.tensor((6, 2), bytes(48)),
                    "layers.0.self_attention.dense.weight": fake_torch.tensor((2, 2), bytes(16)),
                    "layers.0.mlp.dense_h_to_4h.weight": fake_torch.tensor((4, 2), bytes(32)),
                    "final_layernorm.weight": fake_torch.tensor((2,), bytes(8))}},
                "args": {"swiglu": rank >= 0}, "checkpoint_version": 0, "iteration": 5})
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return root

    def test_no_file_does_more_than_be_refused(self):
        directories = [self.seeds(), *(path for path in CORPUS.glob("*") if path.is_dir() and path.name != "configs")]
        if len(directories) < 2:
            print(f"NOT TESTED: no corpus of checkpoints at {CORPUS}; set CAIRN_CORPUS")
        done = subprocess.run(
            [FUZZER, str(SECONDS), *directories], capture_output=True, text=True, errors="replace", cwd=self.dir,
            timeout=1000, env={"ASAN_OPTIONS": "detect_leaks=0:max_allocation_size_mb=600",
                               "UBSAN_OPTIONS": "print_stacktrace=1"})
        finding = self.dir / "fuzz-finding.bin"
        if finding.exists():
            shutil.copy(finding, ROOT / "build" / finding.name)
            done.stderr += f"\nto repeat it: {FUZZER} {ROOT / 'build' / finding.name}"
        self.assertEqual(done.returncode, 0, done.stderr[-6000:])
        seeds, broken = map(int, re.match(r"(\d+) inputs, (\d+) broken ones", done.stdout).groups())
        self.assertGreater(seeds, 20)
        self.assertGreater(broken, 100)
        print(done.stdout)


if __name__ == "__main__":
    unittest.main()
