"""The snippets of README.md, docs/guide.md, trainer.md and migration.md: C++ compiles against the public headers, YAML is
read, and what the guide tells a beginner is done."""

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


def section_of_guide(number):
    return re.search(rf"^## {number}\. .*?(?=^## )", (ROOT / "docs/guide.md").read_text(), re.M | re.S).group()


def blocks_of(language, text):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def with_shards(main):
    """Section 2's program with the lines of section 3 in their places."""
    model, loss = blocks_of("cpp", section_of_guide(3))
    for pattern, text in ((r"  torch::manual_seed.*?torch::optim::AdamW optimizer.*?\n", model),
                          (r"    const auto loss = .*?\n", loss)):
        main, count = re.subn(pattern, lambda _, text=text: text, main, flags=re.S)
        assert count == 1, pattern
    return main


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
        return run([*words, "-w", source, "-fsyntax-only"], timeout=400)

    def test_cpp_compiles(self):
        blocks = snippets("cpp")
        self.assertGreaterEqual(len(blocks), 2)
        result = self.compile(program({"README.md": blocks}))
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_the_guide_compiles(self):
        done = blocks_of("cpp", section_of_guide(2)) + blocks_of("cpp", section_of_guide(3))  # by the test below
        parts = [block for block in snippets("cpp", "docs/guide.md") if block[1] not in done]
        self.assertGreaterEqual(len(parts), 6)
        pages = {"docs/guide.md": parts}
        for page in ("docs/trainer.md", "docs/migration.md"):
            pages[page] = snippets("cpp", page)
            self.assertGreaterEqual(len(pages[page]), 1, page)
        text = program(pages, "#include <cairn/torch.hpp>\n#include <torch/torch.h>\n",
                       ",\n             cairn::CheckpointManager& manager, cairn::CheckpointContext& ctx")
        result = self.compile(text)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_a_user_of_the_guide_builds_a_trainer_that_saves_and_resumes(self):
        """Section 2: its files under the names that it gives, then its lines in a shell, with cairn in $HOME."""
        section = section_of_guide(2)
        fenced = re.compile(r"`(\S+)`:\n\n^```\w+\n(.*?)^```$", re.M | re.S)
        user = self.dir / "trainer"
        user.mkdir()
        for name, text in fenced.findall(section):
            (user / name).write_text(text)
        self.assertEqual({path.name for path in user.iterdir()}, {"CMakeLists.txt", "main.cpp", "checkpoint.yaml"})
        lines = re.findall(r"^    (\S.*)$", fenced.sub("", section), re.M)
        words = [line.split()[0] for line in lines]
        self.assertEqual(words, ["cmake", "cmake", "mpirun", "mpirun", "export", "cairn", "cairn"])
        (user / "shards.cpp").write_text(with_shards((user / "main.cpp").read_text()))
        with (user / "CMakeLists.txt").open("a") as file:
            file.write("add_executable(shards shards.cpp)\ntarget_link_libraries(shards PRIVATE cairn::cairn)\n")

        installed = run(["cmake", "--install", BIN.parent, "--prefix", self.dir / "cairn"], timeout=200)
        self.assertEqual(installed.returncode, 0, installed.stdout + installed.stderr)
        result = run(["bash", "-ec", "\n".join(lines)], cwd=user, timeout=400,
                     env={"HOME": str(self.dir), "OMPI_MCA_rmaps_base_oversubscribe": "1", "OMP_NUM_THREADS": "1"})
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        kept = (100, 150, 200)  # it went on at 100
        files = [path.name for path in sorted((user / "runs/a").glob("step-*"))]
        self.assertEqual(files, [f"step-{step:08}.h5" for step in kept])
        self.assertIn(f"runs/a/{files[-1]}\n", result.stdout)
        for step in kept:
            self.assertRegex(result.stdout, rf"(?m)^{step} .* loss=")

        # Section 3: what ranks hold in parts is one tensor, on any number of them.
        (user / "checkpoint.yaml").write_text("save: {dir: runs/c, every_n_steps: 50}\n")
        for ranks, last in ((2, 100), (1, 200)):
            result = run([user / "build/shards"], ranks=ranks, cwd=user)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            shown = run([BIN / "cairn", "inspect", user / f"runs/c/step-{last:08}.h5", "--json"])
            tensors = {tensor["name"]: tensor for tensor in json.loads(shown.stdout)["tensors"]}
            for name, shape in (("0.weight", [64, 8]), ("0.bias", [64]), ("2.weight", [1, 64])):
                for tensor in (f"model/{name}", f"optimizer/{name}/exp_avg"):
                    self.assertEqual(tensors[tensor]["shape"], shape, tensor)
                    self.assertEqual(len(tensors[tensor]["extents"]), ranks, tensor)

        # Section 5: a source is what a run begins with; later starts go on with the run.
        (user / "checkpoint.yaml").write_text("checkpoint: {source: {path: runs/a}}\n"
                                              "save: {dir: runs/b, every_n_steps: 50}\n")
        for last in (300, 400):
            result = run([user / "build/trainer"], ranks=2, cwd=user)
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            newest = max(path.name for path in (user / "runs/b").glob("step-*"))
            self.assertEqual(newest, f"step-{last:08}.h5")

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
