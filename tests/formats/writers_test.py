"""What PyTorch and NumPy write here and now, beyond what others wrote before: each value as its writer means it."""

import hashlib
import io
import json
import unittest

from harness import BIN, Case, run

try:
    import torch
except ImportError:
    torch = None


class Writers(Case):
    def setUp(self):
        super().setUp()
        if torch is None:
            self.skipTest("NOT TESTED: no PyTorch for Python; install python3-torch")

    def told(self, value, **how):
        stream = io.BytesIO()
        torch.save(value, stream, **how)
        path = self.dir / "made.pt"
        path.write_bytes(stream.getvalue())
        done = run([BIN / "cairn", "inspect", "--json", "--hash", "sha256", path])
        self.assertEqual(done.returncode, 0, done.stdout[-2000:] + done.stderr[-2000:])
        return json.loads(done.stdout)

    def test_modules_in_files_of_before_1_6(self):
        net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.GELU(), torch.nn.BatchNorm1d(4))
        wanted = {name: hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest()
                  for name, tensor in [*net.named_parameters(), *net.named_buffers()]}
        told = self.told(net, _use_new_zipfile_serialization=False)
        self.assertEqual({tensor["name"]: tensor["sha256"] for tensor in told["tensors"]}, wanted)
        told = self.told({"w": net[0].weight.detach(), "act": torch.nn.GELU}, _use_new_zipfile_serialization=False)
        self.assertEqual([tensor["sha256"] for tensor in told["tensors"]], [wanted["0.weight"]])
        self.assertEqual(told["opaque"], [{"path": ["act"], "class": "torch.nn.modules.activation.GELU"}])


if __name__ == "__main__":
    unittest.main()
