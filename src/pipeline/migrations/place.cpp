#include "pipeline/migrations/place.hpp"

#include <charconv>
#include <utility>

#include "base/throw.hpp"

namespace cairn::detail::migrations {

DocumentPlace::DocumentPlace(std::string text) : text_(std::move(text)) {
  keys_.emplace_back();
  for (std::size_t i = 0; i < text_.size(); ++i) {
    if (text_[i] == '\\' && i + 1 < text_.size() && text_[i + 1] == '.') {
      keys_.back() += text_[++i];
    } else if (text_[i] == '.') {
      keys_.emplace_back();
    } else {
      keys_.back() += text_[i];
    }
  }
  for (const std::string& key : keys_) {
    if (key.empty()) fail(Errc::usage, "'{}' is no place in a document: a key is empty", text_);
  }
  if (document() == "migrations" || document().find('/') != std::string::npos) {
    fail(Errc::usage, "'{}' is no document that steps may change", document());
  }
}

std::size_t position_of(const Json& list, const std::string& key) {
  std::size_t position = 0;
  const auto read = std::from_chars(key.data(), key.data() + key.size(), position);
  const bool whole = read.ec == std::errc() && read.ptr == key.data() + key.size();
  return whole && position < list.size() ? position : list.size();
}

Json* DocumentPlace::find(Json& document, std::size_t end) const {
  Json* at = &document;
  for (std::size_t i = 1; i < end; ++i) {
    if (at->is_object()) {
      const auto found = at->find(keys_[i]);
      if (found == at->end()) return nullptr;
      at = &*found;
    } else if (at->is_array()) {
      const std::size_t position = position_of(*at, keys_[i]);
      if (position == at->size()) return nullptr;
      at = &(*at)[position];
    } else {
      return nullptr;
    }
  }
  return at;
}

}  // namespace cairn::detail::migrations
