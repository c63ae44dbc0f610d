"""`cairn migrate-config` from outside: every configuration of the corpus, exit codes, JSON, files."""

import json
import pathlib
import re
import unittest

import yaml

from harness import BIN, CORPUS, ROOT, Case, run

FINE, DIFFERENT, FAILED = 0, 1, 2
ABOUT_LOADING = re.compile(r"run_id|warm_start|load_weights_only|transfer_learning")


def at(document, path):
    for key in path.split("."):
        document = document[key]
    return document


def has(document, path):
    try:
        at(document, path)
        return True
    except (KeyError, TypeError):
        return False


def resolved(text, env):
    return re.sub(r"\$\{oc\.decode:(.*?)\}", r"\1",
                  re.sub(r"\$\{oc\.env:(\w+)\}", lambda m: env[m.group(1)], text))


def read_back(document):
    """What the new blocks say, as the manifest says it; from the text, not from the report."""
    checkpoint, save = document.get("checkpoint") or {}, document.get("save")
    source, loading = checkpoint.get("source"), dict(checkpoint.get("loading") or {})
    lineage = checkpoint.get("lineage") or {}
    if source:
        source = dict(source)
        if source["type"] == "run":
            file = source.pop("file", "last.ckpt")
            root = source.pop("root", None)
            source["path"] = root and "/".join([root.rstrip("/"), source["run_id"], file])
    reset = loading.pop("reset_progress", False)
    if loading:
        loading["strategy"] = loading.pop("type")
    modifiers = (document.get("model_modifier") or {}).get("modifiers") or []
    return {
        "source": source, "loading": loading or None, "reset_progress": reset,
        "lineage": {"resume_run_id": lineage.get("resume_run_id"), "parent_run_id": lineage.get("parent_run_id"),
                    "new_run": lineage.get("resume_run_id") is None},
        "freeze": [name for each in modifiers if each["type"] == "freeze" for name in each["layers"]],
        "save": save and {"root": None, "triggers": None, **save},
    }


class MigrateConfig(Case):
    def cairn(self, *words, code=FINE, ranks=0):
        done = run([BIN / "cairn", "migrate-config", *words], ranks=ranks)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def write(self, text, name="old.yaml"):
        path = self.dir / name
        path.write_text(text)
        return path


