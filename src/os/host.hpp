#pragma once

#include <string>

namespace cairn::detail {

/// This machine's name, or "unknown". Local.
std::string host_name();
/// This machine's clock, "2026-01-31T12:00:00Z". For people: clocks of machines differ. Local.
std::string utc_now();

}  // namespace cairn::detail
