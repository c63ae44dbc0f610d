#pragma once

#include <c10/util/Exception.h>

#include <string_view>
#include <utility>

#include "base/throw.hpp"
#include "cairn/comm.hpp"

namespace cairn::detail {

/// agree() for work that calls LibTorch: its errors travel without their backtraces.
template <class F>
void agree_torch(const Comm& comm, std::string_view step, F&& local) {
  agree(comm, step, [&] {
    try {
      std::forward<F>(local)();
    } catch (const c10::Error& error) {
      fail(Errc::internal, "LibTorch: {}", error.what_without_backtrace());
    }
  });
}

}  // namespace cairn::detail
