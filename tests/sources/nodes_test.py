"""Sources on several nodes, and on a small disk: both are mounted where nobody else sees them."""

import os
import pathlib
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from harness import run
from served import CONTENT, OTHER, REVERSED, Served
from sources_case import ENVIRONMENT, FETCH

SKIPPED = 77  # ctest's SKIP_RETURN_CODE


def why_not():
    """Why this user may not mount file systems; empty where that is allowed."""
    probe = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True)
    return "" if probe.returncode == 0 else probe.stderr.strip() or "no mount"


class SmallDisk(Served):
    def test_a_full_disk_is_an_early_error(self):
        self.cache.mkdir()
        command = f"mount -t tmpfs -o size=1m none {self.cache} && " \
                  f"mpirun --oversubscribe -n 2 {FETCH} {self.config(self.http())}; code=$?; " \
                  f"echo left: $(find {self.cache}/partial -type f); exit $code"
        result = run(["unshare", "-m", "sh", "-c", command], env=ENVIRONMENT)
        self.assert_fails(result, "io", "No space left", "cache_dir", str(len(CONTENT)), ranks=2)
        self.assertIn("left:\n", result.stdout)
        asked = [line.split()[3] for line in self.server.requests()]
        self.assertLess(sum(map(int, asked)), len(CONTENT), "it was noticed after the download only")


class OtherNodes(Served):
    """Ranks 1 and 2 each in a mount namespace of their own, with an empty cache: nodes with local disks."""

    def setUp(self):
        super().setUp()
        self.cache.mkdir()

    def on_three_nodes(self, source, options="", fault=""):
        config = self.config(source)
        nodes = []
        for rank in (1, 2):
            disk = self.disk_of(rank)
            mount = f"mount -t tmpfs {options} none" if options else f"mount --bind {disk}"
            script = self.dir / f"node{rank}.sh"
            script.write_text(f"{mount} {self.cache} && exec {FETCH} {config}\n")
            nodes += [":", "-n", "1", "unshare", "-m", "sh", script]
        return run(["mpirun", "--oversubscribe", "-n", "1", FETCH, config, *nodes],
                   env={**ENVIRONMENT, "CAIRN_FAULT": fault})

    def with_two_ranks_on_a_node(self, source, fault):
        """Rank 0, and ranks 1 and 2 with another disk in the place of its cache."""
        config = self.config(source)
        mount = f"mount --bind {self.disk_of(1)} {self.cache} && echo mounted && exec cat"
        with subprocess.Popen(["unshare", "-m", "sh", "-c", mount], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              text=True) as node:
            self.assertEqual(node.stdout.readline(), "mounted\n")
            enter = ["nsenter", f"--mount=/proc/{node.pid}/ns/mnt"]
            return run(["mpirun", "--oversubscribe", "-n", "1", FETCH, config, ":", "-n", "2", *enter, FETCH, config],
                       env={**ENVIRONMENT, "CAIRN_FAULT": fault})

    def disk_of(self, rank):
        """What lies behind the cache's path on the node of a rank."""
        disk = self.dir / f"disk{rank}"
        disk.mkdir(exist_ok=True)
        return disk

    def assert_same_failure(self, result, code, *words):
        lines = [line for line in result.stdout.splitlines() if line.startswith(f"error {code}: ")]
        self.assertEqual(len(lines), 3, result.stdout + result.stderr)
        self.assertEqual(len(set(lines)), 1)
        for word in words:
            self.assertIn(word, lines[0])

    def assert_no_partials(self):
        for node in (self.cache, self.disk_of(1), self.disk_of(2)):
            self.assertEqual(list(node.glob("partial/*")), [])

    def test_rank_0_sends_the_file_to_nodes_that_do_not_see_its_cache(self):
        self.assert_got(self.on_three_nodes(self.http()), CONTENT, ranks=3)
        self.assertEqual(len(self.server.requests()), 4)
        self.assert_no_partials()

    def test_a_node_gets_the_file_once_however_many_ranks_it_has(self):
        at_rank_2 = "spread.write:2:error"  # would be an error if it wrote anything
        self.assert_got(self.with_two_ranks_on_a_node(self.http(), at_rank_2), CONTENT, ranks=3)
        self.assertEqual(len(self.server.requests()), 4)
        self.assert_no_partials()

    def test_ranks_that_share_no_disk_each_get_the_file(self):
        self.assert_same_failure(self.on_three_nodes(self.http(), fault="spread.write:2:error"), "io", "rank 2")

    def test_a_node_with_a_full_disk_is_an_error_on_all_ranks(self):
        self.assert_same_failure(self.on_three_nodes(self.http(), "-o size=1m"), "io", "rank 1", "No space left")

    def test_an_old_file_of_the_same_size_is_not_the_file(self):
        path = self.assert_got(self.on_three_nodes(self.http()), CONTENT, ranks=3)
        for rank in (1, 2):
            copy = self.disk_of(rank) / pathlib.Path(path).relative_to(self.cache)
            self.assertEqual(copy.read_bytes(), CONTENT)
            copy.write_bytes(REVERSED)
        self.assert_got(self.on_three_nodes(self.http()), CONTENT, ranks=3)

    def test_an_error_or_a_kill_while_it_is_sent_leaves_nothing_that_counts(self):
        for point in ("spread.write", "spread.rename"):
            with self.subTest(point=point):
                self.assert_same_failure(self.on_three_nodes(self.http(), fault=f"{point}:1:error"), "io", "rank 1")
                self.assert_no_partials()
                killed = self.on_three_nodes(self.http(), fault=f"{point}:1:kill")
                self.assertNotIn("file ", killed.stdout)
                left = list(self.disk_of(1).glob("partial/*"))
                self.assertEqual(len(left), 1)
                os.utime(left[0], (0, 0))
                self.assert_got(self.on_three_nodes(self.http()), CONTENT, ranks=3)
                self.assert_no_partials()
                for rank in (1, 2):
                    shutil.rmtree(self.disk_of(rank))

    def test_a_digest_that_nobody_knows_is_taken_first(self):
        origin = self.dir / "origin.bin"
        origin.write_bytes(OTHER)
        for _ in range(2):
            self.assert_got(self.on_three_nodes({"type": "copying", "from": str(origin)}), OTHER, ranks=3)
            (self.disk_of(2) / "copied.bin").write_bytes(OTHER[::-1])


if __name__ == "__main__":
    if why := why_not():
        print(f"SKIP: NOT TESTED on several nodes and a full disk: it needs the right to mount: {why}", file=sys.stderr)
        sys.exit(SKIPPED)
    unittest.main()
