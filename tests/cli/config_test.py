"""Configuration files from outside: `cairn config`, the schema, and every example of the documents."""

import copy
import json
import re

import jsonschema

from harness import BIN, ROOT, Case, run

SCHEMA = ROOT / "docs" / "checkpoint.schema.json"


def examples(document):
    return re.findall(r"^```yaml\n(.*?)^```", (ROOT / document).read_text(), re.M | re.S)


def blocks_of(schema):
    """The alternatives that a part of the schema describes mappings by."""
    parts = schema.get("oneOf") or schema.get("anyOf") or [schema]
    return [block for part in parts for block in (blocks_of(part) if part is not schema else [part])
            if block.get("type") == "object"]


def value_for(key, schema):
    """A value that the schema allows."""
    special = {"url": "https://host/x", "sha256": "0" * 64}
    if key in special:
        return special[key]
    if "default" in schema:
        return schema["default"]
    if "enum" in schema:
        return schema["enum"][0]
    if blocks := blocks_of(schema):
        return required_of(blocks[0])
    kind = schema["type"][0]
    if kind == "array":
        blocks = blocks_of(schema["items"])
        return [required_of(blocks[0]) if blocks else "a"]
    return {"string": "a", "boolean": True, "object": {"name": "a"}}.get(kind, schema.get("minimum", 1))


def required_of(block):
    made = {key: value_for(key, block["properties"][key]) for key in block.get("required", []) if key != "type"}
    kind = block["properties"].get("type", {}).get("const")
    return {"type": kind, **made} if kind else made


def wrong_for(schema):
    kinds = schema.get("type", [])
    if "integer" in kinds or "number" in kinds and "string" not in kinds:
        return "often"
    return {"no": "mapping"} if "array" in kinds or "boolean" in kinds or "string" in kinds else ["no", "block"]


