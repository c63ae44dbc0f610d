#include "sources/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <utility>

namespace cairn::detail {
namespace {

std::string with_unit(double bytes) {
  constexpr std::array<std::string_view, 5> kUnits{"B", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  for (; bytes >= 1000 && unit + 1 < kUnits.size(); ++unit) bytes /= 1024;
  return fmt::format("{:.3g} {}", bytes, kUnits[unit]);
}

}  // namespace

std::string progress_text(const std::string& what, const FetchProgress& progress, double seconds) {
  const auto done = static_cast<double>(progress.done_bytes);
  const auto total = static_cast<double>(progress.total_bytes);
  const std::string rate = seconds > 0 ? fmt::format(", {}/s", with_unit(done / seconds)) : "";
  if (progress.total_bytes == 0) return fmt::format("{}: {}{}", what, with_unit(done), rate);
  return fmt::format("{}: {:.0f} % of {}{}", what, 100 * done / total, with_unit(total), rate);
}

ProgressLine::ProgressLine(std::string what)
    : what_(std::move(what)), is_terminal_(isatty(STDERR_FILENO) == 1) {}

ProgressLine::~ProgressLine() {
  if (shown_) std::fputs("\r\x1b[K", stderr);
}

void ProgressLine::show(const FetchProgress& progress) {
  if (!is_terminal_ || progress.done_bytes == 0) return;
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - begin_;
  std::fprintf(stderr, "\r%s\x1b[K", progress_text(what_, progress, time.count()).c_str());
  std::fflush(stderr);
  shown_ = true;
}

}  // namespace cairn::detail
