"""The configuration of docs/configuration.md from end to end: from S3 into a model, through training, to a resume."""

import json
import re
import unittest

import swift_server
from harness import BIN, CORPUS, ROOT, TEST_BIN, Case, run, skip_without_package
from swift_server import ACCESS_KEY, SECRET_KEY, Swift

# Of the model: as in the corpus; so that its layers outweigh all else; so that they do with an optimizer's state, too.
NARROW, WIDE, WIDEST = 8, 1024, 2048
PIPELINE = TEST_BIN / "cairn-pipeline"
LIGHTNING = CORPUS / "lightning" / "1.13" / "anemoi-by_epoch-epoch_003-step_000030.ckpt"
# What neither `freeze` nor `lora` of the configuration takes out of the training.
TRAINED = ["decoder.lora_A", "decoder.lora_B", "processor.1.0.bias", "processor.1.0.weight",
           "processor.1.1.bias", "processor.1.1.weight"]


def documented():
    """The first configuration in the documentation, as it stands."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    return re.search(r"```yaml\n(.*?)```", text, re.S).group(1)


class Pipeline(Case):
    @classmethod
    def setUpClass(cls):
        if program := swift_server.missing():
            skip_without_package(f"{program} is not installed: there is no S3 server to load from")
        cls.swift = Swift()
        cls.addClassCleanup(cls.swift.stop)
        cls.swift.put("/ecmwf-models")

    def pipeline(self, ranks, *words):
        done = run([PIPELINE, *words], ranks=ranks, cwd=self.dir, env={
            "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_SESSION_TOKEN": "",
            "AWS_PROFILE": "", "AWS_ENDPOINT_URL": self.swift.endpoint, "no_proxy": "127.0.0.1",
            "OMP_NUM_THREADS": "1", "OMPI_MCA_mpi_yield_when_idle": "1",
            "OMPI_MCA_hwloc_base_binding_policy": "none"})
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def make(self, width):
        """A checkpoint of the untrained model, at step 900."""
        self.assertIn("made ", self.pipeline(0, "make", self.dir / "made", width))
        return self.dir / "made" / "step-00000900.h5"

    def convert(self, source, target):
        done = run([BIN / "cairn", "convert", source, target])
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def upload(self, content):
        self.swift.put("/ecmwf-models/anemoi/pretrained.ckpt", content)
        self.content = content

    def train(self, ranks, steps, loaded, width=NARROW, every=1000):
        """Trains as documented until so many steps are done; (sum, requests)."""
        config = self.dir / "checkpoint.yaml"
        text = documented()
        self.assertIn("/tmp/checkpoints", text)
        self.assertIn("every_n_steps: 1000", text)
        text = text.replace("every_n_steps: 1000", f"every_n_steps: {every}")
        config.write_text(text.replace("/tmp/checkpoints", str(self.dir / "cache")))
        before = len(self.swift.requests())
        first = self.pipeline(ranks, "train", config, steps, width)
        self.assertIn(f"{loaded} fetched={len(self.content)}\n", first)
        done = re.search(r"^done step=\d+ sum=(\S+) changed=(\S+)$", first, re.M)
        self.assertIsNotNone(done, first)
        self.assertEqual(done.group(2).split(","), TRAINED)
        # Rank 0 alone asks, and each byte comes once.
        requests = self.swift.requests()[before:]
        self.assertEqual({(request.method, request.status) for request in requests}, {("GET", 206)})
        self.assertEqual(sum(request.bytes for request in requests), len(self.content))
        return done.group(1), before + len(requests)

    def train_and_resume(self, ranks, steps, loaded):
        """Trains until step 1000, and goes on from there."""
        self.dir.joinpath("runs").mkdir()
        total, requests = self.train(ranks, steps, loaded)
        self.assertEqual([path.name for path in sorted((self.dir / "runs" / "a").glob("step-*"))],
                         ["step-00001000.h5"])

        resumed = self.dir / "resume.yaml"
        lines = documented().splitlines()
        begin, end = (next(i for i, line in enumerate(lines) if line.startswith(key))
                      for key in ("checkpoint:", "model_modifier:"))
        lines[begin:end] = ["checkpoint:", "  source: {path: runs/a}"]
        resumed.write_text("\n".join(lines) + "\n")
        second = self.pipeline(ranks, "train", resumed, 0, NARROW)
        self.assertIn(f"loaded step=1000 tensors={13 + 2 + 3 * len(TRAINED)} matched=1 missing=0 "
                      f"optimizer={len(TRAINED)} fetched=0\n", second)
        self.assertIn(f"done step=1000 sum={total} changed=\n", second)
        self.assertEqual(len(self.swift.requests()), requests)

    def test_on_any_number_of_ranks(self):
        pretrained = self.dir / "pretrained.ckpt"  # a file of Lightning's, as the configuration names it
        self.convert(self.make(NARROW), pretrained)
        self.upload(pretrained.read_bytes())
        root = self.dir
        for ranks in (1, 2, 4):
            with self.subTest(ranks=ranks):
                self.dir = root / str(ranks)
                self.dir.mkdir()
                self.train_and_resume(ranks, 100, "loaded step=900 tensors=13 matched=1 missing=0 optimizer=0")
        # A warm start, optimizer included, from a server.
        trained = self.dir / "runs" / "a" / "step-00001000.h5"
        self.upload(trained.read_bytes())
        config = self.dir / "warm.yaml"
        lines = [line for line in documented().splitlines() if not line.startswith("  loading:")]
        config.write_text("\n".join(lines).replace("/tmp/checkpoints", str(self.dir / "cache")))
        self.assertIn(f"loaded step=1000 tensors=33 matched=1 missing=0 optimizer={len(TRAINED)}",
                      self.pipeline(2, "train", config, 0, NARROW))

    def test_adapters_alone_are_small(self):
        self.dir.joinpath("runs").mkdir()
        made = self.make(WIDE)
        self.upload(made.read_bytes())
        self.train(2, 5, "loaded step=900 tensors=13 matched=1 missing=0 optimizer=0", WIDE, every=905)
        full = self.dir / "runs" / "a" / "step-00000905.h5"
        adapters = self.dir / "adapters.h5"
        for whole in (made, full):  # without an optimizer's state, too
            self.assertLess(adapters.stat().st_size, 0.05 * whole.stat().st_size, whole)
        self.assertEqual(self.tensors(adapters), {"model/decoder.lora_A": [8, WIDE], "model/decoder.lora_B": [5, 8]})

    def test_adapters_of_all_layers_are_small_alone_and_as_a_delta_with_their_optimizer(self):
        """What is trained is saved at each step, what is not stands in the first checkpoint alone."""
        self.dir.joinpath("runs").mkdir()
        made = self.make(WIDEST)
        config = self.dir / "checkpoint.yaml"
        sizes = {}
        for name, delta in (("full", False), ("delta", True)):
            config.write_text(json.dumps({
                "checkpoint": {"source": {"path": str(made)}, "loading": {"type": "transfer_learning"}},
                "model_modifier": {"modifiers": [{"type": "lora", "rank": 8, "target_modules": ["*"]}]},
                "save": {"dir": f"runs/{name}", "every_n_steps": 1, "delta": delta}}))
            trained = self.pipeline(2, "train", config, 2, WIDEST)
            adapted = [f"{layer}.lora_{which}" for layer in ("decoder", "encoder", "processor.0.1", "processor.1.1")
                       for which in "AB"]
            self.assertIn(f" changed={','.join(adapted)}\n", trained)
            second = self.dir / "runs" / name / "step-00000902.h5"
            sizes[name] = second.stat().st_size
            self.assertLessEqual({f"optimizer/{name}/{slot}" for name in adapted for slot in ("exp_avg", "exp_avg_sq")},
                                 set(self.tensors(second)))
        alone = self.dir / "adapters.h5"
        self.assertEqual(set(self.tensors(alone)), {f"model/{name}" for name in adapted})
        for size in (sizes["delta"], alone.stat().st_size):
            self.assertLess(size, 0.05 * sizes["full"])

    def tensors(self, path):
        """Shapes by name."""
        shown = run([BIN / "cairn", "inspect", path, "--json"])
        self.assertEqual(shown.returncode, 0, shown.stderr)
        return {tensor["name"]: tensor["shape"] for tensor in json.loads(shown.stdout)["tensors"]}

    def test_from_a_lightning_checkpoint(self):
        if not LIGHTNING.exists():
            self.skipTest(f"NOT TESTED: no {LIGHTNING}; set CAIRN_CORPUS")
        self.upload(LIGHTNING.read_bytes())
        self.train(2, 10, "loaded step=30 tensors=13 matched=1 missing=0 optimizer=0")


if __name__ == "__main__":
    unittest.main()
