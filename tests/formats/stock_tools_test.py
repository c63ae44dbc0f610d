"""Containers in the hands of other programs: h5ls, h5dump, h5py, h5repack, and a reader made from
docs/format.md alone."""

import json
import re
import unittest

import h5py
import numpy

from harness import BIN, Case, ROOT, SAMPLE, run

CUTS = ("replicated", "rows", "columns", "grid", "flat", "uneven", "one_rank")
COUNT = numpy.arange(8).reshape(4, 2)
REAL = ("f64", "f32", "f16", "bf16", "i64", "i32", "i16", "i8", "u8", "u16", "u32", "u64")
COMPLEX = ("c128", "c64", "c32")
FP8 = {  # bytes of 0, 1, ... 7: sign, 4 or 5 bits of exponent, 3 or 2 of mantissa
    "f8_e4m3fn": [0x00, 0x38, 0x40, 0x44, 0x48, 0x4A, 0x4C, 0x4E],
    "f8_e5m2": [0x00, 0x3C, 0x40, 0x42, 0x44, 0x45, 0x46, 0x47],
}
DUMPED = {  # what h5dump prints of model/counting.<dtype>
    **{name: [str(i) for i in range(8)] for name in REAL},
    **{name: [str(part) for i in range(8) for part in (i, -i)] for name in COMPLEX},
    **{name: [str(code) for code in codes] for name, codes in FP8.items()},
    "bool": ["FALSE", "TRUE"] * 4,
}


def large_bytes(version):
    """The bytes of model/large, as sample_state.cpp makes them."""
    with numpy.errstate(over="ignore"):
        seed = numpy.uint64(version * 1000 + 22 * 16)  # the 22nd tensor of random bytes
        x = seed * numpy.uint64(0x9E3779B97F4A7C15) + numpy.arange(1, 256 * 1152 + 1, dtype=numpy.uint64)
        x ^= x >> numpy.uint64(31)
        x *= numpy.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> numpy.uint64(27)
    return x.astype("<u4").tobytes()


def documented_reader():
    """The Python that docs/format.md prints, as a module namespace."""
    text = (ROOT / "docs" / "format.md").read_text()
    namespace = {}
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(compile(code, "docs/format.md", "exec"), namespace)
    return namespace