class Config(Case):
    def cairn(self, *words, code=0, ranks=0, env=None):
        done = run([BIN / "cairn", "config", *words], ranks=ranks, env=env)
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        return done

    def verdicts(self, documents):
        """What the parser says of each: nothing, or what is wrong."""
        paths = []
        for i, document in enumerate(documents):
            paths.append(self.dir / f"{i}.yaml")
            paths[-1].write_text(json.dumps(document))
        done = run([BIN / "cairn", "config", "check", "--json", *paths])
        self.assertEqual(done.returncode, 2, done.stderr)  # some are wrong
        return [None if file["ok"] else file["error"]["message"] for file in json.loads(done.stdout)["files"]]

    def test_every_example_of_the_documents_is_right(self):
        found = 0
        for document in ("docs/configuration.md", "README.md"):
            for text in examples(document):
                found += 1
                path = self.dir / "example.yaml"
                path.write_text(text)
                with self.subTest(document=document, text=text):
                    self.assertEqual(self.cairn("check", path).stdout, f"ok: {path}\n")
                    shown = json.loads(self.cairn("show", path, "--json").stdout)
                    jsonschema.validate(shown, json.loads(SCHEMA.read_text()))
                    # What is shown is a configuration that means the same.
                    path.write_text(self.cairn("show", path).stdout)
                    self.assertEqual(json.loads(self.cairn("show", path, "--json").stdout), shown)
        self.assertGreater(found, 10)

    def test_the_schema_is_that_of_the_parser(self):
        self.assertEqual(self.cairn("schema").stdout, SCHEMA.read_text(),
                         "docs/checkpoint.schema.json is out of date: cairn config schema > it")

    def test_the_parser_and_the_schema_judge_alike(self):
        schema = json.loads(SCHEMA.read_text())
        validator = jsonschema.Draft202012Validator(schema)
        jsonschema.Draft202012Validator.check_schema(schema)
        documents = [{}]

        def walk(block, put):
            """put(value) is a whole document with the value in the place of the block."""
            base = required_of(block)
            documents.append(put(base))
            documents.append(put({**base, "surely-unknown": []}))
            documents.append(put(["no", "block"]))
            for key in block.get("required", []):
                documents.append(put({k: v for k, v in base.items() if k != key}))
            for key, child in block["properties"].items():
                if key == "type":
                    continue
                documents.append(put({**base, key: value_for(key, child)}))
                documents.append(put({**base, key: wrong_for(child)}))
                for limit, step in (("minimum", -1), ("maximum", 1)):
                    if limit in child:
                        documents.append(put({**base, key: child[limit]}))
                        documents.append(put({**base, key: child[limit] + step}))
                for inner in blocks_of(child):
                    walk(inner, lambda value, key=key: put({**base, key: value}))
                for inner in blocks_of(child.get("items", {})):
                    walk(inner, lambda value, key=key: put({**base, key: [value]}))

        walk(schema, copy.deepcopy)
        self.assertGreater(len(documents), 200)
        right = 0
        for document, wrong in zip(documents, self.verdicts(documents)):
            if wrong and any(text in wrong for text in ("needs save.keep_last", "needs 'engine: mpio'")):
                continue  # the schema judges each key by itself
            self.assertEqual(not wrong, validator.is_valid(document), f"{json.dumps(document)}\n{wrong}")
            right += not wrong
        self.assertGreater(right, 50)
        self.assertGreater(len(documents) - right, 50)

    def test_errors_name_file_line_and_key(self):
        path = self.dir / "c.yaml"
        path.write_text("save:\n  dir: a\n  engin: direct\n")
        done = self.cairn("check", path, code=2)
        self.assertIn(f"{path}:3: 'save.engin' is unknown; did you mean 'engine'?", done.stderr)
        error = json.loads(self.cairn("check", path, "--json", code=2).stdout)["error"]
        self.assertEqual(error["code"], "usage")
        self.assertIn("not_found", self.cairn("check", self.dir / "none.yaml", "--json", code=2).stdout)
        self.assertIn("directory", self.cairn("check", self.dir, code=2).stderr)
        self.assertIn("subcommand", self.cairn(code=2).stderr)

    def test_types_of_other_programs_are_told_and_left_alone(self):
        path = self.dir / "c.yaml"
        path.write_text("checkpoint:\n  source: {type: tape, robot: 3, passwd: hunter2, Api_Key: hunter2}\n"
                        "model_modifier: {modifiers: [{type: scale, factor: 2}]}\n")
        done = self.cairn("check", path)
        self.assertIn(f"{path}:2: 'checkpoint.source.type' is 'tape', which only a program that registers it can check",
                      done.stderr)
        self.assertIn("'model_modifier.modifiers[0].type' is 'scale'", done.stderr)
        shown = json.loads(self.cairn("show", path, "--json").stdout)
        self.assertEqual(shown["checkpoint"]["source"]["robot"], "3")
        self.assertEqual(shown["model_modifier"]["modifiers"], [{"type": "scale", "factor": "2"}])
        self.assertNotIn("hunter2", json.dumps(shown))
        path.write_text("checkpoint: {source: {type: htp, url: 'http://h/f'}}\n")
        self.assertIn("did you mean 'http'?", self.cairn("check", path, code=2).stderr)

    def test_what_nothing_acts_on_is_told(self):
        path = self.dir / "c.yaml"
        for save, word in (("{triggers: [{unit: epochs, save_frequency: 1, num_models_saved: 3}]}", None),
                           ("{every_minutes: 9, triggers: [{unit: epochs, save_frequency: 1, num_models_saved: 3}]}",
                            "num_models_saved"),
                           ("{name_templates: {epochs: e}}", "name_templates")):
            path.write_text(f"save: {save}\n")
            told = self.cairn("check", path).stderr
            self.assertEqual(f"cairn: warning: {path}: save." in told, word is not None, told)
            self.assertIn(word or "", told)

    def test_show_fills_in_and_masks(self):
        path = self.dir / "c.yaml"
        path.write_text("checkpoint: {source: {type: http, url: 'http://me:hunter2@h/x?s=hunter2'}}\n"
                        "save: {dir: '${oc.env:WHERE}/run'}\n")
        done = self.cairn("show", path, env={"WHERE": "/scratch"}, ranks=2)
        self.assertIn("dir: /scratch/run", done.stdout)
        self.assertIn("every_n_steps: 0", done.stdout)
        self.assertIn("http://***@h/x?***", done.stdout)
        self.assertNotIn("hunter2", done.stdout)


if __name__ == "__main__":
    import unittest
    unittest.main()
