#include "formats/safetensors/writer.hpp"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <tuple>

#include "base/throw.hpp"
#include "formats/safetensors/dtypes.hpp"
#include "formats/safetensors/reader.hpp"

namespace cairn::detail {
namespace {

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::strict);
}

/// Position in the format's own list of dtypes, after which its library sorts.
std::size_t order_of(const TensorEntry& tensor) {
  const auto row = std::find_if(kSafetensorsDtypes.begin(), kSafetensorsDtypes.end(),
                                [&](const auto& known) { return known.first == tensor.dtype; });
  if (row == kSafetensorsDtypes.end()) {
    fail(Errc::unsupported,
         "tensor '{}' is {}, which safetensors cannot hold: convert it, or leave it out",
         tensor.name, to_string(tensor.dtype));
  }
  return static_cast<std::size_t>(row - kSafetensorsDtypes.begin());
}

std::string entry_text(const TensorEntry& tensor, std::uint64_t begin) {
  std::string text = fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":[", quoted(tensor.name),
                                 kSafetensorsDtypes[order_of(tensor)].second);
  for (std::size_t d = 0; d < tensor.shape.size(); ++d) {
    text += fmt::format("{}{}", d == 0 ? "" : ",", tensor.shape[d]);
  }
  return text + fmt::format("],\"data_offsets\":[{},{}]}}", begin, begin + tensor.bytes());
}

}  // namespace

SafetensorsLayout lay_out_safetensors(std::span<const TensorEntry> tensors,
                                      const std::string& metadata) {
  std::vector<std::size_t> dtype(tensors.size());
  std::transform(tensors.begin(), tensors.end(), dtype.begin(), order_of);
  SafetensorsLayout layout;
  layout.positions.resize(tensors.size());
  std::iota(layout.positions.begin(), layout.positions.end(), 0);
  std::sort(layout.positions.begin(), layout.positions.end(), [&](std::size_t a, std::size_t b) {
    return std::tie(dtype[a], tensors[a].name) < std::tie(dtype[b], tensors[b].name);
  });
  std::string text = "{";
  if (!metadata.empty()) text += "\"__metadata__\":" + metadata;
  std::uint64_t end = 0;
  for (const std::size_t t : layout.positions) {
    if (text.size() > 1) text += ",";
    text += entry_text(tensors[t], end);
    TensorEntry tensor;
    tensor.name = tensors[t].name;
    tensor.dtype = tensors[t].dtype;
    tensor.shape = tensors[t].shape;
    tensor.offset = end;
    end += tensor.bytes();
    layout.tensors.push_back(std::move(tensor));
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMostHeaderBytes) {
    fail(Errc::unsupported, "the header would have {} bytes; safetensors allows {}", text.size(),
         kMostHeaderBytes);
  }
  const std::uint64_t length = text.size();
  layout.head.resize(sizeof(length));
  std::memcpy(layout.head.data(), &length, sizeof(length));
  layout.head += text;
  for (TensorEntry& tensor : layout.tensors) tensor.offset += layout.head.size();
  layout.file_bytes = layout.head.size() + end;
  return layout;
}

}  // namespace cairn::detail
