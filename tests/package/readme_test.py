"""The snippets of README.md, docs/guide.md, trainer.md and migration.md: C++ compiles against the public headers, YAML is
read."""

import json
import re
import shlex
import unittest

from harness import BIN, Case, ROOT, run, snippets

# What the snippets take from the trainer around them.
AROUND = """
#include <torch/nn/module.h>
#include <torch/optim/optimizer.h>
#include <torch/optim/schedulers/lr_scheduler.h>

#include <cstdio>
#include <map>
#include <memory>
#include <string>

{includes}
void trainer(std::shared_ptr<torch::nn::Module> model, torch::optim::Optimizer& optimizer,
             torch::optim::LRScheduler& scheduler, std::uint64_t e, std::uint64_t s,
             std::map<std::string, double> m, std::uint64_t width, int ranks, int rank{more}) {{
{body}
}}
"""


def program(pages, includes="", more=""):
    """The blocks by page as statements of one function, each in a scope of its own; errors name the page."""
    body = ""
    for page, first, text in [(page, *block) for page, blocks in pages.items() for block in blocks]:
        body += f'{{\n#line {first} "{page}"\n'
        for number, line in enumerate(text.splitlines(), first):
            if line.startswith("#include"):
                includes += f'#line {number} "{page}"\n{line}\n'
                line = ""
            body += ("" if line.strip() == "..." else line) + "\n"
        body += "}\n"
    return AROUND.format(includes=includes, body=body, more=more)


class Readme(Case):
    def compile(self, text, *more):
        """Checks the text with the flags of a program that uses LibTorch and cairn::cairn, or builds it."""
        commands = json.loads((BIN.parent / "compile_commands.json").read_text())
        words = next(shlex.split(entry["command"]) for entry in commands
                     if entry["file"].endswith("tests/torch/module_test.cpp"))
        words = words[:words.index("-o")]  # what follows are output and source
        words.remove(f"-I{ROOT}/tests")
        source = self.dir / "readme.cpp"
        source.write_text(text)
        return run([*words, "-w", source, *(more or ["-fsyntax-only"])], timeout=400)

    def test_cpp_compiles(self):
        blocks = snippets("cpp")
        self.assertGreaterEqual(len(blocks), 2)
        result = self.compile(program({"README.md": blocks}))
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_the_guide_compiles(self):
        parts = [block for block in snippets("cpp", "docs/guide.md") if "int main(" not in block[1]]
        self.assertGreaterEqual(len(parts), 6)
        pages = {"docs/guide.md": parts}
        for page in ("docs/trainer.md", "docs/migration.md"):
            pages[page] = snippets("cpp", page)
            self.assertGreaterEqual(len(pages[page]), 1, page)
        text = program(pages, "#include <cairn/torch.hpp>\n#include <torch/torch.h>\n",
                       ",\n             cairn::CheckpointManager& manager, cairn::CheckpointContext& ctx")
        result = self.compile(text)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_the_trainer_of_the_guide_saves_and_resumes(self):
        whole = [text for _, text in snippets("cpp", "docs/guide.md") if "int main(" in text]
        self.assertEqual(len(whole), 1)
        link = run(["mpicxx", "--showme:link"]).stdout.split()
        lib = BIN.parent / "lib"
        result = self.compile(whole[0], "-O0", "-g0", "-o", self.dir / "trainer", f"-L{lib}", f"-Wl,-rpath,{lib}",
                              "-lcairn_torch", "-lcairn_core", "-ltorch", "-ltorch_cpu", "-lc10", *link)
        self.assertEqual(result.returncode, 0, result.stderr)
        (self.dir / "checkpoint.yaml").write_text(snippets("yaml", "docs/guide.md")[0][1])
        for ranks, kept in [(2, (50, 100)), (1, (100, 150, 200))]:
            result = run([self.dir / "trainer"], ranks=ranks, cwd=self.dir, timeout=120)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            files = sorted(path.name for path in (self.dir / "runs/a").glob("step-*"))
            self.assertEqual(files, [f"step-{step:08}.h5" for step in kept])

    def test_the_guide_configures(self):
        blocks = snippets("yaml", "docs/guide.md")
        self.assertGreaterEqual(len(blocks), 4)
        for _, text in blocks:
            (self.dir / "checkpoint.yaml").write_text(text)
            result = run([BIN / "cairn", "config", "check", "checkpoint.yaml"], cwd=self.dir)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

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
