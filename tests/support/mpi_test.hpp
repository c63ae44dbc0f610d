#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>

#include "cairn/comm.hpp"

namespace cairn::test {

/// cairn's communicator over all ranks of the test.
const Comm& world();

/// A new empty directory, the same on all ranks; removed when the program ends. Collective.
std::filesystem::path scratch();

/// Sets CAIRN_FAULT for the life of the object; see src/os/fault.hpp for the rules.
class ScopedFault {
 public:
  explicit ScopedFault(const std::string& rules) { setenv("CAIRN_FAULT", rules.c_str(), 1); }
  ~ScopedFault() { unsetenv("CAIRN_FAULT"); }
  ScopedFault(const ScopedFault&) = delete;
  ScopedFault& operator=(const ScopedFault&) = delete;
};

/// Runs `body`, which must throw an Error of `code`, and checks that all ranks threw the same.
/// `agreed`: and know that they did. Returns the text. Collective.
template <class F>
std::string expect_equal_errors(Errc code, bool agreed, F&& body) {
  std::string text = "no error";
  std::string code_text = "none";
  try {
    body();
  } catch (const Error& error) {
    text = error.what();
    code_text = to_string(error.code());
    EXPECT_EQ(error.rank() != Error::kLocal, agreed) << text;
  }
  EXPECT_EQ(code_text, to_string(code)) << text;
  std::string of_root = text;
  world().broadcast(of_root);
  EXPECT_EQ(text, of_root);
  return text;
}

/// Of a Collective call.
template <class F>
std::string expect_same_error(Errc code, F&& body) {
  return expect_equal_errors(code, true, std::forward<F>(body));
}

/// Of a Local call that all ranks make with the same arguments.
template <class F>
std::string expect_local_error(Errc code, F&& body) {
  return expect_equal_errors(code, false, std::forward<F>(body));
}

}  // namespace cairn::test
