"""What the tests of all sources need: a cache of their own, and what each rank got."""

import hashlib
import json

from harness import Case, TEST_BIN, run

FETCH = TEST_BIN / "cairn-fetch"
# A proxy that the machine uses is not for loopback.
ENVIRONMENT = {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}


def sha256(content):
    return hashlib.sha256(content).hexdigest()


class SourcesCase(Case):
    def setUp(self):
        super().setUp()
        self.cache = self.dir / "cache"
        self.pipeline = {"max_retries": 3, "timeout": 60}

    def config(self, source):
        path = self.dir / "config.yaml"
        block = {"cache_dir": str(self.cache), **source}
        path.write_text(json.dumps({"checkpoint": {"source": block}, "pipeline": self.pipeline}))
        return path

    def fetch(self, source, ranks=0, env=None, deadline_s=60, **more):
        return run([FETCH, self.config(source), deadline_s], ranks=ranks, env={**ENVIRONMENT, **(env or {})}, **more)

    def assert_got(self, result, content, ranks=1):
        """Every rank opened a file with this content; the path, the same on all."""
        lines = [line.split() for line in result.stdout.splitlines() if line.startswith("file ")]
        self.assertEqual(sorted(int(line[1]) for line in lines), list(range(ranks)), result.stdout + result.stderr)
        self.assertEqual({line[2] for line in lines}, {sha256(content)})
        self.assertEqual(len({line[3] for line in lines}), 1)
        self.assertEqual(result.returncode, 0)
        return lines[0][3]

    def assert_fails(self, result, code, *words, ranks=1):
        """Every rank got the same error; its text."""
        lines = [line for line in result.stdout.splitlines() if line.startswith("error ")]
        self.assertEqual(len(lines), ranks, result.stdout + result.stderr)
        self.assertEqual(len(set(lines)), 1, lines)
        self.assertTrue(lines[0].startswith(f"error {code}: resolve source: rank 0: "), lines[0])
        for word in words:
            self.assertIn(word, lines[0])
        self.assertEqual(result.returncode, 2)
        self.assert_nothing_half()
        return lines[0]

    def stored_bytes(self):
        """The bytes of all files that the cache holds, each once."""
        return sum(path.stat().st_size for path in self.cache.rglob("*")
                   if path.is_file() and not path.is_symlink() and not path.name.startswith("."))

    def partials(self):
        return sorted(self.cache.glob("partial/*"))

    def files_in_cache(self):
        return sorted(str(path.relative_to(self.cache)) for path in self.cache.rglob("*") if not path.is_dir())

    def assert_nothing_half(self):
        """Nothing in the cache that counts but files that entries describe; nothing on its way."""
        self.assertEqual(self.partials(), [])
        if not self.cache.exists():
            return
        for path in self.cache.rglob("*"):
            if path.is_dir() or path.is_symlink() or not (path.parent / ".entry").exists():
                continue  # without an entry it does not count
            if path.name in (".lock", ".entry"):
                continue
            entry = json.loads((path.parent / ".entry").read_text())
            self.assertEqual((entry["name"], entry["size"], entry["sha256"]),
                             (path.name, path.stat().st_size, sha256(path.read_bytes())))
