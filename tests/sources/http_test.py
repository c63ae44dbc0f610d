"""Sources that come over HTTP, from nginx and from a server that misbehaves; the cache."""

import contextlib
import os
import pathlib
import pty
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from harness import ENVIRONMENT as MPI_ENVIRONMENT
from served import CONTENT, OTHER, PART, REVERSED, Served
from sources_case import ENVIRONMENT, FETCH, SourcesCase, sha256
from web import Faulty, Nginx


class Fetching(Served):
    def test_rank_0_alone_asks_for_each_byte_once_then_only_whether_it_changed(self):
        for ranks in (1, 2, 4):
            with self.subTest(ranks=ranks):
                self.cache = self.dir / f"cache{ranks}"
                path = self.assert_got(self.fetch(self.http(), ranks), CONTENT, ranks)
                self.assertEqual(self.assert_got(self.fetch(self.http(), ranks), CONTENT, ranks), path)
                self.assertTrue(path.endswith("/m.bin"), path)
        lines = [line.split() for line in self.server.requests()]
        first, last = [lines[i:i + 4] for i in (0, 5, 10)], [lines[i] for i in (4, 9, 14)]
        self.assertEqual(len(lines), 15)
        for parts in first:
            self.assertEqual({line[2] for line in parts}, {"206"})
            self.assertEqual(sum(int(line[3]) for line in parts), len(CONTENT))
            self.assertEqual(len({line[4] for line in parts}), 4)
        self.assertEqual([line[2:4] for line in last], [["304", "0"]] * 3)

    def test_a_server_without_ranges_sends_one_stream(self):
        self.assert_got(self.fetch(self.http("noranges/m.bin")), CONTENT)
        lines = [line.split() for line in self.server.requests()]
        self.assertEqual([line[2:4] for line in lines], [["200", str(len(CONTENT))]])

    def test_small_and_empty_files(self):
        for content in (b"", b"x", CONTENT[:PART], CONTENT[:PART + 1]):
            with self.subTest(size=len(content)):
                name = f"s{len(content)}.bin"
                (self.files / name).write_bytes(content)
                self.assert_got(self.fetch(self.http(name)), content)

    def test_a_new_version_on_the_server_is_fetched_and_the_old_one_stays(self):
        old = self.assert_got(self.fetch(self.http()), CONTENT)
        (self.files / "m.bin").write_bytes(OTHER)
        new = self.assert_got(self.fetch(self.http()), OTHER)
        self.assertNotEqual(old, new)
        self.assertEqual(sha256(pathlib.Path(old).read_bytes()), sha256(CONTENT))

    def test_redirects_are_followed_but_not_for_ever(self):
        self.assert_got(self.fetch(self.http("moved/")), CONTENT)
        self.assert_fails(self.fetch(self.http("loop/")), "io", "redirects")

    def test_refusals_are_the_same_errors_on_all_ranks_and_not_repeated(self):
        for path, code, words in (("nope.bin", "not_found", ["404", "/nope.bin"]),
                                  ("forbidden/m.bin", "io", ["403", "forbidden"]),
                                  ("private/m.bin", "io", ["401", "credentials"])):
            for ranks in (1, 2, 4):
                with self.subTest(path=path, ranks=ranks):
                    self.assert_fails(self.fetch(self.http(path), ranks), code, *words, ranks=ranks)
        self.assertEqual(len(self.server.requests()), 9)

    def test_the_digest_is_checked_before_use(self):
        for ranks in (1, 2, 4):
            with self.subTest(ranks=ranks):
                self.assert_fails(self.fetch(self.http(sha256="0" * 64), ranks), "corrupt", "0" * 64, sha256(CONTENT),
                                  ranks=ranks)
        self.assertEqual([name for name in self.files_in_cache() if not name.endswith(".lock")], [])
        self.assert_got(self.fetch(self.http(sha256=sha256(CONTENT).upper())), CONTENT)

    def test_tls_is_verified_and_never_left(self):
        url = f"https://127.0.0.1:{self.server.tls}"
        trust = {"ca_file": str(self.server.certificate)}
        source = {"type": "https", "url": url + "/m.bin"}
        self.assert_fails(self.fetch(source), "io", "certificate", "ca_file")
        self.assert_got(self.fetch({**source, **trust}), CONTENT)
        self.assert_fails(self.fetch({**source, "url": url + "/down/", **trust}), "io", "http")
        hub = {"type": "huggingface", "repo": "owner/model", "endpoint": url.replace("https", "HTTPS") + "/down"}
        self.assert_fails(self.fetch({**hub, **trust}), "io", "http")
        self.assertNotIn("GET /m.bin 20", "\n".join(self.server.requests()[1:]))

    def test_secrets_are_used_but_never_shown(self):
        secrets = ("pa55word", "s1gnature", "t0ken")
        url = f"http://user:pa55word@127.0.0.1:{self.server.port}/nope.bin?X-Amz-Signature=s1gnature"
        for source in ({"url": url}, {"url": url.replace("nope.bin", "m.bin")}):
            result = self.fetch({"type": "http", **source, "token_env": "THE_TOKEN"}, env={"THE_TOKEN": "t0ken"})
            for secret in secrets:
                self.assertNotIn(secret, result.stdout + result.stderr)
        entry = "".join(path.read_text() for path in self.cache.rglob(".entry"))
        self.assertIn("authorization=Bearer t0ken", self.server.requests()[0])
        for secret in secrets:
            self.assertNotIn(secret, entry)

    def test_a_token_goes_to_no_other_host(self):
        result = self.fetch(self.http("to-other/", token_env="THE_TOKEN"), env={"THE_TOKEN": "t0ken"})
        self.assert_got(result, CONTENT)
        lines = self.server.requests()
        for line in lines:
            self.assertEqual("t0ken" in line, line.startswith("GET /to-other/"), line)
        self.assertEqual(len([line for line in lines if "/seen/" in line]), 4)

    def test_a_token_that_is_not_there_or_is_none(self):
        self.assert_fails(self.fetch(self.http(token_env="NO_SUCH_TOKEN")), "usage", "NO_SUCH_TOKEN")
        result = self.fetch(self.http(token_env="THE_TOKEN"), env={"THE_TOKEN": "a\nX-Evil:b"})
        self.assertNotIn("X-Evil", self.assert_fails(result, "usage", "THE_TOKEN"))

    def test_a_fetch_may_take_longer_than_the_deadline_of_the_communicator(self):
        result = self.fetch(self.http("slow/m.bin", connections=1), ranks=2, deadline_s=2)
        self.assert_got(result, CONTENT, ranks=2)

    def test_a_terminal_sees_how_far_it_is_and_a_log_does_not(self):
        config = self.config(self.http("slow/m.bin", connections=1))
        near, far = pty.openpty()
        job = subprocess.Popen([FETCH, config], stdout=subprocess.PIPE, stderr=far, text=True,
                               env={**os.environ, **MPI_ENVIRONMENT, **ENVIRONMENT})
        os.close(far)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while piece := os.read(near, 4096):
                shown += piece
        os.close(near)
        self.assertIn(f"file 0 {sha256(CONTENT)}", job.communicate(timeout=60)[0])
        self.assertRegex(shown.decode(), r"slow/m.bin: \d+ % of 3.01 MiB, .*/s")
        self.cache = self.dir / "again"
        self.assertEqual(self.fetch(self.http("slow/m.bin", connections=1)).stderr, "")

    def test_no_such_host_and_nobody_there(self):
        self.pipeline["max_retries"] = 1
        self.assert_fails(self.fetch({"type": "https", "url": "https://no-such-host.invalid/m.bin"}, ranks=2),
                          "io", "no-such-host.invalid", ranks=2)
        self.assert_fails(self.fetch({"type": "http", "url": "http://127.0.0.1:1/m.bin"}), "io", "2 requests")


