#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace cairn::detail {

/// Takes the parts of a JSON text one by one, so that nothing is built that nobody wants. Each part
/// is refused (corrupt) unless a reader overrides it.
class JsonReader {
 public:
  virtual ~JsonReader() = default;

  virtual void on_object() { refuse("an object"); }
  virtual void on_object_end() {}
  virtual void on_array() { refuse("a list"); }
  virtual void on_array_end() {}
  virtual void on_key(std::string&) {}
  virtual void on_text(std::string&) { refuse("a text"); }
  virtual void on_natural(std::uint64_t) { refuse("a number"); }
  /// Negative, or no integer.
  virtual void on_number(double) { refuse("a number that is negative or no integer"); }
  /// true, false or null
  virtual void on_word(std::string_view word) { refuse(word); }

 protected:
  /// Where in the text it is, for errors: "tensor 'a'".
  virtual std::string place() const = 0;
  [[noreturn]] void refuse(std::string_view what) const;
};

/// Reads a text that must be one JSON object, UTF-8, without anything behind it. Errors: corrupt,
/// and what the reader throws.
void read_json(std::string_view text, JsonReader& reader);

}  // namespace cairn::detail
