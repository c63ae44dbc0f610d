#include "pipeline/legacy/references.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "pipeline/legacy/keys.hpp"

namespace cairn::detail::legacy {
namespace {

constexpr int kMostSteps = 32;
constexpr std::size_t kMostBytes = 1 << 16;
constexpr std::string_view kSelect = "oc.select:";

/// Where the "}" of the "${" at `at` stands; npos: there is none.
std::size_t closing(std::string_view text, std::size_t at) {
  int depth = 0;
  for (std::size_t i = at; i < text.size(); ++i) {
    if (text.compare(i, 2, "${") == 0) {
      ++depth;
    } else if (text[i] == '}' && depth > 0 && --depth == 0) {
      return i;
    }
  }
  return std::string_view::npos;
}

/// "a[0].b" as "a.0.b", from the document; relative references begin at `holder`.
std::string absolute(std::string_view reference, const std::string& holder) {
  std::string path;
  if (reference.starts_with('.')) {
    path = holder;
    reference.remove_prefix(1);
    for (; reference.starts_with('.'); reference.remove_prefix(1)) path = parent_of(path);
  }
  std::string rest;
  for (const char c : reference) {
    if (c == '[') rest += '.';
    if (c != '[' && c != ']') rest += c;
  }
  return path.empty() ? rest : rest.empty() ? path : path + "." + rest;
}

class Replacer {
 public:
  Replacer(const std::string& holder, const Replacement& replacement, const Replaced& replaced)
      : holder_(holder), replacement_(replacement), replaced_(replaced) {}

  std::string run(std::string_view text, int level = 0) const {
    std::string result;
    std::size_t at = 0;
    while (at < text.size()) {
      const std::size_t begin = text.find("${", at);
      const std::size_t end = begin == std::string_view::npos ? begin : closing(text, begin);
      if (end == std::string_view::npos || level > kMostSteps) break;
      result += text.substr(at, begin - at);
      std::size_t slashes = 0;
      while (slashes < begin && text[begin - 1 - slashes] == '\\') ++slashes;
      const std::string_view whole = text.substr(begin, end + 1 - begin);
      result += slashes % 2 == 1 ? std::string(whole) : replace(whole, level);
      at = end + 1;
    }
    return result.append(text.substr(std::min(at, text.size())));
  }

 private:
  std::string replace(std::string_view whole, int level) const {
    const std::string_view inside = whole.substr(2, whole.size() - 3);
    if (inside.find("${") != std::string_view::npos) {
      return "${" + run(inside, level + 1) + "}";
    }
    std::string_view reference = trimmed(inside);
    std::string_view rest;
    const bool select = reference.starts_with(kSelect);
    if (select) {
      reference.remove_prefix(kSelect.size());
      const auto comma = std::min(reference.find(','), reference.size());
      rest = reference.substr(comma);
      reference = trimmed(reference.substr(0, comma));
    } else if (reference.find(':') != std::string_view::npos) {
      return std::string(whole);
    }
    if (reference.empty()) return std::string(whole);
    auto made = replacement_(absolute(reference, holder_));
    if (!made) return std::string(whole);
    if (select && made->starts_with("${")) {
      *made =
          "${" + std::string(kSelect) + made->substr(2, made->size() - 3) + std::string(rest) + "}";
    }
    if (replaced_ && *made != whole) replaced_(std::string(whole), *made);
    return *made;
  }

  const std::string& holder_;
  const Replacement& replacement_;
  const Replaced& replaced_;
};

/// `steps` bounds the depth and `budget` the work: references can double at each step.
std::string fill_in(const Value& document, std::string_view text, const std::string& holder,
                    int steps, int& budget) {
  return replace_references(
      text, holder, [&](const std::string& path) -> std::optional<std::string> {
        const Value* value = find_path(document, path);
        if (steps == 0 || --budget < 0 || value == nullptr || value->type != Value::Type::scalar ||
            value->text == "\?\?\?") {
          return std::nullopt;
        }
        std::string filled = fill_in(document, value->text, parent_of(path), steps - 1, budget);
        if (filled.size() > kMostBytes) return std::nullopt;
        return filled;
      });
}

}  // namespace

std::string parent_of(std::string_view path) {
  const auto dot = path.rfind('.');
  return dot == std::string_view::npos ? "" : std::string(path.substr(0, dot));
}

std::string replace_references(std::string_view text, const std::string& holder,
                               const Replacement& replacement, const Replaced& replaced) {
  return Replacer(holder, replacement, replaced).run(text);
}

std::string filled_in(const Value& document, std::string_view text, const std::string& holder) {
  int budget = 1000;
  return fill_in(document, text, holder, 8, budget);
}

bool begins_unknown(std::string_view text) { return text.starts_with("${"); }

}  // namespace cairn::detail::legacy
