#include "base/json_text.hpp"

#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

namespace cairn::detail {
namespace {

using Json = nlohmann::ordered_json;
using Members = std::vector<Json::object_t::value_type>;  // what an ordered object is made of

/// Builds a document from what nlohmann's parser tells.
class Builder {
 public:
  bool null() { return add(nullptr); }
  bool boolean(bool value) { return add(value); }
  bool number_integer(std::int64_t value) { return add(value); }
  bool number_unsigned(std::uint64_t value) { return add(value); }
  bool number_float(double value, const std::string&) { return add(value); }
  bool string(std::string& text) { return add(std::move(text)); }
  bool binary(Json::binary_t&) { return false; }
  bool start_object(std::size_t) { return start(/*object=*/true); }
  bool key(std::string& text) {
    open_.back().key = std::move(text);
    return true;
  }
  bool end_object() {
    Open done = std::move(open_.back());
    open_.pop_back();
    Json object = Json::object();
    auto& members = object.get_ref<Json::object_t&>();
    members.reserve(done.members.size());  // growing would copy what is in it
    for (auto& [key, value] : done.members) {
      append_member(object, std::move(key), std::move(value));
    }
    return add(std::move(object));
  }
  bool start_array(std::size_t) { return start(/*object=*/false); }
  bool end_array() {
    Json array(std::move(open_.back().elements));
    open_.pop_back();
    return add(std::move(array));
  }
  bool parse_error(std::size_t, const std::string&, const Json::exception&) { return false; }

  Json take() { return std::move(root_); }

 private:
  struct Open {
    bool object = false;
    std::string key;
    Json::array_t elements;
    std::vector<std::pair<std::string, Json>> members;
    std::unordered_map<std::string, std::size_t> positions;  // of the members, once they are many
  };

  bool start(bool object) {
    open_.emplace_back().object = object;
    return true;
  }

  bool add(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().object) {
      add_member(open_.back(), std::move(value));
    } else {
      open_.back().elements.push_back(std::move(value));
    }
    return true;
  }

  static void add_member(Open& object, Json value) {
    constexpr std::size_t kFew = 16;
    auto& members = object.members;
    std::size_t at = 0;
    if (members.size() < kFew) {
      while (at < members.size() && members[at].first != object.key) ++at;
    } else {
      if (object.positions.empty()) {
        for (const auto& [key, known] : members) object.positions.emplace(key, at++);
      }
      at = object.positions.try_emplace(object.key, members.size()).first->second;
    }
    if (at < members.size()) {
      members[at].second = std::move(value);
    } else {
      members.emplace_back(std::move(object.key), std::move(value));
    }
  }

  Json root_;
  std::vector<Open> open_;
};

}  // namespace

bool is_deeper(std::string_view text, std::size_t most) {
  bool quoted = false;
  std::size_t depth = 0;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (quoted) {
      if (c == '\\') ++at;
      quoted = c != '"';
      continue;
    }
    quoted = c == '"';
    if (c == '[' || c == '{') ++depth;
    if ((c == ']' || c == '}') && depth > 0) --depth;
    if (depth > most) return true;
  }
  return false;
}

Json parse_ordered(std::string_view text) {
  Builder builder;
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) {
    return Json(nlohmann::detail::value_t::discarded);
  }
  return builder.take();
}

void append_member(Json& object, std::string key, Json value) {
  static_cast<Members&>(object.get_ref<Json::object_t&>())
      .emplace_back(std::move(key), std::move(value));
}

}  // namespace cairn::detail
