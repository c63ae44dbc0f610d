"""cairn-bench from outside: its JSON, its containers, and that it leaves nothing behind."""

import json
import unittest

from harness import BIN, Case, run

FIELDS = {"op", "payload", "engine", "ranks", "durable", "bytes", "tensors", "median_s", "min_s", "max_s",
          "limits", "more", "peak_bytes"}


def bench(*words, ranks=2):
    return run([BIN / "cairn-bench", *words], ranks=ranks)


class Bench(Case):
    def test_result_and_cleanliness(self):
        for op, engine, more in (("save", "direct", ["--durable"]), ("save", "mpio", []),
                                 ("save", "direct", ["--async"]), ("save", "direct", ["--changed", "0.1"]),
                                 ("load", "mpio", ["--transfer", "independent"]),
                                 ("save", "mpio", ["--deflate", "1"]),
                                 ("load", "direct", ["--verify", "loaded"]),
                                 ("load", "direct", ["--replicated", "--broadcast", "always"])):
            with self.subTest(op=op, engine=engine, more=more):
                result = self.dir / "result.json"
                done = bench(op, "--payload", "many", "--quick", "--repeat", "2", "--dir", self.dir,
                             "--engine", engine, "--json", result, *more)
                self.assertEqual(done.returncode, 0, done.stderr)
                (entry,) = json.loads(result.read_text())
                self.assertLessEqual(FIELDS, set(entry))
                self.assertEqual((entry["op"], entry["engine"], entry["ranks"], entry["tensors"]),
                                 (op, engine, 2, 1000))
                self.assertEqual(entry["bytes"], 1000 * 4096 * (2 if "--replicated" in more else 1))
                for limit in entry["limits"]:
                    self.assertAlmostEqual(limit["ratio"], limit["median_s"] / entry["median_s"])
                self.assertEqual([path.name for path in self.dir.iterdir()], ["result.json"])

    def test_containers_depend_on_the_payload_alone(self):
        for payload in ("large", "many", "mixed"):
            kept = []
            for op, engine, ranks in (("save", "direct", 1), ("load", "mpio", 3)):
                kept.append(self.dir / f"{payload}-{ranks}.h5")
                done = bench(op, "--payload", payload, "--quick", "--repeat", "1", "--dir", self.dir,
                             "--engine", engine, "--keep", kept[-1], ranks=ranks)
                self.assertEqual(done.returncode, 0, done.stderr)
            done = run([BIN / "cairn", "diff", *kept], ranks=2)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_planning_is_flat_in_the_number_of_ranks(self):
        result = self.dir / "plan.json"
        done = bench("plan", "--ranks", "3200", "--tensors", "3000", "--json", result, ranks=1)
        self.assertEqual(done.returncode, 0, done.stderr)
        small, *_, large = json.loads(result.read_text())
        self.assertEqual((small["ranks"], large["ranks"], large["tensors"]), (32, 3200, 3000))
        for part, slack in (("member", 1 << 20), ("keeper", 1 << 20), ("root", 4 << 20)):
            # Memory is counted exactly, so this does not depend on the machine.
            self.assertLess(large[part]["heap_bytes"], 1.5 * small[part]["heap_bytes"] + slack, part)

    def test_the_callback_costs_something(self):
        result = self.dir / "callback.json"
        done = bench("callback", "--json", result, ranks=2)
        self.assertEqual(done.returncode, 0, done.stderr)
        costs = json.loads(result.read_text())
        self.assertEqual([cost["step_ms"] for cost in costs], [0, 1, 10])
        for cost in costs:
            self.assertGreater(cost["us"], 0)

    def test_usage(self):
        for words in (("save",), ("fly", "--payload", "many", "--dir", self.dir),
                      ("save", "--payload", "huge", "--dir", self.dir),
                      ("save", "--payload", "large", "--tensors", "9", "--dir", self.dir),
                      ("plan", "--ranks", "20"),
                      ("save", "--payload", "many", "--dir", self.dir, "--repeat", "0"),
                      ("save", "--payload", "many", "--quick", "--dir", "/proc/none")):
            done = bench(*words)
            self.assertEqual(done.returncode, 2, words)
            self.assertEqual(done.stderr.count("cairn-bench: error: "), 1, words)


if __name__ == "__main__":
    unittest.main()