class Corpus(MigrateConfig):
    reports = {}  # of the entries, made once for all tests

    def setUp(self):
        super().setUp()
        if not (CORPUS / "MANIFEST.json").exists():
            self.skipTest(f"SKIPPED, NOT PASSED: there is no corpus at {CORPUS}; set CAIRN_CORPUS")
        manifest = json.loads((CORPUS / "MANIFEST.json").read_text())
        self.entries = [entry for entry in manifest["entries"] if entry["format"] == "config"]
        self.assertGreater(len(self.entries), 0)

    def migrate(self, entry):
        """The report, the text and what the text says."""
        options = entry.get("options", {})
        words = ["--from-version", options["from_version"]] if "from_version" in options else []
        if entry["path"] not in self.reports:
            code = FAILED if entry["expect"] == "error" else FINE
            done = self.cairn(CORPUS / entry["path"], "--json", *words, code=code)
            self.reports[entry["path"]] = json.loads(done.stdout)
        return self.reports[entry["path"]], words

    def check_source(self, entry, source, want):
        if want is None or source is None:
            self.assertEqual(source, want)
            return
        if "source_type_any_of" in entry:
            self.assertIn(source["type"], entry["source_type_any_of"])
        for key, value in want.items():
            if key == "path_resolved":
                self.assertEqual(resolved(source["path"], entry["env"]), value)
            else:
                self.assertEqual(source.get(key), value, key)

    def check_save(self, entry, save, want):
        if want is None:
            self.assertIsNone(save)
            return
        for key, value in want.items():
            if key == "root_resolved":
                self.assertEqual(resolved(save["root"], entry["env"]), value)
            else:
                self.assertEqual(save.get(key), value, key)

    def check_notes(self, entry, notes, wanted, optional=()):
        """Every wanted note is there in some form, and there is no other about loading."""
        for want in wanted:
            self.assertTrue(any(set(note["about"]) & set(want["about"]) for note in notes), (want, notes))
        allowed = {key for want in [*wanted, *optional] for key in want["about"]}
        for note in notes:
            if any(ABOUT_LOADING.search(key) for key in note["about"]):
                self.assertTrue(set(note["about"]) & allowed, note)

    def test_every_entry_comes_out_as_the_manifest_says(self):
        for entry in self.entries:
            with self.subTest(entry["path"]):
                report, words = self.migrate(entry)
                self.assertEqual(report["era"], entry["era"])
                self.check_notes(entry, report["errors"], entry["errors"])
                self.check_notes(entry, report["warnings"], entry["warnings"], entry.get("optional_warnings", ()))
                if entry["expect"] == "error":
                    self.assertEqual(report["error"]["code"], "usage")
                    self.assertNotIn("text", report)
                    continue
                old = (CORPUS / entry["path"]).read_bytes()
                new = report["text"].encode()
                if entry["expect"] == "unchanged":
                    self.assertEqual(new, old)
                said, want = read_back(yaml.safe_load(new)), entry["migrated"]
                self.check_source(entry, said["source"], want["source"])
                self.assertEqual(said["freeze"], want["freeze"] or [])
                for key, value in (want["loading"] or {}).items():
                    self.assertEqual(said["loading"][key], value, key)
                self.assertEqual(said["loading"] is None, want["loading"] is None)
                if entry["expect"] == "migrate":
                    self.assertEqual(said["reset_progress"], want["reset_progress"])
                    for key, value in want["lineage"].items():
                        self.assertEqual(said["lineage"][key], value, key)
                    self.check_save(entry, said["save"], want["save"])
                    self.assertEqual({**report["migrated"]["lineage"], **want["lineage"]}, report["migrated"]["lineage"])
                for path, value in want.get("carried", {}).items():
                    self.assertEqual(at(yaml.safe_load(new), path), value, path)

    def test_the_result_is_a_configuration_and_migrates_to_itself(self):
        paths, env = [], {}
        for entry in self.entries:
            if entry["expect"] == "error":
                continue
            with self.subTest(entry["path"]):
                report, words = self.migrate(entry)
                path = self.dir / pathlib.Path(entry["path"]).name
                path.write_bytes(report["text"].encode())
                paths.append(path)
                env |= entry.get("env", {})
                again = json.loads(self.cairn(path, "--json", *words).stdout)
                self.assertEqual((again["changed"], again["text"]), (False, report["text"]))
                self.assertEqual(again["warnings"], [])
                # A '???' that was carried over is the user's to replace before the configuration can be used.
                path.write_bytes(path.read_bytes().replace(b": ???", b": given"))
        done = run([BIN / "cairn", "config", "check", *paths], env=env)
        self.assertEqual(done.returncode, FINE, done.stdout + done.stderr)
        self.assertEqual(done.stdout.count("ok: "), len(paths))

    def test_what_does_not_move_stays_byte_for_byte(self):
        for entry in self.entries:
            if entry["expect"] == "error":
                continue
            with self.subTest(entry["path"]):
                report, _ = self.migrate(entry)
                old = (CORPUS / entry["path"]).read_bytes().decode()
                new = report["text"].splitlines(keepends=True)
                for line in entry.get("preserve_lines", []):
                    self.assertIn(line + "\n", new)
                # Take the lines away that are new: what is left are old ones, in their order.
                moved = {action["key"].split(".")[-1] for action in report["actions"]}
                moved |= {"enabled", "lr"} if "swa" in moved else set()
                kept = [line for line in old.splitlines(keepends=True)
                        if not any(re.search(rf"\b{key}\b", line) for key in moved)]
                rest = iter(new)
                for line in kept:
                    word = line.strip()
                    nulls = re.search(r":\s*(null|~|false|False|\[\])?,?\s*$|^-|save_frequency|num_models", word)
                    if word and not nulls and "{" not in word:
                        self.assertIn(line, rest, f"{line!r} is gone or out of order")


