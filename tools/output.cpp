#include "output.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "base/throw.hpp"

namespace cairn::tool {

std::string human_bytes(std::uint64_t bytes) {
  constexpr std::array kUnits{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  // 1023.995 would be printed as 1024.00.
  while (value >= 1023.995 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.2f} {}", value, kUnits[unit]);
}

std::string counted(std::uint64_t n, const std::string& noun) {
  return fmt::format("{} {}{}", n, noun, n == 1 ? "" : "s");
}

namespace {

/// Characters of a UTF-8 text.
std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

}  // namespace

std::string Table::text(const std::string& indent) const {
  std::vector<std::size_t> widths;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width_of(row[c]));
  }
  std::string text;
  for (const auto& row : rows_) {
    text += indent;
    std::size_t gap = 0;  // before the next cell that is not empty
    for (std::size_t c = 0; c < row.size(); ++c) {
      if (!row[c].empty()) {
        text.append(gap, ' ');
        text += row[c];
        gap = 0;
      }
      gap += widths[c] - width_of(row[c]) + 2;
    }
    text += "\n";
  }
  return text;
}

bool write_out(const std::string& text) {
  return std::fwrite(text.data(), 1, text.size(), stdout) == text.size() &&
         std::fflush(stdout) == 0;
}

void print(const Comm& comm, const std::function<std::string()>& make) {
  agree(comm, "print", [&] {
    if (comm.is_root() && !write_out(visible(make()))) {
      detail::fail(Errc::io, "{}", kCannotPrint);
    }
  });
}

std::string visible(std::string_view text) {
  std::string shown;
  shown.reserve(text.size());
  for (std::size_t at = 0; at < text.size(); ++at) {
    const auto byte = static_cast<unsigned char>(text[at]);
    const auto next = static_cast<unsigned char>(at + 1 < text.size() ? text[at + 1] : 0);
    if (byte == 0xc2 && next >= 0x80 && next < 0xa0) {  // U+0080 to U+009F, controls as well
      shown += fmt::format("\\x{:02x}", next);
      ++at;
    } else if ((byte < 0x20 && byte != '\n') || byte == 0x7f) {
      shown += fmt::format("\\x{:02x}", byte);
    } else {
      shown += text[at];
    }
  }
  return shown;
}

std::function<void(std::uint64_t, std::uint64_t)> progress_bar() {
  if (::isatty(STDERR_FILENO) == 0) return {};
  return [shown = -1](std::uint64_t done, std::uint64_t total) mutable {
    constexpr int kWidth = 40;
    const int percent =
        total == 0
            ? 100
            : static_cast<int>(100. * static_cast<double>(done) / static_cast<double>(total));
    if (percent == shown) return;
    shown = percent;
    const auto full = static_cast<std::size_t>(percent * kWidth / 100);
    const std::string line = fmt::format("\r[{:<{}}] {:3}%{}", std::string(full, '='), kWidth,
                                         percent, percent == 100 ? "\n" : "");
    std::fwrite(line.data(), 1, line.size(), stderr);
    std::fflush(stderr);
  };
}

Json number(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "NaN" : "Infinity";
}

std::string to_text(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace cairn::tool
