"""Runs cairn's programs for black-box tests."""

import functools
import json
import os
import pathlib
import re
import resource
import shutil
import struct
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("CAIRN_BIN", ROOT / "build" / "bin"))
TEST_BIN = BIN.parent / "tests" / "bin"
SAMPLE = TEST_BIN / "cairn-sample"

# Checkpoints that other programs wrote, or nobody could, with what must come out of each. Not part of the project.
CORPUS = pathlib.Path(os.environ.get("CAIRN_CORPUS", ROOT.parent / "shared" / "corpus"))


def corpus_entries(*folders):
    """The entries of the corpus below any of the folders; skips the test where there is no corpus."""
    manifest = CORPUS / "MANIFEST.json"
    if not manifest.exists():
        raise unittest.SkipTest(f"NOT TESTED: no corpus of checkpoints at {CORPUS}; set CAIRN_CORPUS")
    entries = json.loads(manifest.read_text())["entries"]
    return [entry for entry in entries if entry["path"].startswith(folders)]


def skip_without_package(what):
    """Skips a test that needs a package of jobs/packages.txt; under tests/run.sh, which installs them, it fails."""
    if os.environ.get("CAIRN_PACKAGES_INSTALLED"):
        raise RuntimeError(f"NOT TESTED: {what}; see jobs/packages.txt")
    raise unittest.SkipTest(f"NOT TESTED: {what}")


# Open MPI refuses to run as root unless told twice.
ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


SANITIZED = (BIN / "cairn").exists() and b"__asan_init" in (BIN / "cairn").read_bytes()  # takes terabytes of addresses
MEMORY = 256 << 20  # what reading a file may take beyond what a tiny one takes, and beyond the file itself


def _limited(command, limit, env, **more):
    # Each thread's arena reserves 64 MiB of addresses, which it takes only where nothing limits them: a tiny file's
    # need would not tell them.
    env = {**env, "MALLOC_ARENA_MAX": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)), **more)


@functools.cache
def _least_memory():
    """The addresses that `cairn inspect` needs for a tiny file, in steps of 32 MiB."""
    with tempfile.TemporaryDirectory(prefix="cairn-test-") as directory:
        tiny = pathlib.Path(directory) / "tiny.safetensors"
        tiny.write_bytes(struct.pack("<Q", 2) + b"{}")
        for limit in range(64 << 20, 8 << 30, 32 << 20):
            done = _limited([BIN / "cairn", "inspect", tiny], limit, env={**os.environ, **ENVIRONMENT}, timeout=60)
            if done.returncode == 0:
                return limit
    raise AssertionError("cairn inspect needs more than 8 GiB of addresses for a tiny file")


def memory_for(path):
    """The most addresses that `cairn inspect` may take for a file or directory; None where nobody can say."""
    if SANITIZED:
        return None
    path = pathlib.Path(path)
    files = path.rglob("*") if path.is_dir() else [path]
    return _least_memory() + MEMORY + sum(file.stat().st_size for file in files if file.is_file())


def run(command, ranks=0, timeout=60, env=None, cwd=None, memory=None):
    """Runs a command, under mpirun when ranks > 0, and returns the finished process with its texts.

    A command that outlives `timeout` seconds raises: a hang is a failure, never a result. With `memory`, it may take
    so many bytes of addresses.
    """
    words = [str(word) for word in command]
    if ranks > 0:
        words = ["mpirun", "--oversubscribe", "-n", str(ranks)] + words
    environment = {**os.environ, **ENVIRONMENT, **(env or {})}
    if memory is not None:
        return _limited(words, memory, timeout=timeout, env=environment, cwd=cwd)
    return subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=timeout,
                          env=environment, cwd=cwd, stdin=subprocess.DEVNULL)


def snippets(language, page="README.md"):
    """(line, text) of every block of that language; the line is that of the text's first one."""
    text = (ROOT / page).read_text()
    return [(text[:match.start(1)].count("\n") + 1, match.group(1))
            for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)]


class Case(unittest.TestCase):
    """A test case with a fresh directory, removed afterwards."""

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="cairn-test-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def sample_save(self, file, step, version, cut="rows", engine="direct", ranks=2, **more):
        return run([SAMPLE, "save", file, step, version, cut, engine], ranks=ranks, **more)

    def sample_load(self, path, version, cut="flat", engine="direct", ranks=2, **more):
        return run([SAMPLE, "load", path, version, cut, engine], ranks=ranks, **more)
