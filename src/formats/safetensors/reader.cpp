#include "formats/safetensors/reader.hpp"

#include <array>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/throw.hpp"
#include "formats/safetensors/header.hpp"
#include "os/file.hpp"

namespace cairn::detail {
namespace {

constexpr std::uint64_t kLengthBytes = 8;

std::string read_header_text(const File& file) {
  const std::uint64_t size = file.size();
  if (size < kLengthBytes) fail(Errc::corrupt, "it has {} bytes, too few for a header", size);
  std::uint64_t length = 0;
  std::array<std::byte, kLengthBytes> bytes{};
  file.read_at(0, bytes);
  std::memcpy(&length, bytes.data(), sizeof(length));
  if (length > kMostHeaderBytes || length > size - kLengthBytes) {
    fail(Errc::corrupt, "its header claims {} bytes; the file has {}, and {} is the most", length,
         size, kMostHeaderBytes);
  }
  std::string text(length, '\0');
  file.read_at(kLengthBytes, std::as_writable_bytes(std::span(text)));
  return text;
}

/// A JSON object in the order of the file, so that it can be written as it was.
std::string document_of(const std::vector<std::pair<std::string, std::string>>& metadata) {
  std::string text = "{";
  for (const auto& [key, value] : metadata) {
    if (text.size() > 1) text += ',';
    text += nlohmann::json(key).dump() + ":" + nlohmann::json(value).dump();
  }
  return text + "}";
}

}  // namespace

Manifest read_safetensors(const std::filesystem::path& path, TableBytes& table_bytes) {
  const File file = File::open_read(path);
  table_bytes.add_file(file.size());
  const std::string text = read_header_text(file);
  const std::uint64_t data_start = kLengthBytes + text.size();
  SafetensorsHeader header =
      read_safetensors_header(text, data_start, file.size() - data_start, table_bytes);
  Manifest manifest;
  manifest.format = "safetensors";
  manifest.files.push_back({path, file.size(), Access::extents, file.fingerprint()});
  manifest.tensors = TensorTable(std::move(header.tensors));
  if (header.metadata) manifest.documents["__metadata__"] = document_of(*header.metadata);
  return manifest;
}

}  // namespace cairn::detail
