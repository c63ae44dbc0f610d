"""cairn/legacy.hpp as the releases to come offer it (docs/migration.md, "Legacy calls"): the same header, other versions."""

import json
import shlex
import unittest

from harness import BIN, Case, ROOT, run

CALLS = """
void use(MPI_Comm comm, torch::nn::Module& model, cairn::CheckpointManager& manager) {
  cairn::load_weights_only(comm, model, "a.ckpt", false);
  cairn::transfer_learning(comm, model, "a.ckpt");
  const cairn::LegacyAdapter adapter(manager);
  adapter.load_weights_only(model, "a.ckpt");
  adapter.transfer_learning(model, "a.ckpt", false);
}
"""
WARNS = "static_assert(cairn::detail::LegacyCall{{}}.warns == {});\n"


def flags():
    """What a program needs that uses LibTorch and cairn::cairn."""
    commands = json.loads((BIN.parent / "compile_commands.json").read_text())
    words = next(shlex.split(entry["command"]) for entry in commands
                 if entry["file"].endswith("tests/torch/module_test.cpp"))
    words = words[next(i for i, word in enumerate(words) if word.endswith("++")):]
    wanted = [words[0]]
    for word, after in zip(words[1:], words[2:]):
        if word == "-isystem":
            wanted += [word, after]
        elif word.startswith(("-I", "-D", "-std=", "-f")):
            wanted.append(word)
    return wanted


class Legacy(Case):
    def compile(self, version, text):
        """The text as a program of that release."""
        major, minor = version.split(".")
        header = (ROOT / "include/cairn/version.hpp").read_text().splitlines()
        for name, number in (("MAJOR", major), ("MINOR", minor)):
            lines = [i for i, line in enumerate(header) if line.startswith(f"#define CAIRN_VERSION_{name} ")]
            self.assertEqual(len(lines), 1)
            header[lines[0]] = f"#define CAIRN_VERSION_{name} {number}"
        shadow = self.dir / version
        (shadow / "cairn").mkdir(parents=True, exist_ok=True)
        (shadow / "cairn/version.hpp").write_text("\n".join(header) + "\n")
        source = self.dir / "program.cpp"
        source.write_text(text)
        compiler, *rest = flags()
        return run([compiler, f"-I{shadow}", *rest, "-Wall", "-fsyntax-only", source], timeout=200,
                   env={"LC_ALL": "C"})

    def deprecated(self, result):
        return [line for line in result.stderr.splitlines() if "[-Wdeprecated-declarations]" in line]

    def test_to_1_0_nothing_warns(self):
        for version in ("0.1", "0.9", "1.0"):
            result = self.compile(version, "#include <cairn/legacy.hpp>\n" + WARNS.format("false") + CALLS)
            self.assertEqual((result.returncode, result.stderr), (0, ""), version)

    def test_from_1_1_on_compiler_and_program_warn(self):
        for version in ("1.1", "1.2", "1.10"):
            result = self.compile(version, "#include <cairn/legacy.hpp>\n" + WARNS.format("true") + CALLS)
            self.assertEqual(result.returncode, 0, result.stderr)
            lines = self.deprecated(result)
            self.assertEqual(len(lines), 4, result.stderr)
            for name, strategy in (("load_weights_only", "weights_only"), ("transfer_learning", "transfer_learning")):
                told = [line for line in lines if f"{name}(" in line]
                self.assertEqual(len(told), 2, lines)
                for line in told:
                    self.assertIn(f"set checkpoint.loading {{type: {strategy}}}", line)
                    self.assertIn("manager.load_checkpoint(model)", line)

    def test_before_1_2_the_header_of_torch_has_them(self):
        for version, warnings in (("0.1", 0), ("1.1", 4)):
            result = self.compile(version, "#include <cairn/torch.hpp>\n" + CALLS)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(len(self.deprecated(result)), warnings, result.stderr)
        result = self.compile("1.2", "#include <cairn/torch.hpp>\n" + CALLS)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("'load_weights_only' is not a member of 'cairn'", result.stderr)

    def test_2_0_has_none_and_says_where_to_read(self):
        result = self.compile("2.0", "#include <cairn/legacy.hpp>\n")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("docs/migration.md, 'Legacy calls'", result.stderr)
        self.assertIn("## Legacy calls", (ROOT / "docs/migration.md").read_text())
        result = self.compile("2.0", "#include <cairn/torch.hpp>\n")
        self.assertEqual(result.returncode, 0, result.stderr)


if __name__ == "__main__":
    unittest.main()