class BehindNginx(Served):
    """What nginx itself does to requests in passing."""

    def test_a_server_that_is_overrun_is_asked_again(self):
        source = self.http("overrun/m.bin", max_retries=9)
        self.assert_got(self.fetch(source, ranks=2), CONTENT, ranks=2)
        lines = [line.split() for line in self.server.requests()]
        self.assertEqual({line[2] for line in lines}, {"206", "500"})
        self.assertEqual(sum(int(line[3]) for line in lines if line[2] == "206"), len(CONTENT))

    def test_an_answer_that_nginx_cuts_goes_on_where_it_was(self):
        behind = Faulty(CONTENT)
        self.addCleanup(behind.stop)
        front = Nginx(self.files, behind=behind.url(""))
        self.addCleanup(front.stop)
        source = {"type": "http", "url": front.url("through/cut/m"), "part_bytes": PART}
        self.assert_got(self.fetch(source, ranks=2), CONTENT, ranks=2)
        begins = [int(part.removeprefix("bytes=").split("-")[0]) for _, part in behind.answers]
        self.assertEqual(len(begins), len(set(begins)), "bytes were asked for twice")
        self.assertGreater(len(begins), 4)
        self.assertEqual({line.split()[2] for line in front.requests()}, {"206"})


class Cache(Served):
    def damage(self, path, change):
        content = bytearray(pathlib.Path(path).read_bytes())
        change(content)
        pathlib.Path(path).write_bytes(content)

    def test_with_a_digest_the_server_is_not_needed_again(self):
        source = self.http(sha256=sha256(CONTENT))
        path = self.assert_got(self.fetch(source), CONTENT)
        self.assertEqual(len(self.server.requests()), 4)
        self.assertEqual(self.assert_got(self.fetch(source), CONTENT), path)
        self.damage(path, lambda content: content.reverse())
        self.pipeline["max_retries"] = 0
        self.assert_fails(self.fetch(source), "io")

    def test_a_file_is_kept_once_wherever_it_comes_from(self):
        (self.files / "again.h5").write_bytes(CONTENT)
        (self.files / "third.h5").write_bytes(CONTENT)
        first = self.assert_got(self.fetch(self.http()), CONTENT)
        again = self.assert_got(self.fetch(self.http("again.h5")), CONTENT)
        known = self.assert_got(self.fetch(self.http("third.h5", sha256=sha256(CONTENT))), CONTENT)
        self.assertEqual([path.split("/")[-1] for path in (first, again, known)], ["m.bin", "again.h5", "third.h5"])
        self.assertEqual(self.stored_bytes(), len(CONTENT))
        self.damage(again, lambda content: content.reverse())
        self.assertEqual(self.assert_got(self.fetch(self.http("again.h5")), CONTENT), again)
        self.assertEqual(self.assert_got(self.fetch(self.http()), CONTENT), first)
        self.assertEqual(self.stored_bytes(), len(CONTENT))
        self.assertNotIn("third.h5", "\n".join(self.server.requests()), "the digest was there before")

    def test_damage_is_noticed_and_the_file_fetched_again(self):
        for name, change in (("flipped", lambda content: content.__setitem__(7, content[7] ^ 1)),
                             ("shorter", lambda content: content.pop()), ("longer", lambda content: content.append(0)),
                             ("empty", lambda content: content.clear())):
            for more in ({}, {"sha256": sha256(CONTENT)}):
                with self.subTest(damage=name, **more):
                    path = self.assert_got(self.fetch(self.http(**more)), CONTENT)
                    self.damage(path, change)
                    self.assertEqual(self.assert_got(self.fetch(self.http(**more), ranks=2), CONTENT, 2), path)
                    self.assert_nothing_half()

    def test_a_damaged_entry_does_not_count(self):
        path = self.assert_got(self.fetch(self.http()), CONTENT)
        entry = pathlib.Path(path).parent / ".entry"
        for text in ("", "{", "[]", '{"name": "../../x", "size": 1}', '{"name": 3, "size": -1}', "\xff" * 100):
            with self.subTest(text=text):
                entry.write_text(text, encoding="latin-1")
                self.assert_got(self.fetch(self.http()), CONTENT)

    def test_jobs_at_the_same_time_fetch_once(self):
        config = self.config(self.http("slow/m.bin"))
        jobs = [subprocess.Popen([FETCH, config], stdout=subprocess.PIPE, text=True,
                                 env={**os.environ, **MPI_ENVIRONMENT, **ENVIRONMENT}) for _ in range(3)]
        self.addCleanup(lambda: [job.kill() for job in jobs])
        for job in jobs:
            self.assertIn(f"file 0 {sha256(CONTENT)}", job.communicate(timeout=60)[0])
        statuses = [line.split()[2] for line in self.server.requests()]
        self.assertEqual(sorted(statuses), ["206"] * 4 + ["304"] * 2)

    def test_a_kill_or_an_error_at_any_step_leaves_nothing_that_counts(self):
        for action in ("kill", "error"):
            for point in ("cache.write", "cache.rename", "cache.entry", "cache.origin"):
                with self.subTest(point=point, action=action):
                    self.cache = self.dir / f"{point}-{action}"
                    result = self.fetch(self.http(), env={"CAIRN_FAULT": f"{point}:0:{action}"})
                    self.assertNotEqual(result.returncode, 0)
                    self.assertNotIn("file 0", result.stdout)
                    if action == "error":
                        self.assertEqual(self.partials(), [])
                    for partial in self.partials():  # kept for a day: it may be another node's
                        os.utime(partial, (0, 0))
                    self.assert_got(self.fetch(self.http()), CONTENT)
                    self.assertEqual(self.partials(), [])
                    self.assert_nothing_half()

    def test_a_disk_that_is_full_after_all_is_the_same_error_on_all_ranks(self):
        for ranks in (1, 2, 4):
            with self.subTest(ranks=ranks):
                result = self.fetch(self.http(), ranks, env={"CAIRN_FAULT": "cache.write:0:full:2"})
                self.assert_fails(result, "io", "No space left", str(self.cache), ranks=ranks)
                self.assertEqual([name for name in self.files_in_cache() if not name.endswith(".lock")], [])
        self.assert_got(self.fetch(self.http(), ranks=2), CONTENT, ranks=2)

    def test_a_cache_that_cannot_be_made(self):
        (self.dir / "file").write_text("")
        self.cache = self.dir / "file" / "cache"
        result = self.fetch(self.http(), ranks=2)
        self.assertEqual(result.stdout.count("error "), 2, result.stdout)
        self.assertIn(str(self.dir / "file"), result.stdout)

    def test_the_cache_is_where_the_environment_says(self):
        for variable, sub in (("CAIRN_CACHE_DIR", ""), ("XDG_CACHE_HOME", "cairn"), ("HOME", ".cache/cairn")):
            base = self.dir / variable
            env = {"CAIRN_CACHE_DIR": "", "XDG_CACHE_HOME": "", variable: str(base)}
            source = {**self.http(), "cache_dir": None}
            path = self.assert_got(self.fetch(source, env=env), CONTENT)
            self.assertTrue(path.startswith(str(base / sub)), path)


