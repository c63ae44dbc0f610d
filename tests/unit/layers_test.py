"""The include order of the layers, and the gates of third-party headers (docs/design.md, "Layers")."""

import re
import subprocess
import unittest

from harness import ROOT

# What a layer's files may include besides their own layer, from low to high.
ALLOWED = {
    "base": set(),
    "manifest": {"base"},
    "os": {"base"},
    "mpi": {"base"},
    "plan": {"base", "manifest"},
    "formats": {"base", "manifest", "os", "mpi", "plan"},
    "transfer": {"base", "manifest", "os", "mpi", "plan", "formats"},
    "checkpoint": {"base", "manifest", "os", "mpi", "plan", "formats", "transfer"},
    "sources": {"base", "manifest", "os", "mpi", "formats", "checkpoint"},
    "pipeline": {"base", "manifest", "os", "mpi", "plan", "checkpoint", "sources"},
    "trainer": {"base", "manifest", "os", "mpi", "checkpoint", "pipeline"},
    "torch": {"base", "manifest", "mpi", "checkpoint", "sources", "pipeline", "trainer"},
}
PUBLIC = {  # the layer of each public header
    "export": "base", "version": "base", "error": "base", "dtype": "manifest", "placement": "manifest",
    "shape": "manifest",
    "tensor_view": "manifest", "manifest": "manifest", "comm": "mpi", "async": "checkpoint", "checkpoint": "checkpoint",
    "source": "sources", "config": "pipeline", "legacy_config": "pipeline", "context": "pipeline", "torch": "torch",
    "modifiers": "torch", "average": "torch", "callback": "torch", "legacy": "torch", "sampler": "trainer", "state": "trainer", "trainer": "trainer",
    "engine": "transfer", "load": "checkpoint", "retention": "manifest", "run": "checkpoint",
}
GATES = {  # header pattern -> where it may be included
    r"^(hdf5|H5\w+)\.h$": r"^(src/formats/hdf5/|tests/bench/limits\.cpp)",
    r"^mpi\.h$": r"^(include/cairn/comm\.hpp|src/mpi/|jobs/)",
    r"^(torch|ATen|c10)/": r"^(include/cairn/(average|callback|torch|modifiers)\.hpp|src/torch/|tests/torch/|jobs/)",
    r"^CLI/": r"^(tools/|jobs/|tests/bench/)",
    r"^yaml-cpp/": r"^src/pipeline/",
    r"^curl/": r"^src/sources/",
    r"^openssl/": r"^src/base/",
}
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.M)


def sources():
    names = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "*.hpp", "*.cpp"],
                           capture_output=True, text=True, check=True).stdout.split()
    return [(name, INCLUDE.findall((ROOT / name).read_text())) for name in names
            if (ROOT / name).exists()]


def layer_of(name):
    """The layer of a file, by its path or by the way it is included; None outside the library."""
    if match := re.match(r"(?:include/)?cairn/(\w+)\.hpp$", name):
        return PUBLIC[match.group(1)]  # a public header without a layer is an error
    parts = name.removeprefix("src/").split("/")
    return parts[0] if parts[0] in ALLOWED and len(parts) > 1 else None


class Layers(unittest.TestCase):
    def test_a_file_includes_its_own_layer_or_what_is_allowed(self):
        used = {layer: set() for layer in ALLOWED}
        for name, includes in sources():
            if not name.startswith(("src/", "include/")):
                continue
            own = layer_of(name)
            self.assertIsNotNone(own, f"{name} is in no layer")
            for include in includes:
                other = layer_of(include)
                if other in (None, own):
                    continue
                self.assertIn(other, ALLOWED[own], f"{name} includes {include}")
                used[own].add(other)
        self.assertEqual(used, ALLOWED, "a permission that no include uses is out of date")

    def test_the_layers_have_an_order(self):
        lower = set()
        for layer, allowed in ALLOWED.items():
            self.assertLessEqual(allowed, lower, f"{layer} may include a layer that is not below it")
            lower.add(layer)

    def test_third_party_headers_stay_behind_their_gates(self):
        seen = set()
        for name, includes in sources():
            for include in includes:
                for pattern, allowed in GATES.items():
                    if re.match(pattern, include):
                        seen.add(pattern)
                        self.assertRegex(name, allowed, f"{name} includes {include}")
        self.assertEqual(seen, set(GATES), "a gate that no file passes is out of date")

    def test_the_top_level_holds_what_it_should(self):
        tracked = subprocess.run(["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard"],
                                 capture_output=True, text=True, check=True).stdout.split("\n")
        top = {name.split("/")[0] for name in tracked if name}
        self.assertEqual(top, {
            "src", "include", "tools", "tests", "jobs", "docs", "CMakeLists.txt", "CMakePresets.json",
            "spack.yaml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", ".clang-format",
            ".clang-tidy", ".gitignore", ".ci"})


if __name__ == "__main__":
    unittest.main()
