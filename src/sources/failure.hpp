#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "cairn/error.hpp"
#include "sources/request.hpp"

namespace cairn::detail {

/// Why a request did not bring what it should, and whether it may be sent again.
struct RequestFailure {
  Errc code = Errc::io;
  std::string text;
  bool again = false;
  std::optional<std::chrono::seconds> wait;  ///< what the server asks for
};

/// Of an answer of another status than 200, 206 and 304, or of a transfer that ended with `code`.
/// 404 and 410 are not_found; 401, 403 and all else that a server refuses are io. Local.
RequestFailure explain_failure(const Remote& remote, const Request& request, CURLcode code);

}  // namespace cairn::detail
