#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace cairn::detail::migrations {

using Json = nlohmann::ordered_json;

/// A place in the documents, as step files write it: "training.hyper_parameters.config": the
/// document, and keys or positions in it. "\." is a dot in a key. A value; all members are Local.
class DocumentPlace {
 public:
  /// Errors: usage.
  explicit DocumentPlace(std::string text);

  const std::string& text() const { return text_; }
  const std::string& document() const { return keys_.front(); }
  /// Without the document's name.
  std::vector<std::string> keys() const { return {keys_.begin() + 1, keys_.end()}; }
  bool is_document() const { return keys_.size() == 1; }
  /// The value in the document, or nullptr.
  Json* find(Json& document) const { return find(document, keys_.size()); }
  /// What the last key is a key of, or nullptr.
  Json* find_parent(Json& document) const { return find(document, keys_.size() - 1); }
  const std::string& last() const { return keys_.back(); }

 private:
  Json* find(Json& document, std::size_t end) const;
  std::string text_;
  std::vector<std::string> keys_;
};

/// The position that a key means in a list, or that list's size.
std::size_t position_of(const Json& list, const std::string& key);

}  // namespace cairn::detail::migrations
