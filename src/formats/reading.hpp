#pragma once

#include <filesystem>
#include <new>
#include <string_view>
#include <utility>

#include "base/throw.hpp"

namespace cairn::detail {

/// Runs `f`, which reads the checkpoint `path`, and names it in what `f` throws; the system's own
/// complaints name their file already. `advice` follows where the checkpoint is corrupt. One that
/// asks for more memory than there is is unsafe: no retry of the reading helps.
template <class F>
auto reading(const std::filesystem::path& path, std::string_view advice, F&& f) {
  try {
    return std::forward<F>(f)();
  } catch (const Error& error) {
    if (error.code() == Errc::io || error.code() == Errc::not_found) throw;
    fail(error.code(), "cannot read checkpoint '{}': {}{}", path.string(), error.what(),
         error.code() == Errc::corrupt ? advice : "");
  } catch (const std::bad_alloc&) {
    fail(Errc::unsafe, "cannot read checkpoint '{}': its table takes more memory than there is",
         path.string());
  }
}

}  // namespace cairn::detail
