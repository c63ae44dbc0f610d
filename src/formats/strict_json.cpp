#include "formats/strict_json.hpp"

#include "base/throw.hpp"

namespace cairn::detail {
namespace {

/// nlohmann's parser calls this; it keeps no stack of its own for what is nested.
class Events {
 public:
  explicit Events(JsonReader& reader) : reader_(reader) {}

  bool null() {
    return told([&] { reader_.on_word("null"); });
  }
  bool boolean(bool value) {
    return told([&] { reader_.on_word(value ? "true" : "false"); });
  }
  bool number_integer(std::int64_t value) {
    return told([&] { reader_.on_number(static_cast<double>(value)); });
  }
  bool number_unsigned(std::uint64_t value) {
    return told([&] { reader_.on_natural(value); });
  }
  bool number_float(double value, const std::string&) {
    return told([&] { reader_.on_number(value); });
  }
  bool string(std::string& text) {
    return told([&] { reader_.on_text(text); });
  }
  bool binary(nlohmann::json::binary_t&) { return false; }
  bool start_object(std::size_t) {
    return told([&] { reader_.on_object(); });
  }
  bool key(std::string& text) {
    return told([&] { reader_.on_key(text); });
  }
  bool end_object() {
    return told([&] { reader_.on_object_end(); });
  }
  bool start_array(std::size_t) {
    return told([&] { reader_.on_array(); });
  }
  bool end_array() {
    return told([&] { reader_.on_array_end(); });
  }
  // The library's own text quotes what it read, however long that is.
  bool parse_error(std::size_t at, const std::string&, const nlohmann::json::exception&) {
    fail(Errc::corrupt, "it is no JSON (see byte {} of the text)", at);
  }

 private:
  template <class F>
  static bool told(F&& f) {
    f();
    return true;
  }

  JsonReader& reader_;
};

}  // namespace

void JsonReader::refuse(std::string_view what) const {
  fail(Errc::corrupt, "{} holds {}, which does not belong there", place(), what);
}

void read_json(std::string_view text, JsonReader& reader) {
  // The parser takes a NUL for the end of the text.
  if (const auto at = text.find('\0'); at != std::string_view::npos) {
    fail(Errc::corrupt, "it is no JSON (see byte {} of the text)", at);
  }
  Events events(reader);
  nlohmann::json::sax_parse(text.begin(), text.end(), &events);
}

}  // namespace cairn::detail