class StockTools(Case):
    def container(self, cut, ranks, engine):
        path = self.dir / f"{cut}-{ranks}-{engine}.h5"
        result = self.sample_save(path, 1, 1, cut=cut, engine=engine, ranks=ranks)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return path

    def check_h5py(self, path):
        with h5py.File(path, "r") as file:
            model = file["model"]
            for name in REAL:
                values = model["counting." + name][:]
                numpy.testing.assert_array_equal(values, COUNT, err_msg=name)
            self.assertEqual(model["counting.f16"].dtype, numpy.float16)
            self.assertEqual(model["counting.f32"].dtype, numpy.float32)
            flags = model["counting.bool"]
            self.assertEqual(flags.dtype, numpy.bool_)
            numpy.testing.assert_array_equal(flags[:], COUNT % 2 == 1)
            for name in ("c64", "c128"):
                numpy.testing.assert_array_equal(model["counting." + name][:], COUNT - 1j * COUNT)
            half = model["counting.c32"][:]
            numpy.testing.assert_array_equal(half["real"], COUNT)
            numpy.testing.assert_array_equal(half["imag"], -COUNT)
            for name, codes in FP8.items():
                dataset = model["counting." + name]
                self.assertEqual(dataset.attrs["cairn_dtype"], name.encode())
                numpy.testing.assert_array_equal(dataset[:].ravel(), codes)
            self.assertEqual(model["scalar"].shape, ())
            self.assertEqual(model["empty"].shape, (0, 3))
            self.assertEqual(model["large"].shape, (256, 1152))

    def check_command_line(self, path, version=1):
        listing = run(["h5ls", "-r", path])
        self.assertEqual(listing.returncode, 0, listing.stderr)
        self.assertRegex(listing.stdout, r"/model/large\s+Dataset \{256, 1152\}")
        self.assertEqual(run(["h5dump", "-H", path]).returncode, 0)
        wanted = [word for name in DUMPED for word in ("-d", f"/model/counting.{name}")]
        dump = run(["h5dump", *wanted, path])
        self.assertEqual(dump.returncode, 0, dump.stderr)
        printed = {}
        for name, body in re.findall(r'DATASET "/model/counting\.(\w+)" \{(.*?)(?=DATASET|\Z)', dump.stdout,
                                     re.S):
            data = re.sub(r"\(\d,\d\):", "", body.split(" DATA {")[1].split("ATTRIBUTE")[0])
            printed[name] = re.findall(r"[^\s,{}]+", data)
        self.assertEqual(printed, DUMPED)
        raw = self.dir / "large.bin"
        dump = run(["h5dump", "-d", "/model/large", "-b", "LE", "-o", raw, path])
        self.assertEqual(dump.returncode, 0, dump.stderr)
        self.assertTrue(raw.read_bytes() == large_bytes(version), "model/large")

    def check_documented_reader(self, path):
        reader = documented_reader()
        tensors = reader["read_container"](str(path))
        inspected = json.loads(run([BIN / "cairn", "inspect", "--json", path]).stdout)
        with h5py.File(path, "r") as file:
            seen = []
            file.visititems(lambda name, item: seen.append(name)
                            if isinstance(item, h5py.Dataset) and not name.startswith("meta/") else None)
            self.assertEqual(sorted(tensors), sorted(set(seen) - {"index", "commit"}))
            recorded = {tensor["name"]: tensor["crc64"] for tensor in inspected["tensors"]}
            for name, (dtype, shape, data) in tensors.items():
                if len(data) < 4096:  # a loop of Python over each byte
                    self.assertEqual(f"{reader['crc64_xz'](data):016x}", recorded[name], name)
                self.assertEqual(tuple(shape), file[name].shape)
                if dtype not in ("bf16", "bool", "c32"):
                    self.assertEqual(data, file[name][()].tobytes(), name)

    def test_every_cut_and_engine_opens_everywhere(self):
        chunked = set()
        for engine in ("direct", "mpio", "mpio-deflate"):
            for cut in CUTS:
                for ranks in (3,) if engine == "mpio-deflate" else (1, 3, 4):
                    with self.subTest(engine=engine, cut=cut, ranks=ranks):
                        path = self.container(cut, ranks, engine)
                        self.check_h5py(path)
                        self.check_documented_reader(path)
                        self.check_command_line(path)
                        with h5py.File(path, "r") as file:
                            if file["model/large"].chunks:
                                chunked.add((engine, cut))
        self.assertEqual(chunked, {(e, c) for e in ("direct", "mpio") for c in ("columns", "grid")} |
                         {("mpio-deflate", c) for c in CUTS})

    def test_a_delta_opens_like_any_other(self):
        for engine in ("direct-delta", "mpio-delta"):
            with self.subTest(engine=engine):
                run_dir = self.dir / engine
                for step, how in ((1, "direct"), (2, engine)):
                    saved = self.sample_save(run_dir / f"step-{step:08d}.h5", step, step, cut="columns", engine=how)
                    self.assertEqual(saved.returncode, 0, saved.stdout + saved.stderr)
                path = run_dir.rename(self.dir / f"{engine}-moved") / "step-00000002.h5"
                with h5py.File(path, "r") as file:
                    link = file.get("model/counting.f32", getlink=True)
                    self.assertIsInstance(link, h5py.ExternalLink)
                    self.assertEqual((link.filename, link.path), ("step-00000001.h5", "/model/counting.f32"))
                    self.assertIsInstance(file.get("model/large", getlink=True), h5py.HardLink)
                    tensors = documented_reader()["read_container"](str(path))
                    for name, (dtype, shape, data) in tensors.items():
                        self.assertEqual(tuple(shape), file[name].shape)
                        if dtype not in ("bf16", "bool", "c32"):
                            self.assertEqual(data, file[name][()].tobytes(), name)
                inspected = json.loads(run([BIN / "cairn", "inspect", "--json", path]).stdout)
                self.assertEqual(sorted(tensors), sorted(tensor["name"] for tensor in inspected["tensors"]))
                self.check_h5py(path)
                self.check_command_line(path, version=2)

    def test_a_container_packed_by_h5repack_is_noticed_and_loads(self):
        path = self.container("columns", 3, "direct")
        packed = self.dir / "packed.h5"
        self.assertEqual(run(["h5repack", path, packed]).returncode, 0)
        zipped = self.dir / "zipped.h5"
        self.assertEqual(run(["h5repack", "-f", "model/large:GZIP=3", path, zipped]).returncode, 0)
        small = self.dir / "small.h5"  # more chunks than one read of HDF5's takes, and edges
        filters = [word for name in ("SHUF", "GZIP=6", "FLET") for word in ("-f", f"model/large:{name}")]
        self.assertEqual(run(["h5repack", *filters, "-l", "model/large:CHUNK=5x7", path, small]).returncode, 0)
        for other in (packed, zipped, small):
            for engine in ("direct", "mpio"):
                for cut in ("flat", "columns"):
                    result = self.sample_load(other, 1, cut=cut, engine=engine, ranks=2)
                    self.assertIn("equal step=1", result.stdout, result.stderr)

    def test_an_edit_with_h5py_is_noticed(self):
        path = self.container("rows", 2, "direct")
        with h5py.File(path, "r+") as file:
            file["model"].attrs["note"] = "mine"
        self.assertIn("equal step=1", self.sample_load(path, 1).stdout)
        with h5py.File(path, "r+") as file:
            file["model/large"][3, 4] = 7.5
        result = self.sample_load(path, 1)
        self.assertEqual(result.returncode, 2)
        self.assertIn("error corrupt", result.stdout)
        self.assertIn("model/large", result.stdout)

    def test_engines_make_the_same_tensors_and_index(self):
        engines = ("direct", "mpio", "mpio-independent", "async")
        read = documented_reader()["read_container"]
        for cut in CUTS:
            for ranks in (1, 3, 4):
                with self.subTest(cut=cut, ranks=ranks):
                    paths = [self.dir / f"{cut}-{ranks}-{engine}.h5" for engine in engines]
                    saves = [["save", path, 1, 1, cut, engine] for path, engine in zip(paths, engines)]
                    saved = run([SAMPLE, *saves[0], *(word for save in saves[1:] for word in ("then", *save))],
                                ranks=ranks)
                    self.assertEqual(saved.stdout.split(), ["saved"] * len(engines), saved.stdout + saved.stderr)
                    tensors, indices = [], []
                    for path in paths:
                        tensors.append(read(str(path)))
                        with h5py.File(path, "r") as file:
                            indices.append(file["index"][:].tobytes())
                    for engine, other, index in zip(engines[1:], tensors[1:], indices[1:]):
                        self.assertEqual(other, tensors[0], engine)
                        self.assertEqual(index, indices[0], engine)


if __name__ == "__main__":
    unittest.main()
