#pragma once

#include <functional>
#include <thread>

namespace cairn::detail {

/// A thread that takes no signals: those of the program are not for a thread that it does not know.
/// Local.
std::thread quiet_thread(std::function<void()> body);

}  // namespace cairn::detail
