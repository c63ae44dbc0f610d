#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace cairn::test {

/// A file of the corpus of checkpoints that other programs wrote: below $CAIRN_CORPUS, else in
/// `shared/corpus` beside the source tree; empty where there is none.
inline std::filesystem::path in_corpus(const std::string& name) {
  const char* given = std::getenv("CAIRN_CORPUS");
  const auto root = given != nullptr ? std::filesystem::path(given)
                                     : std::filesystem::path(__FILE__)
                                               .parent_path()
                                               .parent_path()
                                               .parent_path()
                                               .parent_path() /
                                           "shared" / "corpus";
  return std::filesystem::exists(root / name) ? root / name : std::filesystem::path();
}

}  // namespace cairn::test

/// Sets `path`, or skips the test.
#define CAIRN_IN_CORPUS(path, name)                 \
  const auto path = ::cairn::test::in_corpus(name); \
  if (path.empty()) GTEST_SKIP() << "NOT TESTED: no " << (name) << "; set CAIRN_CORPUS"
