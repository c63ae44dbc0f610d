#include "json_out.hpp"

#include "base/json_text.hpp"
#include "base/throw.hpp"

namespace cairn::tool {
namespace {

constexpr std::size_t kWriteBytes = 64 << 10;

/// Where the element that starts at `at` ends.
std::size_t end_of_element(std::string_view list, std::size_t at) {
  std::size_t depth = 0;
  bool in_text = false;
  for (; at < list.size(); ++at) {
    const char c = list[at];
    if (in_text) {
      if (c == '\\') ++at;
      in_text = c != '"';
    } else if (c == '"') {
      in_text = true;
    } else if (c == '[' || c == '{') {
      ++depth;
    } else if (depth == 0 && (c == ',' || c == ']')) {
      break;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return at;
}

}  // namespace

void JsonOut::begin_entry() {
  if (pending_.size() >= kWriteBytes) write();
  if (levels_.empty()) return;
  if (!levels_.back().empty) pending_ += ',';
  levels_.back().empty = false;
  pending_ += '\n';
  pending_.append(2 * levels_.size(), ' ');
}

void JsonOut::put_name(std::string_view name) {
  put(name);
  pending_ += ": ";
}

void JsonOut::put(const Json& value) {
  const std::string text = to_text(value);
  const std::string_view lines = std::string_view(text).substr(0, text.size() - 1);
  // Line ends within texts are escaped.
  for (std::size_t at = 0; at <= lines.size();) {
    const std::size_t end = std::min(lines.find('\n', at), lines.size());
    pending_ += lines.substr(at, end - at);
    if (end == lines.size()) return;
    pending_ += '\n';
    pending_.append(2 * levels_.size(), ' ');
    at = end + 1;
  }
}

void JsonOut::open(char bracket) {
  begin_entry();
  pending_ += bracket;
  levels_.push_back({bracket});
}

void JsonOut::open(std::string_view name, char bracket) {
  begin_entry();
  put_name(name);
  pending_ += bracket;
  levels_.push_back({bracket});
}

void JsonOut::close() {
  const Level level = levels_.back();
  levels_.pop_back();
  if (!level.empty) {
    pending_ += '\n';
    pending_.append(2 * levels_.size(), ' ');
  }
  pending_ += level.bracket == '{' ? '}' : ']';
}

void JsonOut::add(const Json& element) {
  begin_entry();
  put(element);
}

void JsonOut::add(std::string_view name, const Json& member) {
  begin_entry();
  put_name(name);
  put(member);
}

void JsonOut::finish() {
  pending_ += '\n';
  write();
}

void JsonOut::write() {
  if (!write_out(pending_)) detail::fail(Errc::io, "{}", kCannotPrint);
  pending_.clear();
}

void for_each_element(std::string_view list, const std::function<void(const Json&)>& element) {
  for (std::size_t at = 1; at + 1 < list.size();) {
    const std::size_t end = end_of_element(list, at);
    element(detail::parse_ordered(list.substr(at, end - at)));
    at = end + 1;
  }
}

void print_json(const Comm& comm, const std::function<void(JsonOut&)>& make) {
  agree(comm, "print", [&] {
    if (!comm.is_root()) return;
    JsonOut out;
    make(out);
    out.finish();
  });
}

}  // namespace cairn::tool
