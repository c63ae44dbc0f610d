#include "cairn/config.hpp"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "cairn/error.hpp"
#include "pipeline/document.hpp"
#include "pipeline/rules.hpp"
#include "support/config_errors.hpp"

namespace cairn {
namespace {

/// What `yaml` means, as `cairn config show` tells it.
nlohmann::ordered_json shown(const std::string& yaml) {
  return detail::resolved_block(
      std::make_unique<detail::Value>(detail::checked_document(yaml, "test.yaml")).get(),
      detail::kDocument);
}

TEST(Config, ShowsTheHintsOfMpioAsTexts) {
  const auto json = shown("save: {mpio: {hints: {cb_nodes: 2}}}");
  EXPECT_EQ(json["save"]["mpio"]["hints"]["cb_nodes"], "2");
}

TEST(Config, TheDocumentOfTheDesignMeansWhatItSays) {
  const Config config = Config::from_string(R"(
checkpoint:
  source: {type: s3, bucket: ecmwf-models, key: anemoi/pretrained.ckpt, cache_dir: /tmp/checkpoints}
  loading: {type: transfer_learning, strict: false, skip_mismatched: true, freeze_loaded: false}
model_modifier:
  modifiers:
    - {type: freeze, layers: [encoder, processor.0]}
    - {type: lora, rank: 8, target_modules: [decoder]}
pipeline: {async_execution: true, max_retries: 3, timeout: 600}
save: {dir: runs/a, every_n_steps: 1000, keep_last: 3, engine: direct, async: true}   # ours, beyond the block above
)");
  S3Source source{"ecmwf-models", "anemoi/pretrained.ckpt"};
  source.fetch.cache_dir = "/tmp/checkpoints";
  EXPECT_EQ(config.source, Source(source));
  LoadingConfig loading;
  loading.type = LoadingType::transfer_learning;
  loading.strict = false;
  EXPECT_EQ(config.loading, loading);
  ASSERT_EQ(config.modifiers.size(), 2U);
  EXPECT_EQ(config.modifiers[0], Modifier(FreezeModifier{{"encoder", "processor.0"}}));
  LoraModifier lora;
  lora.target_modules = {"decoder"};
  EXPECT_EQ(config.modifiers[1], Modifier(lora));
  EXPECT_EQ(config.pipeline, PipelineConfig{});
  EXPECT_EQ(config.save.dir, "runs/a");
  EXPECT_EQ(config.save.every_n_steps, 1000U);
  EXPECT_EQ(config.save.retention.keep_last, 3U);
  EXPECT_TRUE(config.save.async.has_value());
}

TEST(Config, EveryBlockMayBeAbsent) {
  for (const std::string yaml : {"", "{}", "checkpoint:\n", "checkpoint: {source: null}",
                                 "model_modifier: {}", "save: {dir: null}"}) {
    const Config config = Config::from_string(yaml);
    EXPECT_FALSE(config.source.has_value()) << yaml;
    EXPECT_FALSE(config.loading.has_value()) << yaml;
    EXPECT_TRUE(config.modifiers.empty()) << yaml;
    EXPECT_EQ(config.pipeline, PipelineConfig{}) << yaml;
  }
}

TEST(Config, SourcesTakeTheirOptions) {
  EXPECT_EQ(Config::from_string("checkpoint: {source: {path: runs/a}}").source,
            Source(LocalSource{"runs/a"}));
  EXPECT_EQ(Config::from_string("checkpoint: {source: {type: run, root: r, run_id: 7, fork: yes}}")
                .source,
            Source(RunSource{"r", "7", true}));
  HttpSource http{"https://host/x", std::string(64, 'a'), "TOKEN"};
  http.fetch.max_retries = 0;
  http.fetch.timeout = std::chrono::milliseconds(1500);
  http.fetch.connections = 2;
  http.fetch.part_bytes = 65536;
  http.fetch.ca_file = "ca.pem";
  EXPECT_EQ(
      Config::from_string("checkpoint: {source: {type: http, url: 'https://host/x', sha256: " +
                          std::string(64, 'A') +
                          ", token_env: TOKEN, max_retries: 0, timeout: 1.5, connections: 2, "
                          "part_bytes: 65_536, ca_file: ca.pem}}")
          .source,
      Source(http));
  S3Source s3{"b", "k", "eu", "https://s3.host", S3Style::virtual_host, "me", true};
  EXPECT_EQ(Config::from_string("checkpoint: {source: {type: s3, bucket: b, key: k, region: eu, "
                                "endpoint: 'https://s3.host', style: virtual, profile: me, "
                                "anonymous: true}}")
                .source,
            Source(s3));
  HubSource hub{"a/b", "v1", "x.bin", "https://hub", "T"};
  EXPECT_EQ(Config::from_string("checkpoint: {source: {type: huggingface, repo: a/b, revision: v1, "
                                "file: x.bin, endpoint: 'https://hub', token_env: T}}")
                .source,
            Source(hub));
  EXPECT_EQ(error_of("checkpoint: {source: {type: https, url: 'http://x'}}"),
            "usage test.yaml:1: 'checkpoint.source.url' must begin with https://");
  EXPECT_TRUE(holds(error_of("checkpoint: {source: {type: http, url: 'http://x', sha256: abc}}"),
                    "64 hexadecimal digits"));
}

TEST(Config, ProgramsCanAddSourceTypes) {
  const std::string yaml =
      "checkpoint: {source: {type: config-test, tape: 7, cache_dir: /c, timeout: 5}}";
  EXPECT_TRUE(holds(error_of(yaml), "'checkpoint.source.type' must be 'local' or 'run'"));
  register_source_type("config-test", [](const auto&, const auto&) { return "x"; });
  CustomSource custom{"config-test", {{"tape", "7"}, {"cache_dir", "/c"}, {"timeout", "5"}}};
  custom.fetch.cache_dir = "/c";
  custom.fetch.timeout = std::chrono::seconds(5);
  EXPECT_EQ(Config::from_string(yaml).source, Source(custom));
  EXPECT_TRUE(holds(error_of("checkpoint: {source: {type: config-test, tape: [7]}}"),
                    "'checkpoint.source.tape' must be a text"));
  EXPECT_THROW(register_source_type("config-test", [](const auto&, const auto&) { return "x"; }),
               Error);
  EXPECT_THROW(register_source_type("s3", [](const auto&, const auto&) { return "x"; }), Error);
}

TEST(Config, LoadingAndModifiersTakeTheirOptions) {
  const auto loading = [](const std::string& text) {
    return *Config::from_string("checkpoint: {loading: " + text + "}").loading;
  };
  EXPECT_TRUE(loading("{type: weights_only}").strict);
  EXPECT_FALSE(loading("{type: weights_only, strict: false}").strict);
  EXPECT_FALSE(loading("{type: transfer_learning}").strict);
  EXPECT_EQ(loading("{type: cold_start, reset_layers: [decoder]}").reset_layers,
            std::vector<std::string>{"decoder"});
  const auto rules =
      loading(
          "{type: warm_start, rename: [{from: a., to: b.}, {from: '^x(\\d)', to: y$1, regex: "
          "true}]}")
          .rename;
  EXPECT_EQ(rules, (std::vector<RenameRule>{{"a.", "b."}, {"^x(\\d)", "y$1", true}}));
  EXPECT_EQ(loading("{type: transfer_learning, min_match: 0.9}").min_match, 0.9);
  EXPECT_FALSE(loading("{type: weights_only}").reset_progress);
  EXPECT_TRUE(loading("{type: weights_only, reset_progress: true}").reset_progress);
  EXPECT_TRUE(loading("{type: transfer_learning, reset_progress: true}").reset_progress);
  EXPECT_TRUE(holds(error_of("checkpoint: {loading: {type: cold_start, reset_progress: true}}"),
                    "is a key of the type 'weights_only'"));
  EXPECT_EQ(error_of("checkpoint: {loading: {type: warm_start, strict: true}}"),
            "usage test.yaml:1: 'checkpoint.loading.strict' is a key of the type 'cold_start', not "
            "of 'warm_start'");
  EXPECT_TRUE(holds(error_of("checkpoint: {loading: {strict: true}}"), "needs a 'type'"));
  EXPECT_TRUE(holds(error_of("checkpoint: {loading: {type: weights_only, rename: [{from: '(', to: "
                             "x, regex: true}]}}"),
                    "'checkpoint.loading.rename[0].from' is no regular expression"));
  for (const char* type : {"warm_start", "cold_start", "weights_only", "transfer_learning"}) {
    const std::string head = "checkpoint: {loading: {type: " + std::string(type);
    const LoadingConfig plain = *Config::from_string(head + "}}").loading;
    EXPECT_EQ(plain.verify, VerifyWhen::before);
    EXPECT_EQ(plain.broadcast, BroadcastReplicas::automatic);
    const LoadingConfig set =
        *Config::from_string(head + ", verify: loaded, broadcast: always}}").loading;
    EXPECT_EQ(set.verify, VerifyWhen::loaded);
    EXPECT_EQ(set.broadcast, BroadcastReplicas::always);
  }
  EXPECT_EQ(
      error_of("checkpoint: {loading: {type: warm_start, verify: later}}"),
      "usage test.yaml:1: 'checkpoint.loading.verify' must be 'before' or 'loaded' or 'never'");
  EXPECT_TRUE(holds(error_of("checkpoint: {loading: {type: transfer_learning, min_match: 2}}"),
                    "a number from 0 to 1"));

  const auto modifiers =
      Config::from_string(
          "model_modifier: {modifiers: [{type: cast, dtype: bf16}, {type: reset, "
          "layers: [head]}, {type: lora, rank: 4, alpha: 16, dropout: 0.1, "
          "target_modules: [a]}, {type: freeze, layers: [b]}]}")
          .modifiers;
  EXPECT_EQ(modifiers,
            (std::vector<Modifier>{CastModifier{DType::bf16}, ResetModifier{{"head"}},
                                   LoraModifier{4, 16, 0.1, {"a"}}, FreezeModifier{{"b"}}}));
  EXPECT_EQ(error_of("model_modifier:\n  modifiers:\n  - {type: freeze}"),
            "usage test.yaml:3: 'model_modifier.modifiers[0]' needs a 'layers'");
  EXPECT_TRUE(holds(error_of("model_modifier: {modifiers: [{type: freeze, layers: []}]}"),
                    "that is not empty"));
}

TEST(Config, ErrorsNameFileLineKeyAndTheNearestKey) {
  EXPECT_EQ(error_of("save:\n  dir: a\n  engin: direct\n"),
            "usage test.yaml:3: 'save.engin' is unknown; did you mean 'engine'?");
  EXPECT_EQ(error_of("checkpoint:\n  source:\n    typ: s3\n"),
            "usage test.yaml:3: 'checkpoint.source.typ' is unknown; did you mean 'type'?");
  EXPECT_EQ(error_of("save: {every_n_steps: often}\n"),
            "usage test.yaml:1: 'save.every_n_steps' must be a number of steps");
  EXPECT_EQ(error_of("save: {every_n_steps: -1}\n"),
            "usage test.yaml:1: 'save.every_n_steps' must be a number of steps");
  EXPECT_EQ(error_of("save: {engine: fast}"),
            "usage test.yaml:1: 'save.engine' must be 'direct' or 'mpio'");
  EXPECT_TRUE(holds(error_of("save: [1"), "not valid YAML"));
  EXPECT_EQ(error_of("- 1"), "usage test.yaml:1: the document must be a mapping");
  EXPECT_EQ(error_of("checkpoint:\n  source:\n    type: local\n"),
            "usage test.yaml:2: 'checkpoint.source' needs a 'path'");
  const std::string s4 = error_of("checkpoint: {source: {type: s4, bucket: b}}");
  EXPECT_TRUE(holds(s4, "'checkpoint.source.type' must be 'local' or 'run' or 'http'")) << s4;
  EXPECT_TRUE(s4.ends_with("did you mean 's3'?")) << s4;
  EXPECT_EQ(error_of("save: {dir: a}\npipeline: {timeout: 1}\nsave: {dir: b}"),
            "usage test.yaml:3: 'save' is given twice in one mapping");
  EXPECT_EQ(error_of("save:\n  dir: \?\?\?"),
            "usage test.yaml:2: 'save.dir' is '\?\?\?': give it a value");
  EXPECT_TRUE(holds(error_of("save: {dir: a}\n---\nsave: {dir: b}"), "more than one document"));
}

TEST(Config, InterpolationsAreReplaced) {
  ::setenv("CAIRN_TEST_ROOT", "/scratch", 1);
  ::unsetenv("CAIRN_TEST_UNSET");
  const auto dir = [](const std::string& text, const std::string& more = "") {
    return Config::from_string("save:\n  dir: " + text + "\n" + more).save.dir.string();
  };
  EXPECT_EQ(dir("${oc.env:CAIRN_TEST_ROOT}/runs"), "/scratch/runs");
  EXPECT_EQ(dir("${oc.env:CAIRN_TEST_UNSET,/tmp}/x"), "/tmp/x");
  EXPECT_EQ(dir("${oc.env:CAIRN_TEST_UNSET,'a, b'}"), "a, b");
  EXPECT_EQ(dir("'${oc.env:CAIRN_TEST_UNSET,null}'"), "");
  EXPECT_EQ(dir("${oc.env:CAIRN_TEST_UNSET,${oc.env:CAIRN_TEST_ROOT}}"), "/scratch");
  EXPECT_EQ(dir("${oc.decode:${oc.env:CAIRN_TEST_ROOT}}/x"), "/scratch/x");
  EXPECT_EQ(dir("${x-vars.a.b}", "x-vars: {a: {b: '${.c}', c: '${..d}/c'}, d: top}"), "top/c");
  EXPECT_EQ(dir("${x-vars.list[1].n}-${x-vars.list.0}", "x-vars: {list: [one, {n: two}]}"),
            "two-one");
  EXPECT_EQ(dir("a-${oc.select:x-vars.no,none}"), "a-none");
  EXPECT_EQ(dir(R"('\${x}')"), "${x}");
  EXPECT_EQ(dir(R"('\\${oc.env:CAIRN_TEST_ROOT}')"), "\\/scratch");
  EXPECT_EQ(dir("$x {y}"), "$x {y}");
  EXPECT_EQ(Config::from_string("x-n: 7\nsave: {every_n_steps: '${x-n}'}").save.every_n_steps, 7U);
  const Config whole = Config::from_string(
      "x-layers: [a, b]\nx-save: {dir: d}\nsave: ${x-save}\nmodel_modifier: {modifiers: [{type: "
      "freeze, layers: '${x-layers}'}]}");
  EXPECT_EQ(whole.modifiers[0], Modifier(FreezeModifier{{"a", "b"}}));
  EXPECT_EQ(whole.save.dir, "d");
  EXPECT_EQ(
      Config::from_string("x-base: &b {dir: d, engine: mpio}\nsave: {<<: *b, dir: e}").save.dir,
      "e");
}

TEST(Config, InterpolationsThatCannotBeReplacedAreErrors) {
  ::unsetenv("CAIRN_TEST_UNSET");
  EXPECT_EQ(
      error_of("save:\n  dir: ${oc.env:CAIRN_TEST_UNSET}"),
      "usage test.yaml:2: 'save.dir' needs the environment variable 'CAIRN_TEST_UNSET', which "
      "is not set; set it, or write ${oc.env:CAIRN_TEST_UNSET,default}");
  EXPECT_EQ(error_of("save: {dir: '${save.dri}'}"),
            "usage test.yaml:1: 'save.dir' refers to 'save.dri', which does not exist");
  for (const std::string yaml :
       {"save: {dir: '${save.dir}'}", "x-a: ${x-b}\nx-b: z${x-c}\nx-c: ${x-a}", "save: ${save}",
        "x-a: {b: '${x-a}'}", "x-a: {b: '${x-c}'}\nx-c: ['${x-a}']"}) {
    EXPECT_TRUE(holds(error_of(yaml), "refers to itself")) << yaml << error_of(yaml);
  }
  EXPECT_TRUE(holds(error_of("save: {dir: '${oc.envv:X}'}"), "uses the resolver 'oc.envv'"));
  EXPECT_TRUE(holds(error_of("save: {dir: '${oc.env:X'}"), "without its '}'"));
  EXPECT_TRUE(holds(error_of("x-a: [1]\nsave: {dir: 'a${x-a}'}"), "a list or a mapping"));
  EXPECT_TRUE(holds(error_of("x-o: '\?\?\?'\nsave: {dir: '${x-o}/x'}"), "'\?\?\?' still"));
  EXPECT_TRUE(holds(error_of("save: {dir: '${.....a}'}"), "does not exist"));
}

TEST(Config, DocumentsThatGrowWithoutBoundAreRefused) {
  std::string aliases = "x-0: &a0 [x,x,x,x,x,x,x,x,x,x]\n";
  std::string references = "x-0: [x,x,x,x,x,x,x,x,x,x]\n";
  for (int i = 1; i < 12; ++i) {
    aliases += fmt::format("x-{}: &a{} [", i, i);
    references += fmt::format("x-{}: [", i);
    for (int k = 0; k < 10; ++k) {
      aliases += fmt::format("*a{},", i - 1);
      references += fmt::format("'${{x-{}}}',", i - 1);
    }
    aliases += "]\n";
    references += "]\n";
  }
  EXPECT_TRUE(holds(error_of(aliases), "unsafe")) << error_of(aliases);
  EXPECT_TRUE(holds(error_of(references), "unsafe")) << error_of(references);
  // Few nodes, but many bytes.
  const std::string mebibyte = "x-0: &a " + std::string(1 << 20, 'x') + "\nx-1: [";
  aliases = references = mebibyte;
  for (int k = 0; k < 70; ++k) {
    aliases += "*a,";
    references += "'${x-0}',";
  }
  EXPECT_TRUE(holds(error_of(aliases + "]"), "is too large")) << error_of(aliases + "]");
  EXPECT_TRUE(holds(error_of(references + "]"), ":2: 'x-1[")) << error_of(references + "]");
  EXPECT_EQ(error_of(mebibyte + "*a,'${x-0}']"), "no error");
  EXPECT_NE(error_of("x: " + std::string(100'000, '[')), "no error");
  EXPECT_TRUE(holds(error_of("x-0: &a [*a]"), "unsafe"));
  EXPECT_NE(error_of("save: {dir: '" + std::string(10'000, '$') + "'}"), "a crash");
  std::string nested = "x";
  for (int i = 0; i < 1000; ++i) nested = "${oc.decode:" + nested + "}";
  EXPECT_TRUE(holds(error_of("save: {dir: '" + nested + "'}"), "unsafe"));
}

TEST(Config, ShownDefaultsAreThoseThatHold) {
  // What `show` fills in, written out, must mean the same as leaving it out.
  const Config filled = Config::from_string(shown("save: {async: {}}").dump());
  const Config plain = Config::from_string("save: {async: true}");
  EXPECT_EQ(filled.pipeline, plain.pipeline);
  EXPECT_EQ(filled.save.every_n_steps, plain.save.every_n_steps);
  EXPECT_EQ(filled.save.engine, plain.save.engine);
  EXPECT_EQ(filled.save.transfer, plain.save.transfer);
  EXPECT_EQ(filled.save.durable, plain.save.durable);
  EXPECT_EQ(filled.save.statistics, plain.save.statistics);
  EXPECT_EQ(filled.save.replica_check, plain.save.replica_check);
  EXPECT_EQ(filled.save.delta, plain.save.delta);
  EXPECT_EQ(filled.save.enabled, plain.save.enabled);
  EXPECT_EQ(filled.save.retention.keep_last, plain.save.retention.keep_last);
  EXPECT_EQ(filled.save.async->budget_bytes, plain.save.async->budget_bytes);
  EXPECT_EQ(filled.save.async->when_busy, plain.save.async->when_busy);
  EXPECT_EQ(filled.save.async->on_failure, plain.save.async->on_failure);
  for (const std::string yaml :
       {"{source: {path: p}}", "{source: {type: run, root: r, run_id: i}}",
        "{source: {type: http, url: 'http://h/f'}}", "{source: {type: s3, bucket: b, key: k}}",
        "{source: {type: huggingface, repo: a/b}}", "{loading: {type: warm_start}}",
        "{loading: {type: cold_start}}", "{loading: {type: weights_only}}",
        "{loading: {type: transfer_learning, rename: [{from: a, to: b}]}}"}) {
    const Config given = Config::from_string("checkpoint: " + yaml);
    const Config complete = Config::from_string(shown("checkpoint: " + yaml).dump());
    EXPECT_EQ(given.source, complete.source) << yaml;
    EXPECT_EQ(given.loading, complete.loading) << yaml;
  }
  const std::string lora = "model_modifier: {modifiers: [{type: lora, target_modules: [a]}]}";
  EXPECT_EQ(Config::from_string(lora).modifiers, Config::from_string(shown(lora).dump()).modifiers);
}

TEST(Config, SecretsAreNotShown) {
  ::setenv("CAIRN_TEST_PASSWORD", "hunter2", 1);
  register_source_type("secret-test", [](const auto&, const auto&) { return "x"; });
  for (const std::string yaml :
       {"{type: http, url: 'https://me:hunter2@host/x?sig=hunter2'}",
        "{type: http, url: 'https://host/${oc.env:CAIRN_TEST_PASSWORD}'}",
        "{type: s3, bucket: b, key: k, endpoint: 'https://u:hunter2@host'}",
        "{type: secret-test, endpoint: 'https:/me:hunter2@host'}",
        "{type: secret-test, api_key: hunter2}",
        "{type: secret-test, other: 'x${oc.env:CAIRN_TEST_PASSWORD}'}"}) {
    const std::string text = shown("checkpoint: {source: " + yaml + "}").dump();
    EXPECT_FALSE(holds(text, "hunter2")) << text;
    EXPECT_TRUE(holds(text, "***")) << text;
  }
  EXPECT_EQ(describe(HttpSource{"https://me:pw@host/a?b"}), "https://***@host/a?***");
}

}  // namespace
}  // namespace cairn
