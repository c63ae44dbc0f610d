"""The snippets of README.md: C++ compiles against the public headers, YAML is read by the trainer."""

import json
import re
import shlex
import unittest

from harness import BIN, Case, ROOT, run

# What the snippets take from the trainer around them.
AROUND = """
#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/schedulers/lr_scheduler.h>

#include <map>
#include <memory>
#include <string>

{includes}
void trainer(std::shared_ptr<torch::nn::Module> model, torch::optim::Optimizer& optimizer,
             torch::optim::LRScheduler& scheduler, std::uint64_t e, std::uint64_t s,
             std::map<std::string, double> m, std::uint64_t width, int ranks, int rank) {{
{body}
}}
"""


def snippets(language):
    """(line, text) of every block of that language; the line is that of the text's first one."""
    text = (ROOT / "README.md").read_text()
    return [(text[:match.start(1)].count("\n") + 1, match.group(1))
            for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)]


def program(blocks):
    """The blocks as statements of one function, each in a scope of its own; errors name README.md."""
    includes, body = "", ""
    for first, text in blocks:
        body += f'{{\n#line {first} "README.md"\n'
        for number, line in enumerate(text.splitlines(), first):
            if line.startswith("#include"):
                includes += f'#line {number} "README.md"\n{line}\n'
                line = ""
            body += ("" if line.strip() == "..." else line) + "\n"
        body += "}\n"
    return AROUND.format(includes=includes, body=body)


class Readme(Case):
    def compile(self, text):
        """Checks the text with the flags of a program that uses LibTorch and cairn::cairn."""
        commands = json.loads((BIN.parent / "compile_commands.json").read_text())
        words = next(shlex.split(entry["command"]) for entry in commands
                     if entry["file"].endswith("tests/torch/module_test.cpp"))
        words = words[:words.index("-o")]  # what follows are output and source
        words.remove(f"-I{ROOT}/tests")
        source = self.dir / "readme.cpp"
        source.write_text(text)
        return run([*words, "-w", "-fsyntax-only", source], timeout=100)

    def test_cpp_compiles(self):
        blocks = snippets("cpp")
        self.assertGreaterEqual(len(blocks), 2)
        result = self.compile(program(blocks))
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_yaml_is_read_and_obeyed(self):
        blocks = snippets("yaml")
        self.assertGreaterEqual(len(blocks), 1)
        for _, text in blocks:
            (self.dir / "checkpoint.yaml").write_text(text)
            result = run([BIN / "train_lm", "--config", "checkpoint.yaml", "--resume", "none", "--steps", 1,
                          "--layers", 1, "--width", 8, "--heads", 1, "--data", ROOT / "README.md"],
                         ranks=1, cwd=self.dir)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            saved = re.search(r"\bdir: ([^\s,}]+)", text).group(1)
            self.assertTrue((self.dir / saved / "step-00000001.h5").exists(), result.stdout)


if __name__ == "__main__":
    unittest.main()
