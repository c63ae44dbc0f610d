#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cairn/comm.hpp"

namespace cairn::tool {

using Json = nlohmann::ordered_json;

/// "17 B", "4.00 KiB", "1.52 GiB"
std::string human_bytes(std::uint64_t bytes);
/// "1 tensor", "2 tensors"
std::string counted(std::uint64_t n, const std::string& noun);

/// Lines of columns, each as wide as its widest cell, but at most 120: longer ones stand out.
class Table {
 public:
  void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.empty(); }
  std::string text(const std::string& indent = "") const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

inline constexpr std::string_view kCannotPrint =
    "cannot write the result to standard output: it is closed or full";
/// Whether all of the text reached stdout. Local.
bool write_out(const std::string& text);
/// Rank 0 makes the text and writes it to stdout, made visible(). Collective. Errors: io (stdout is
/// closed or full).
void print(const Comm& comm, const std::function<std::string()>& make);
/// The text with \\x1b and the like for control characters other than line ends, and for bytes that
/// are no UTF-8: what a file says, or is called, must not steer a terminal. Local.
std::string visible(std::string_view text);
/// Draws on stderr how far this process is (done, total), where that is a terminal; otherwise
/// empty.
std::function<void(std::uint64_t, std::uint64_t)> progress_bar();
/// Text that is no UTF-8 is made so, and control characters are escaped: all that visible() changes
/// is changed already, so that the result stays JSON. Local.
std::string to_text(const Json& json);

}  // namespace cairn::tool
