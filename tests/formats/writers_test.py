"""What PyTorch and NumPy write here and now, beyond what others wrote before: each value as its writer means it."""

import hashlib
import io
import json
import struct
import unittest

from harness import BIN, Case, run

import numpy

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

    def test_arrays_of_every_kind(self):
        grid = numpy.array([[1.5, 2], [3, 4]])
        records = numpy.rec.array([(1, 2.5)], dtype=[("a", "<i4"), ("b", "<f8")])
        numbers = {"matrix": grid.view(numpy.matrix), "records": grid.view(numpy.recarray), "columns": numpy.asfortranarray(grid),
                   "big": grid.astype(">f4")}
        others = {"objects": numpy.array([1, None, "x"], dtype=object), "texts": numpy.array(["a", "bc"]),
                  "seconds": numpy.array([1, 2], dtype="M8[s]"), "steps": numpy.array([3], dtype="m8[25us]"),
                  "any": numpy.array([3], dtype="m8"), "fields": numpy.zeros(2, dtype=[("a", "<i4")]), "rows": records,
                  "plain_rows": records.view(numpy.ndarray), "bytes": numpy.array([b"abc"]).view(numpy.chararray)}
        told = self.told({**numbers, **others})
        little = {name: numpy.asarray(array).astype(array.dtype.newbyteorder("<")) for name, array in numbers.items()}
        self.assertEqual({array["path"][0]: (array["shape"], array["sha256"]) for array in told["arrays"]},
                         {name: (list(array.shape), hashlib.sha256(array.tobytes()).hexdigest())
                          for name, array in little.items()})
        self.assertEqual(told["opaque"], [{"path": [name], "class": "numpy.ndarray", "dtype": array.dtype.str}
                                          for name, array in others.items()])

    def test_scalars_of_every_kind(self):
        floats = [numpy.float64(0.1), numpy.float32(0.1), numpy.float16(0.1), numpy.float16(6e-8), numpy.float16("inf")]
        values = [(f"numpy.{value.dtype.name}", float(value) if numpy.isfinite(value) else str(value), value)
                  for value in floats]
        values += [(f"numpy.{name}", -3 if name.startswith("i") else 3, numpy.dtype(name).type(-3 if name[0] == "i" else 3))
                   for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")]
        values += [("numpy.uint64", str(2**63), numpy.uint64(2**63)), ("numpy.bool", True, numpy.bool_(True)),
                   ("numpy.complex64", [1.5, -2.0], numpy.complex64(1.5 - 2j)),
                   ("numpy.complex128", ["nan", 1.0], numpy.complex128(complex("nan+1j"))),
                   ("numpy.str96", "a\u00e9\U0001f30d", numpy.str_("a\u00e9\U0001f30d")), ("numpy.str", "", numpy.str_("")),
                   ("numpy.bytes24", "610062", numpy.bytes_(b"a\0b")), ("numpy.void16", "0001", numpy.void(b"\0\1"))]
        dates = [("2020-02-29", unit) for unit in ("Y", "M", "W", "D")]
        dates += [("1969-12-31T23:59:58.123456", unit) for unit in ("h", "m", "s", "ms", "us")]
        dates += [("0001-01-01", "D"), ("9999-12-31T23", "h"), ("NaT", "s"), (250, "25s")]
        times = [numpy.datetime64(*date) for date in dates]
        times += [numpy.timedelta64(-3, unit) for unit in ("W", "D", "h", "m", "s", "ms", "us", "25s")]
        values += [(f"numpy.{time.dtype.name}", str(time), time) for time in times]
        # What Python's datetime has nothing like.
        counts = [numpy.datetime64(5, "ns"), numpy.datetime64(-719528, "D"), numpy.datetime64(253402300800, "s"),
                  numpy.timedelta64(3), numpy.timedelta64(3, "M"), numpy.timedelta64(3, "ps")]
        values += [(f"numpy.{time.dtype.name}", int(time.astype("i8")), time) for time in counts]
        values += [("numpy.datetime64[Y]", str(2**63 - 1), numpy.datetime64(2**63 - 1, "Y"))]
        told = self.told([value for _, _, value in values])
        self.assertEqual([(entry["type"], entry["value"]) for entry in told["objects"]],
                         [(kind, value) for kind, value, _ in values])
        self.assertEqual([entry["bits"] for entry in told["objects"] if "bits" in entry],
                         [struct.pack(">d", value).hex() for value in floats])
        row = self.told(numpy.zeros(1, dtype=[("a", "<i4")])[0])
        self.assertEqual(row["opaque"], [{"path": [], "class": "numpy.void32", "dtype": "|V4"}])


if __name__ == "__main__":
    unittest.main()