class Misbehaving(SourcesCase):
    def setUp(self):
        super().setUp()
        self.server = Faulty(CONTENT, REVERSED)
        self.server.hub_files["/hub/m"] = CONTENT
        self.addCleanup(self.server.stop)

    def http(self, path, **more):
        return {"type": "http", "url": self.server.url(path), "part_bytes": PART, **more}

    def test_what_passes_is_tried_again(self):
        for path in ("busy-twice/m", "too-many/m", "cut-without-ranges/m", "stall-once/m"):
            with self.subTest(path=path):
                self.pipeline["timeout"] = 20
                self.assert_got(self.fetch(self.http(path)), CONTENT)

    def test_which_failures_of_a_server_pass(self):
        for status in (500, 502, 503, 504, 507, 520, 529):
            with self.subTest(status=status):
                self.assert_got(self.fetch(self.http(f"fails-once-with/{status}", max_retries=1)), CONTENT)
        for status in (501, 505):
            with self.subTest(status=status):
                self.assert_fails(self.fetch(self.http(f"fails-once-with/{status}")), "io", str(status))
                asked = [path for path, _ in self.server.answers if path.endswith(f"/{status}")]
                self.assertEqual(len(asked), 1)

    def test_what_a_server_says_is_shown_without_control_characters(self):
        self.assertNotIn("\x1b", self.assert_fails(self.fetch(self.http("escape/m")), "io", "[31m5-9/10"))

    def test_a_missing_configuration_of_aws_matters_to_those_who_need_it(self):
        source = {"type": "s3", "bucket": "cut", "key": "m", "endpoint": self.server.url("").rstrip("/")}
        gone = {"AWS_CONFIG_FILE": "/nowhere/config", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
        self.assert_got(self.fetch({**source, "anonymous": True}, env=gone), CONTENT)
        keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}
        self.assert_got(self.fetch(source, env={**gone, **keys}), CONTENT)
        self.assert_fails(self.fetch(source, env=gone), "not_found", "/nowhere/config", "AWS_CONFIG_FILE")

    def test_a_cut_connection_goes_on_where_it_was(self):
        self.assert_got(self.fetch(self.http("cut/m", connections=2)), CONTENT)
        begins = [int(part.removeprefix("bytes=").split("-")[0]) for _, part in self.server.answers]
        self.assertEqual(len(begins), len(set(begins)), "bytes were asked for twice")
        self.assertGreater(len(begins), 4)

    def test_what_never_works_is_given_up(self):
        self.pipeline["max_retries"] = 2
        self.assert_fails(self.fetch(self.http("always-500/m"), ranks=2), "io", "500", "3 requests", ranks=2)
        self.assertEqual(len(self.server.answers), 3)
        self.assert_fails(self.fetch(self.http("always-cut/m"), ranks=2), "io", "3 requests", ranks=2)
        self.pipeline["max_retries"] = 5
        self.assert_fails(self.fetch(self.http("always-500/n", max_retries=0)), "io", "500")
        self.assertEqual(len([path for path, _ in self.server.answers if path == "/always-500/n"]), 1)

    def test_expired_credentials_are_said_so_and_not_tried_again(self):
        source = {"type": "s3", "bucket": "expired", "key": "m", "endpoint": self.server.url("").rstrip("/")}
        keys = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "kept-secret", "AWS_SESSION_TOKEN": "old-token"}
        text = self.assert_fails(self.fetch(source, ranks=2, env=keys), "io", "ExpiredToken", "400", ranks=2)
        self.assertNotIn("kept-secret", text)
        self.assertNotIn("old-token", text)
        self.assertEqual(len(self.server.answers), 1)

    def test_a_silent_server_is_a_timeout_on_all_ranks(self):
        self.pipeline["timeout"] = 2
        self.assert_fails(self.fetch(self.http("silent/m"), ranks=2), "timeout", "2 s", ranks=2)
        self.pipeline["timeout"] = 100
        self.assert_fails(self.fetch(self.http("silent/m", timeout=0.5)), "timeout", "0.5 s")

    def test_versions_never_mix(self):
        self.assert_got(self.fetch(self.http("changes/m")), REVERSED)

    def test_versions_of_a_date_alone_never_mix(self):
        self.assert_got(self.fetch(self.http("dated/m")), REVERSED)

    def test_parts_without_a_version_are_not_put_together(self):
        self.assert_got(self.fetch(self.http("unversioned/m")), REVERSED)
        self.assertEqual([part for _, part in self.server.answers], [f"bytes=0-{PART - 1}", None])
        self.assert_got(self.fetch(self.http("unversioned-cut/m", part_bytes=4 * PART)), REVERSED)

    def test_parts_without_a_version_are_put_together_where_the_digest_is_known(self):
        self.assert_got(self.fetch(self.http("hub-content/m", sha256=sha256(CONTENT))), CONTENT)
        self.assertEqual(len(self.server.answers), 4)

    def test_a_weak_etag_does_not_tell_that_a_file_is_the_same(self):
        self.assert_got(self.fetch(self.http("weak/m")), CONTENT)
        self.assert_got(self.fetch(self.http("weak/m")), REVERSED)

    def test_parts_that_came_as_a_whole_need_no_good_end(self):
        self.assert_got(self.fetch(self.http("unfinished/m", max_retries=0)), CONTENT)
        self.assertEqual(len(self.server.answers), 4)

    def test_parts_that_wait_to_be_sent_again_keep_their_connections(self):
        source = self.http("first-part-only/m", connections=2, max_retries=1)
        self.assert_fails(self.fetch(source), "io", "503", "2 requests")
        asked = {part for _, part in self.server.answers}
        self.assertEqual(len(asked), 3, "parts beyond the connections were asked for")

    def test_an_older_file_with_a_date_alone_is_another_file(self):
        new = self.assert_got(self.fetch(self.http("rolled-back/m")), CONTENT)
        old = self.assert_got(self.fetch(self.http("rolled-back/m")), REVERSED)
        self.assertNotEqual(old, new)
        self.assertEqual(pathlib.Path(new).read_bytes(), CONTENT)

    def test_a_file_of_unknown_length_needs_a_digest(self):
        self.assert_fails(self.fetch(self.http("no-length/m")), "unsupported", "sha256")
        self.assert_got(self.fetch(self.http("no-length/m", sha256=sha256(CONTENT))), CONTENT)

    def test_a_part_that_was_not_asked_for_is_refused(self):
        self.assert_fails(self.fetch(self.http("too-much/m")), "io", "another part")


class Registered(SourcesCase):
    def test_the_function_runs_on_rank_0_and_its_file_is_everyones(self):
        origin = self.dir / "origin.bin"
        origin.write_bytes(OTHER)
        path = self.assert_got(self.fetch({"type": "copying", "from": str(origin)}, ranks=2), OTHER, ranks=2)
        self.assertEqual(path, str(self.cache / "copied.bin"))

    def test_what_it_throws_all_ranks_throw(self):
        result = self.fetch({"type": "copying", "fail": "on purpose"}, ranks=2)
        self.assert_fails(result, "not_found", "on purpose", ranks=2)
        self.assert_fails(self.fetch({"type": "copying", "from": "/nowhere"}), "not_found", "/nowhere")
        self.assert_fails(self.fetch({"type": "copying", "from": str(self.dir)}), "io", str(self.dir))

    def test_one_that_does_not_come_back_is_left_behind(self):
        result = self.fetch({"type": "copying", "sleep_s": "600", "timeout": 0.5}, ranks=2)
        self.assert_fails(result, "timeout", "does not come back", ranks=2)


if __name__ == "__main__":
    unittest.main()
