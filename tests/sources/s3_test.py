"""Sources from S3: an OpenStack Swift that speaks S3 and verifies every signature."""

import pathlib
import random
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import swift_server
from harness import skip_without_package
from sources_case import SourcesCase, sha256
from swift_server import ACCESS_KEY, SECRET_KEY, Swift

PART = 1 << 20
CONTENT = random.Random(3).randbytes(2 * PART + 4321)
BUCKET = "models"


class S3(SourcesCase):
    @classmethod
    def setUpClass(cls):
        if program := swift_server.missing():
            skip_without_package(f"{program} is not installed: no signature is verified")
        cls.swift = Swift()
        cls.addClassCleanup(cls.swift.stop)
        cls.swift.put(f"/{BUCKET}")
        cls.swift.put(f"/{BUCKET}/pretrained.ckpt", CONTENT)

    def s3(self, key="pretrained.ckpt", **more):
        return {"type": "s3", "bucket": BUCKET, "key": key, "endpoint": self.swift.endpoint, "part_bytes": PART,
                **more}

    def fetch(self, source, ranks=0, env=None, **more):
        keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "HOME": str(self.dir),
                "AWS_SESSION_TOKEN": "", "AWS_PROFILE": ""}
        result = super().fetch(source, ranks, {**keys, **(env or {})}, **more)
        self.assertNotIn(SECRET_KEY, result.stdout + result.stderr)
        return result

    def test_rank_0_alone_asks_and_the_second_load_brings_no_byte(self):
        for ranks in (1, 2, 4):
            with self.subTest(ranks=ranks):
                self.cache = self.dir / f"cache{ranks}"
                before = len(self.swift.requests())
                path = self.assert_got(self.fetch(self.s3(), ranks), CONTENT, ranks)
                self.assertTrue(path.endswith("/pretrained.ckpt"))
                self.assertEqual([r.status for r in self.swift.requests()[before:]], [206] * 3)
                self.assertEqual(sum(r.bytes for r in self.swift.requests()[before:]), len(CONTENT))
                self.assert_got(self.fetch(self.s3(), ranks), CONTENT, ranks)
                self.assertEqual([r.status for r in self.swift.requests()[before + 3:]], [304])

    def test_keys_of_all_kinds_are_signed_as_they_are_sent(self):
        for key in ("with space.bin", "a+b=c@d&e.bin", "\u00fcber/\u6a21\u578b.bin", "100%.bin", "~tilde'(x)!*.bin",
                    "a?b#c.bin", "deep/er/and/deeper.bin"):
            with self.subTest(key=key):
                body = key.encode()
                self.swift.put(f"/{BUCKET}/{key}", body)
                self.assert_got(self.fetch(self.s3(key)), body)

    def test_wrong_credentials_are_the_same_error_on_all_ranks(self):
        wrong = {"AWS_SECRET_ACCESS_KEY": "not-" + SECRET_KEY}
        text = self.assert_fails(self.fetch(self.s3(), ranks=2, env=wrong), "io", "403", "SignatureDoesNotMatch",
                                 f"s3://{BUCKET}/pretrained.ckpt", ranks=2)
        self.assertNotIn(wrong["AWS_SECRET_ACCESS_KEY"], text)
        nobody = {"AWS_ACCESS_KEY_ID": "nobody:atall"}
        self.assert_fails(self.fetch(self.s3(), ranks=2, env=nobody), "io", "403", ranks=2)
        # Without a signature, this server does not even take it for S3.
        self.assert_fails(self.fetch(self.s3(anonymous=True)), "io", "400")
        self.assert_fails(self.fetch(self.s3(region="eu-1")), "io", "AuthorizationHeaderMalformed")

    def test_what_is_not_there(self):
        self.assert_fails(self.fetch(self.s3("nope"), ranks=2), "not_found", "NoSuchKey", ranks=2)
        self.assert_fails(self.fetch({**self.s3(), "bucket": "no-such-bucket"}), "not_found", "NoSuchBucket")

    def test_credentials_of_a_profile(self):
        (self.dir / "credentials").write_text(
            f"[default]\naws_access_key_id = x\naws_secret_access_key = y\n\n# mine\n[mine]\n"
            f"aws_access_key_id={ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n")
        none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
                "AWS_SHARED_CREDENTIALS_FILE": str(self.dir / "credentials")}
        self.assert_got(self.fetch(self.s3(profile="mine"), env=none), CONTENT)
        self.cache = self.dir / "cache2"
        self.assert_got(self.fetch(self.s3(), env={**none, "AWS_PROFILE": "mine"}), CONTENT)
        self.assert_fails(self.fetch(self.s3(), env=none), "io", "403")
        self.assert_fails(self.fetch(self.s3(profile="theirs"), env=none), "usage", "theirs")
        half = {**none, "AWS_ACCESS_KEY_ID": ACCESS_KEY}
        self.assert_fails(self.fetch(self.s3(), env=half), "usage", "the environment")
        gone = {**none, "AWS_SHARED_CREDENTIALS_FILE": "/nowhere/credentials"}
        self.assert_fails(self.fetch(self.s3(), env=gone), "not_found", "/nowhere/credentials")

    def test_the_bucket_in_the_name_of_the_host(self):
        endpoint = f"http://localhost:{self.swift.port}"
        self.assert_got(self.fetch(self.s3(style="virtual", endpoint=endpoint)), CONTENT)

    def test_the_endpoint_of_the_environment(self):
        source = {**self.s3(), "endpoint": None}
        self.assert_got(self.fetch(source, env={"AWS_ENDPOINT_URL": self.swift.endpoint}), CONTENT)

    def test_the_digest_is_checked(self):
        self.assert_got(self.fetch(self.s3(sha256=sha256(CONTENT))), CONTENT)
        self.assert_fails(self.fetch(self.s3(sha256="1" * 64)), "corrupt", "1" * 64)


if __name__ == "__main__":
    unittest.main()
