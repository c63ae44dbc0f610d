#include "pipeline/interpolation.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <map>
#include <optional>

#include "base/text.hpp"
#include "pipeline/rules.hpp"
#include "pipeline/secrets.hpp"

namespace cairn::detail {
namespace {

constexpr std::size_t kMostBytes = 1 << 20;

/// A value with the mappings and lists around it, outermost first.
using Chain = std::vector<Value*>;

struct Extent {
  std::size_t nodes = 0;
  std::size_t bytes = 0;  ///< of keys and texts

  void add(const Value& value) {
    ++nodes;
    bytes += value.text.size();
    for (const Value& item : value.items) add(item);
    for (const auto& [key, child] : value.entries) {
      bytes += key.size();
      add(child);
    }
  }
  bool is_too_large() const { return nodes > kMostNodes || bytes > kMostTextBytes; }
};

class Interpolator {
 public:
  Interpolator(Value& root, const std::string& origin) : root_(root), origin_(origin) {
    extent_.add(root);
  }

  void resolve_all() {
    Chain chain{&root_};
    for (auto& [key, value] : root_.entries) {
      // Other programs have resolvers, and variables, of their own.
      if (is_foreign_section(key) && !key.starts_with("x-")) continue;
      chain.push_back(&value);
      resolve(chain, Place{origin_, key});
      chain.pop_back();
    }
  }

 private:
  enum class State { open, done };

  void resolve(Chain& chain, const Place& place) {
    Value& value = *chain.back();
    if (const auto at = states_.find(&value); at != states_.end()) {
      if (at->second == State::open && value.type == Value::Type::scalar) {
        place.refuse(value, "refers to itself, directly or through others");
      }
      return;
    }
    if (++level_ > kMostLevels) place.refuse(value, "is nested too deeply", Errc::unsafe);
    states_[&value] = State::open;
    if (value.type == Value::Type::scalar) resolve_scalar(chain, place);
    if (value.type == Value::Type::list) {
      for (std::size_t i = 0; i < value.items.size(); ++i) {
        chain.push_back(&value.items[i]);
        resolve(chain, place.at(i));
        chain.pop_back();
      }
    }
    for (auto& [key, child] : value.entries) {
      chain.push_back(&child);
      resolve(chain, place.at(key));
      chain.pop_back();
    }
    states_[&value] = State::done;
    --level_;
  }

  void resolve_scalar(Chain& chain, const Place& place) {
    Value& value = *chain.back();
    if (value.text.find("${") == std::string::npos) return;
    const std::string text = value.text;
    std::size_t at = 0;
    Value result;
    result.type = Value::Type::scalar;
    bool first = true;
    while (at < text.size()) {
      // Backslashes count only before "${": pairs are one each, an odd one makes it plain text.
      std::size_t slashes = 0;
      while (at + slashes < text.size() && text[at + slashes] == '\\') ++slashes;
      if (text.compare(at + slashes, 2, "${") != 0) {
        const std::size_t count = std::max<std::size_t>(slashes, 1);
        result.text.append(text, at, count);
        at += count;
      } else {
        result.text.append(slashes / 2, '\\');
        at += slashes + 2;
        if (slashes % 2 == 1) {
          result.text += "${";
        } else {
          Value part = evaluate(text, at, chain, place);
          const bool alone = first && slashes == 0 && at == text.size();
          if (alone) {
            replace(chain, std::move(part));
            return;
          }
          append(result, part, value, place);
        }
      }
      first = false;
      if (result.text.size() > kMostBytes) place.refuse(value, "is too large", Errc::unsafe);
    }
    replace(chain, std::move(result));
  }

  /// Puts the result in the place of an interpolation.
  void replace(Chain& chain, Value result) {
    Value& value = *chain.back();
    const int line = value.line;
    value = std::move(result);
    value.line = line;
    mark_done(value);
  }

  // Everything in a result is resolved already; its nodes may lie where others have been.
  void mark_done(Value& value) {
    states_[&value] = State::done;
    for (Value& item : value.items) mark_done(item);
    for (auto& entry : value.entries) mark_done(entry.second);
  }

  void append(Value& text, const Value& part, const Value& at, const Place& place) {
    if (part.type == Value::Type::list || part.type == Value::Type::mapping) {
      place.refuse(at, "puts a list or a mapping into a text");
    }
    if (part.type == Value::Type::scalar && part.text == "\?\?\?") {
      place.refuse(at, "puts a value into a text that is '\?\?\?' still: give it one");
    }
    text.text += part.type == Value::Type::null ? "null" : part.text;
    text.secret = text.secret || part.secret;
  }