class Tool(MigrateConfig):
    OLD = "training:\n  run_id: abc\n  lr: 1\n"

    def test_the_new_text_goes_to_standard_output_and_the_rest_beside(self):
        path = self.write("a: 1\r\n\tbad: [\n")
        self.assertIn("not valid YAML", self.cairn(path, code=FAILED).stderr)
        path.write_bytes(b"x:\r\n  - \"a\tb\"\r\n" + self.OLD.replace("\n", "\r\n").encode())
        done = run(["sh", "-c", f"{BIN}/cairn migrate-config {path} > {self.dir}/out"])
        out = (self.dir / "out").read_bytes()
        self.assertEqual(done.returncode, FINE)
        self.assertIn("training.run_id -> checkpoint.source.run_id", done.stderr)
        self.assertIn(b"x:\r\n  - \"a\tb\"\r\n", out)
        self.assertNotRegex(out, rb"[^\r]\n")
        self.assertEqual(yaml.safe_load(out)["checkpoint"]["source"], {"type": "run", "run_id": "abc", "fork": False})
        self.assertEqual(yaml.safe_load(out)["training"], {"lr": 1})
        done = self.cairn(self.write(self.OLD), ranks=2)
        self.assertEqual(done.stdout.count("checkpoint:"), 1)

    def test_check_tells_by_its_exit_code_and_writes_nothing(self):
        path = self.write(self.OLD)
        self.assertIn("era E2", self.cairn(path, "--check", code=DIFFERENT).stdout)
        self.assertTrue(json.loads(self.cairn(path, "--check", "--json", code=DIFFERENT).stdout)["changed"])
        self.assertEqual(path.read_text(), self.OLD)
        self.assertIn("nothing to migrate", self.cairn(self.write("training: {lr: 1}\n"), "--check").stdout)
        broken = self.write("training: {load_weights_only: true}\n")
        done = self.cairn(broken, "--check", code=FAILED)
        self.assertIn(f"{broken}:1: error: 'training.load_weights_only'", done.stdout)

    def test_files_are_written_whole_and_not_replaced_unless_told(self):
        path, new = self.write(self.OLD), self.dir / "new.yaml"
        self.assertIn("era E2", self.cairn(path, "-o", new).stdout)
        text = new.read_text()
        self.assertIn("resume_run_id: abc", text)
        done = self.cairn(path, "-o", new, code=FAILED)
        self.assertIn("--force", done.stderr)
        self.cairn(path, "-o", path, "--force")
        self.assertEqual(path.read_text(), text)
        self.cairn(path, "-o", self.dir / "copy.yaml")
        self.assertEqual((self.dir / "copy.yaml").read_text(), text)
        self.assertEqual(sorted(each.name for each in self.dir.iterdir()), ["copy.yaml", "new.yaml", "old.yaml"])
        self.cairn(path, "-o", self.dir / "no" / "such", code=FAILED)
        broken = self.write("training: {load_weights_only: true}\n", "broken.yaml")
        self.cairn(broken, "-o", self.dir / "none.yaml", code=FAILED)
        self.assertFalse((self.dir / "none.yaml").exists())

    def test_wrong_uses_are_told(self):
        path = self.write(self.OLD)
        for words in ([], [self.dir / "none.yaml"], [path, "--check", "-o", "x"], [path, "--force"],
                      [path, "--from-version", "seven"], [path, "--from-version", "1.0"], [self.dir]):
            self.cairn(*words, code=FAILED)
        error = json.loads(self.cairn(self.dir / "none.yaml", "--json", code=FAILED).stdout)["error"]
        self.assertEqual(error["code"], "not_found")
        older = self.write("hardware: {files: {warm_start: x}}\n" + self.OLD)
        done = self.cairn(older, "--from-version", "0.9", code=FAILED)
        self.assertIn(f"{older}:1: error: 'hardware.files.warm_start' is no key of the era E2", done.stderr)

    def test_a_legacy_configuration_is_not_half_obeyed(self):
        path = self.write("save: {dir: runs}\n" + self.OLD)
        done = run([BIN / "cairn", "config", "check", path])
        self.assertEqual(done.returncode, FAILED)
        self.assertIn(f"{path}:3: 'training.run_id' is a key of the legacy configuration", done.stderr)
        self.assertIn("cairn migrate-config", done.stderr)

    def test_the_example_of_the_documents_is_what_comes_out(self):
        text = (ROOT / "docs" / "migration.md").read_text()
        old, new = re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)[:2]
        made = self.cairn(self.write(old)).stdout
        self.assertEqual(made, new)
        done = run([BIN / "cairn", "config", "check", self.write(new)], env={"SCRATCH": "/scratch"})
        self.assertEqual(done.returncode, FINE, done.stderr)


if __name__ == "__main__":
    unittest.main()
