#pragma once

#include <string>

#include "cairn/config.hpp"
#include "cairn/error.hpp"

namespace cairn {

/// What is wrong with a configuration, code first: "usage test.yaml:1: ...", or "no error".
inline std::string error_of(const std::string& yaml) {
  try {
    Config::from_string(yaml, "test.yaml");
  } catch (const Error& error) {
    return std::string(to_string(error.code())) + " " + error.what();
  }
  return "no error";
}

inline bool holds(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace cairn
