"""Models of a hub: an index, its shards, and what leads elsewhere."""

import json
import os
import pathlib
import struct
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import h5py

from harness import BIN, run
from sources_case import SourcesCase
from web import Faulty, Nginx


def safetensors(tensors):
    """A file of the format: (shape, values) by name, as 32-bit floats."""
    header, body = {}, b""
    for name, (shape, values) in tensors.items():
        data = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


SHARDS = {"m-1.safetensors": {"encoder.weight": ([2, 3], [1, 2, 3, 4, 5, 6]), "encoder.bias": ([2], [7, 8])},
          "sub/m-2.safetensors": {"decoder.weight": ([1, 2], [9, 10])}}
INDEX = json.dumps({"metadata": {"total_size": 40}, "weight_map": {
    name: file for file, tensors in SHARDS.items() for name in tensors}}).encode()
FILES = {"model.safetensors.index.json": INDEX, **{file: safetensors(tensors) for file, tensors in SHARDS.items()}}


class Published(SourcesCase):
    """A model behind nginx, whose files lie as the paths of a hub name them."""

    def setUp(self):
        super().setUp()
        self.model = self.dir / "files" / "owner" / "model" / "resolve" / "main"
        (self.model / "sub").mkdir(parents=True)
        for name, content in FILES.items():
            (self.model / name).write_bytes(content)
        os.chmod(self.dir, 0o755)
        self.server = Nginx(self.dir / "files")
        self.addCleanup(self.server.stop)
        self.source = {"type": "huggingface", "repo": "owner/model", "endpoint": self.server.url("").rstrip("/")}

    def test_rank_0_alone_asks_for_each_file_once_then_only_whether_it_changed(self):
        for ranks in (1, 2, 4):
            with self.subTest(ranks=ranks):
                self.cache = self.dir / f"cache{ranks}"
                path = self.assert_got(self.fetch(self.source, ranks), INDEX, ranks)
                for name, content in FILES.items():
                    self.assertEqual((pathlib.Path(path).parent / name).read_bytes(), content)
                self.assertEqual(self.assert_got(self.fetch(self.source, ranks), INDEX, ranks), path)
        lines = [line.split() for line in self.server.requests()]
        each = sorted((f"/owner/model/resolve/main/{name}", "206", str(len(FILES[name]))) for name in FILES)
        for at in range(0, 18, 6):
            self.assertEqual(sorted((line[1], *line[2:4]) for line in lines[at:at + 3]), each)
            self.assertEqual([line[2:4] for line in lines[at + 3:at + 6]], [["304", "0"]] * 3)
        self.assertEqual(len(lines), 18)

    def test_what_comes_is_a_checkpoint(self):
        path = self.assert_got(self.fetch(self.source, ranks=2), INDEX, ranks=2)
        shown = run([BIN / "cairn", "inspect", path, "--json"])
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertEqual({tensor["name"]: tensor["shape"] for tensor in json.loads(shown.stdout)["tensors"]},
                         {name: shape for tensors in SHARDS.values() for name, (shape, _) in tensors.items()})
        container = self.dir / "m.h5"
        converted = run([BIN / "cairn", "convert", path, container])  # reads all bytes
        self.assertEqual(converted.returncode, 0, converted.stderr)
        with h5py.File(container) as file:
            for tensors in SHARDS.values():
                for name, (shape, values) in tensors.items():
                    self.assertEqual(file[f"model/{name}"][()].reshape(-1).tolist(), values)

    def test_a_single_file_and_a_named_one(self):
        (self.model / "model.safetensors.index.json").unlink()
        for name, more in (("model.safetensors", {}), ("other.bin", {"file": "other.bin"})):
            (self.model / name).write_bytes(name.encode())
            self.assert_got(self.fetch({**self.source, **more}), name.encode())

    def test_what_is_not_there_is_the_same_error_on_all_ranks(self):
        (self.model / "sub" / "m-2.safetensors").unlink()
        for ranks in (1, 2, 4):
            with self.subTest(ranks=ranks):
                self.assert_fails(self.fetch({**self.source, "repo": "owner/other"}, ranks), "not_found",
                                  "hf://owner/other@main", "404", ranks=ranks)
                self.assert_fails(self.fetch(self.source, ranks), "not_found", "sub/m-2.safetensors", ranks=ranks)


class Hub(SourcesCase):
    """What nginx can't be told to do: commits behind redirects, one index after the other."""

    def setUp(self):
        super().setUp()
        self.server = Faulty(b"")
        self.addCleanup(self.server.stop)

    def publish(self, files, revision="main"):
        for name, content in files.items():
            self.server.hub_files[f"/hub/owner/model/resolve/{revision}/{name}"] = content

    def source(self, **more):
        return {"type": "huggingface", "repo": "owner/model", "endpoint": self.server.url("hub"), **more}

    def test_shards_are_of_the_commit_that_a_redirect_named(self):
        index = b'{"weight_map": {"a": "m.safetensors"}, "more": {"weight_map": {"b": ["deep"]}}}'
        self.publish({"model.safetensors.index.json": index})
        self.publish({"m.safetensors": b"newer"})
        self.publish({"m.safetensors": b"same commit"}, revision="c0ffee")
        self.server.hub_commit = "c0ffee"
        path = pathlib.Path(self.assert_got(self.fetch(self.source()), index))
        self.assertEqual((path.parent / "m.safetensors").read_bytes(), b"same commit")

    def test_links_that_cannot_be_made_are_made_the_next_time(self):
        index = b'{"weight_map": {"a": "m.safetensors"}}'
        self.publish({"model.safetensors.index.json": index, "m.safetensors": b"one"})
        for action in ("error", "kill"):
            result = self.fetch(self.source(), env={"CAIRN_FAULT": f"hub.link:0:{action}:2"})
            self.assertNotIn("file 0", result.stdout)
            self.assertEqual(self.partials(), [])
        path = pathlib.Path(self.assert_got(self.fetch(self.source()), index))
        self.assertEqual((path.parent / "m.safetensors").read_bytes(), b"one")

    def test_credentials_do_not_belong_in_the_endpoint(self):
        endpoint = self.server.url("hub").replace("http://", "http://me:pa55word@")
        text = self.assert_fails(self.fetch(self.source(endpoint=endpoint)), "usage", "endpoint")
        self.assertNotIn("pa55word", text)
        self.assert_fails(self.fetch(self.source(endpoint=self.server.url("hub?token=x"))), "usage", "endpoint")
        self.assertEqual(self.server.answers, [])

    def test_an_index_that_leads_elsewhere_or_nowhere(self):
        for name in ("../x", "/etc/passwd", "a/../../x", "", "a/./b", "a\\\\b", "a/"):
            with self.subTest(name=name):
                self.publish({"model.safetensors.index.json": b'{"weight_map": {"a": "%s"}}' % name.encode()})
                self.assert_fails(self.fetch(self.source(), ranks=2), "unsafe", "inside the model", ranks=2)
        self.publish({"model.safetensors.index.json": b'{"weight_map": {"a": "a\\u001b[31m"}}'})
        self.assertNotIn("\x1b", self.assert_fails(self.fetch(self.source()), "unsafe", "[31m"))
        for index in (b"{", b"[]", b"{}", b'{"weight_map": {}}', b'{"weight_map": {"a": 1}}',
                      b'{"weight_map": "a"}', b'{"weight_map": ["a"]}', b'{"weight_map": {"a": {"b": "c"}}}'):
            with self.subTest(index=index):
                self.publish({"model.safetensors.index.json": index})
                self.assert_fails(self.fetch(self.source()), "corrupt")


if __name__ == "__main__":
    unittest.main()