  /// The value of the interpolation whose inside begins at `at`; `at` goes behind its "}".
  Value evaluate(const std::string& text, std::size_t& at, Chain& chain, const Place& place) {
    if (++level_ > kMostLevels) place.refuse(*chain.back(), "is nested too deeply", Errc::unsafe);
    std::vector<Value> parts{scalar("")};  // reference or resolver, then its arguments
    bool has_colon = false;
    char quote = 0;
    for (;; ++at) {
      if (at >= text.size()) place.refuse(*chain.back(), "holds a '${' without its '}'");
      const char c = text[at];
      Value& part = parts.back();
      if (quote != 0) {
        if (c == quote) {
          quote = 0;
        } else {
          part.text += c;
        }
      } else if (c == '$' && text.compare(at, 2, "${") == 0) {
        at += 2;
        const Value inner = evaluate(text, at, chain, place);
        --at;
        const bool alone = trimmed(part.text).empty();
        append(part, inner, *chain.back(), place);
        if (alone && inner.type == Value::Type::null) part = Value{};
      } else if (c == '}') {
        ++at;
        break;
      } else if (has_colon && (c == '\'' || c == '"') && trimmed(part.text).empty()) {
        part.text.clear();
        quote = c;
        part.line = -1;  // quoted: blanks count, and null is a word
      } else if (c == ':' && !has_colon) {
        has_colon = true;
        parts.push_back(scalar(""));
      } else if (c == ',' && has_colon) {
        parts.push_back(scalar(""));
      } else {
        part.text += c;
      }
    }
    for (Value& part : parts) {
      if (part.line != -1) part.text = std::string(trimmed(part.text));
      if (part.line != -1 && part.text == "null") part.type = Value::Type::null;
    }
    Value result =
        has_colon ? call(parts, chain, place) : refer(parts[0].text, chain, place, nullptr);
    --level_;
    return result;
  }

  static Value scalar(std::string text) {
    Value value;
    value.type = Value::Type::scalar;
    value.text = std::move(text);
    return value;
  }

  Value call(const std::vector<Value>& parts, Chain& chain, const Place& place) {
    const std::string& resolver = parts[0].text;
    const std::string& argument = parts[1].text;
    const Value* fallback = parts.size() > 2 ? &parts[2] : nullptr;
    if (parts.size() > (resolver == "oc.decode" ? 2U : 3U)) {
      place.refuse(*chain.back(), fmt::format("gives '{}' too many arguments", resolver));
    }
    if (resolver == "oc.decode") return parts[1];
    if (resolver == "oc.select") return refer(argument, chain, place, fallback);
    if (resolver == "oc.env") {
      if (const char* text = std::getenv(argument.c_str())) {
        Value value = scalar(text);
        value.secret = sounds_secret(argument);
        return copied(value, chain, place);
      }
      if (fallback != nullptr) return *fallback;
      place.refuse(*chain.back(),
                   fmt::format("needs the environment variable '{0}', which is not set; set it, or "
                               "write ${{oc.env:{0},default}}",
                               argument));
    }
    place.refuse(
        *chain.back(),
        fmt::format("uses the resolver '{}'; there are oc.env, oc.select and oc.decode", resolver));
  }

  /// The resolved value that a reference names.
  Value refer(const std::string& reference, Chain& chain, const Place& place,
              const Value* fallback) {
    const auto missing = [&]() -> Value {
      if (fallback != nullptr) return *fallback;
      place.refuse(*chain.back(), fmt::format("refers to '{}', which does not exist", reference));
    };
    std::string_view rest = reference;
    Chain target{&root_};
    Place target_place{origin_, ""};
    if (rest.starts_with('.')) {
      std::size_t dots = 0;
      while (dots < rest.size() && rest[dots] == '.') ++dots;
      rest.remove_prefix(dots);
      if (dots >= chain.size()) return missing();
      target.assign(chain.begin(), chain.end() - static_cast<std::ptrdiff_t>(dots));
    }
    if (rest.empty()) return missing();
    while (!rest.empty()) {
      const auto end = rest.find_first_of(".[]");
      const std::string_view name = rest.substr(0, end);
      rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
      if (name.empty()) continue;  // between "]" and "."
      // What is on the way may itself be an interpolation.
      if (target.back()->type == Value::Type::scalar) resolve(target, target_place);
      Value* next = child(*target.back(), name);
      if (next == nullptr) return missing();
      target.push_back(next);
      target_place = target_place.at(name);
    }
    // A value inside the block it refers to would hold itself.
    if (std::find(chain.begin(), chain.end(), target.back()) != chain.end()) {
      place.refuse(*chain.back(), "refers to itself, directly or through others");
    }
    const auto state = states_.find(target.back());
    if (state != states_.end() && state->second == State::open) {
      place.refuse(*chain.back(), "refers to itself, directly or through others");
    }
    resolve(target, target_place);
    return copied(*target.back(), chain, place);
  }

  /// What an interpolation brings, counted before it is copied.
  Value copied(const Value& value, const Chain& chain, const Place& place) {
    extent_.add(value);
    if (extent_.is_too_large()) place.refuse(*chain.back(), "is too large", Errc::unsafe);
    return value;
  }

  static Value* child(Value& value, std::string_view name) {
    if (value.type == Value::Type::mapping) return value.find(name);
    if (value.type != Value::Type::list) return nullptr;
    std::size_t index = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
    const bool whole = error == std::errc{} && end == name.data() + name.size();
    return whole && index < value.items.size() ? &value.items[index] : nullptr;
  }

  Value& root_;
  const std::string& origin_;
  std::map<const Value*, State> states_;
  Extent extent_;  // of all, expanded
  int level_ = 0;
};

}  // namespace

void interpolate(Value& document, const std::string& origin) {
  Interpolator(document, origin).resolve_all();
}

}  // namespace cairn::detail
