#include "pipeline/document.hpp"

#include <yaml-cpp/yaml.h>

#include <system_error>

#include "os/file.hpp"
#include "pipeline/interpolation.hpp"
#include "pipeline/legacy/keys.hpp"
#include "pipeline/rules.hpp"

namespace cairn::detail {
namespace {

constexpr std::uint64_t kMostBytes = 16 << 20;

void emit(YAML::Emitter& out, const nlohmann::ordered_json& json) {
  if (json.is_object()) {
    out << YAML::BeginMap;
    for (const auto& [key, value] : json.items()) {
      out << YAML::Key << key << YAML::Value;
      emit(out, value);
    }
    out << YAML::EndMap;
  } else if (json.is_array()) {
    out << YAML::BeginSeq;
    for (const auto& value : json) emit(out, value);
    out << YAML::EndSeq;
  } else if (json.is_string()) {
    out << json.get<std::string>();
  } else {
    out << YAML::Load(json.dump());
  }
}

}  // namespace

std::string read_configuration(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    fail(Errc::usage, "the configuration '{}' is a directory", path.string());
  }
  if (!std::filesystem::exists(path, ignored)) {
    fail(Errc::not_found, "the configuration '{}' does not exist; check the path", path.string());
  }
  const File file = File::open_read(path);
  const std::uint64_t bytes = file.size();
  if (bytes > kMostBytes) {
    fail(Errc::unsafe, "the configuration '{}' has {} bytes; is it a checkpoint?", path.string(),
         bytes);
  }
  std::string text(bytes, '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

Value checked_document(const std::string& yaml, const std::string& origin,
                       std::vector<std::string>* strangers) {
  Value document = parse_yaml(yaml, origin);
  if (document.type == Value::Type::null) document.type = Value::Type::mapping;
  const Place place{origin, ""};
  legacy::refuse_legacy_keys(document, place);
  interpolate(document, origin);
  check_block(document, kDocument, place, strangers);
  return document;
}

std::string to_yaml(const nlohmann::ordered_json& json) {
  YAML::Emitter out;
  emit(out, json);
  return std::string(out.c_str()) + "\n";
}

}  // namespace cairn::detail
