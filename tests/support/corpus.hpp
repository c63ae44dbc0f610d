#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace cairn::test {

/// Where the corpus of checkpoints that other programs wrote should be: $CAIRN_CORPUS, else
/// `shared/corpus` beside the source tree.
inline std::filesystem::path corpus_root() {
  if (const char* given = std::getenv("CAIRN_CORPUS")) return given;
  const std::filesystem::path tests = std::filesystem::path(__FILE__).parent_path().parent_path();
  return tests.parent_path().parent_path() / "shared" / "corpus";
}

/// A file of the corpus; empty where there is none.
inline std::filesystem::path in_corpus(const std::string& name) {
  const std::filesystem::path path = corpus_root() / name;
  return std::filesystem::exists(path) ? path : std::filesystem::path();
}

}  // namespace cairn::test

/// Sets `path`, or skips the test.
#define CAIRN_IN_CORPUS(path, name)                 \
  const auto path = ::cairn::test::in_corpus(name); \
  if (path.empty()) GTEST_SKIP() << "NOT TESTED: no " << (name) << "; set CAIRN_CORPUS"
