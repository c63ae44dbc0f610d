"""Models of a hub: an index, its shards, and what leads elsewhere."""

import json
import pathlib
import struct
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import h5py

from harness import BIN, run
from sources_case import SourcesCase
from web import Faulty


def safetensors(tensors):
    """A file of the format: (shape, values) by name, as 32-bit floats."""
    header, body = {}, b""
    for name, (shape, values) in tensors.items():
        data = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


class Hub(SourcesCase):
    def setUp(self):
        super().setUp()
        self.server = Faulty(b"")
        self.addCleanup(self.server.stop)

    def publish(self, files, repo="owner/model", revision="main"):
        for name, content in files.items():
            self.server.hub_files[f"/hub/{repo}/resolve/{revision}/{name}"] = content

    def source(self, **more):
        return {"type": "huggingface", "repo": "owner/model", "endpoint": self.server.url("hub"), **more}

    def test_an_index_and_its_shards(self):
        index = b'{"weight_map": {"a": "m-1.safetensors", "b": "sub/m-2.safetensors", "c": "m-1.safetensors"}}'
        self.publish({"model.safetensors.index.json": index, "m-1.safetensors": b"one",
                      "sub/m-2.safetensors": b"two"})
        path = pathlib.Path(self.assert_got(self.fetch(self.source(), ranks=2), index, ranks=2))
        self.assertEqual(path.name, "model.safetensors.index.json")
        self.assertEqual((path.parent / "m-1.safetensors").read_bytes(), b"one")
        self.assertEqual((path.parent / "sub" / "m-2.safetensors").read_bytes(), b"two")
        self.assertEqual(len(self.server.answers), 3)

    def test_what_comes_is_a_checkpoint(self):
        shards = {"m-1.safetensors": {"encoder.weight": ([2, 3], [1, 2, 3, 4, 5, 6]), "encoder.bias": ([2], [7, 8])},
                  "sub/m-2.safetensors": {"decoder.weight": ([1, 2], [9, 10])}}
        index = json.dumps({"metadata": {"total_size": 40}, "weight_map": {
            name: file for file, tensors in shards.items() for name in tensors}}).encode()
        self.publish({"model.safetensors.index.json": index,
                      **{file: safetensors(tensors) for file, tensors in shards.items()}})
        path = self.assert_got(self.fetch(self.source(), ranks=2), index, ranks=2)
        shown = run([BIN / "cairn", "inspect", path, "--json"])
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertEqual({tensor["name"]: tensor["shape"] for tensor in json.loads(shown.stdout)["tensors"]},
                         {name: shape for tensors in shards.values() for name, (shape, _) in tensors.items()})
        container = self.dir / "m.h5"
        converted = run([BIN / "cairn", "convert", path, container])  # reads all bytes
        self.assertEqual(converted.returncode, 0, converted.stderr)
        with h5py.File(container) as file:
            for tensors in shards.values():
                for name, (shape, values) in tensors.items():
                    self.assertEqual(file[f"model/{name}"][()].reshape(-1).tolist(), values)

    def test_shards_are_of_the_commit_that_a_redirect_named(self):
        index = b'{"weight_map": {"a": "m.safetensors"}, "more": {"weight_map": {"b": ["deep"]}}}'
        self.publish({"model.safetensors.index.json": index})
        self.publish({"m.safetensors": b"newer"})
        self.publish({"m.safetensors": b"same commit"}, revision="c0ffee")
        self.server.hub_commit = "c0ffee"
        path = pathlib.Path(self.assert_got(self.fetch(self.source()), index))
        self.assertEqual((path.parent / "m.safetensors").read_bytes(), b"same commit")

    def test_a_single_file_and_a_named_one(self):
        self.publish({"model.safetensors": b"single", "other.bin": b"other"})
        self.assert_got(self.fetch(self.source()), b"single")
        self.assert_got(self.fetch(self.source(file="other.bin")), b"other")

    def test_a_missing_model_or_shard(self):
        self.assert_fails(self.fetch(self.source()), "not_found", "hf://owner/model@main", "404")
        self.publish({"model.safetensors.index.json": b'{"weight_map": {"a": "gone.safetensors"}}'})
        self.assert_fails(self.fetch(self.source()), "not_found", "gone.safetensors")

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
                self.assert_fails(self.fetch(self.source()), "unsafe", "inside the model")
        self.publish({"model.safetensors.index.json": b'{"weight_map": {"a": "a\\u001b[31m"}}'})
        self.assertNotIn("\x1b", self.assert_fails(self.fetch(self.source()), "unsafe", "[31m"))
        for index in (b"{", b"[]", b"{}", b'{"weight_map": {}}', b'{"weight_map": {"a": 1}}',
                      b'{"weight_map": "a"}', b'{"weight_map": ["a"]}', b'{"weight_map": {"a": {"b": "c"}}}'):
            with self.subTest(index=index):
                self.publish({"model.safetensors.index.json": index})
                self.assert_fails(self.fetch(self.source()), "corrupt")


if __name__ == "__main__":
    unittest.main()
