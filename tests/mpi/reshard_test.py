"""What was saved by any number of ranks loads on any other: real runs of their own, one after the other."""

import json
import unittest

from harness import BIN, Case, SAMPLE, run

SAVERS = (1, 2, 3, 4, 8)
LOADERS = (1, 2, 3, 4, 5, 8)
ENGINES = ("direct", "mpio")
# By rows and columns at once, so that the pieces of two numbers of ranks have few edges in common; and by elements.
LOADS = (("grid", "direct"), ("flat", "direct"), ("grid", "mpio"))


def in_turn(commands):
    """The words of commands that run until one fails."""
    words = [SAMPLE]
    for command in commands:
        words += ["then"] * (len(words) > 1) + command
    return words


class Reshard(Case):
    def test_any_number_of_ranks_onto_any_other(self):
        files = {(ranks, engine): self.dir / f"{ranks}-{engine}.h5" for ranks in SAVERS for engine in ENGINES}
        for ranks in SAVERS:
            saved = run(in_turn(["save", files[ranks, engine], ranks, 1, "grid", engine] for engine in ENGINES),
                        ranks=ranks)
            self.assertEqual(saved.stdout.split(), ["saved"] * len(ENGINES), saved.stdout + saved.stderr)
        for ranks in LOADERS:
            loads = [(saver, cut, engine) for saver in SAVERS for cut, engine in LOADS]
            loaded = run(in_turn(["load", files[saver, engine], 1, cut, engine] for saver, cut, engine in loads),
                         ranks=ranks, timeout=120)
            wanted = [f"equal step={saver}" for saver, _, _ in loads]
            self.assertEqual(loaded.stdout.splitlines(), wanted, f"{ranks} ranks: {loaded.stderr}")
        self.check_digests(files)

    def check_digests(self, files):
        """They are those of the tensors, whoever wrote which part."""
        digests = {}
        for key, path in files.items():
            table = json.loads(run([BIN / "cairn", "inspect", "--json", path]).stdout)
            digests[key] = {tensor["name"]: tensor["crc64"] for tensor in table["tensors"]
                            if not tensor["name"].startswith("ranks/")}
        first = digests[SAVERS[0], ENGINES[0]]
        self.assertEqual(len(first), 41)
        for key, found in digests.items():
            self.assertEqual(found, first, key)


if __name__ == "__main__":
    unittest.main()
