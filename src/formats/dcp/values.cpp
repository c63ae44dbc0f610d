#include "formats/dcp/values.hpp"

#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "base/throw.hpp"
#include "formats/dcp/facts.hpp"
#include "formats/torch/archive.hpp"
#include "formats/torch/facts.hpp"
#include "formats/torch/state_file.hpp"
#include "formats/torch/values.hpp"

namespace cairn::detail::dcp {
namespace {

using pickle::Graph;
using pickle::Kind;
using pickle::Ref;
using torch::Json;

constexpr std::uint64_t kMostValueBytes = 1 << 20;
constexpr std::uint64_t kMostBytes = 16 << 20;  // of the pickles of all
// What goes into one JSON tree, which takes ten times the memory.
constexpr std::size_t kMostRemembered = 100'000;
constexpr std::uint64_t kMostRememberedBytes = 2 << 20;
constexpr std::size_t kMostDepth = 100;

bool is_zip(const File& file, const Stored& stored) {
  std::array<char, 4> start{};
  if (stored.bytes < start.size()) return false;
  file.read_at(stored.offset, std::as_writable_bytes(std::span(start)));
  return std::string_view(start.data(), start.size()) == "PK\x03\x04";
}

/// Flattened, as PyTorch names what it saves.
std::string dotted(const std::vector<PathKey>& path) {
  std::string name;
  for (const PathKey& key : path) {
    if (!name.empty()) name += '.';
    const auto* text = std::get_if<std::string>(&key);
    name += text != nullptr ? *text : std::to_string(std::get<std::int64_t>(key));
  }
  return name;
}

/// Puts the elements of one JSON list behind those of another, whose last bracket is missing yet.
void append(std::string& all, std::string_view list) {
  list = list.substr(1, list.size() - 2);
  if (list.empty()) return;
  all += all.empty() ? '[' : ',';
  all += list;
}

std::string closed(std::string list) { return list.empty() ? "[]" : std::move(list += ']'); }

}  // namespace

const DataFiles::Open& Values::open(const ValueMetadata& value) {
  const DataFiles::Open& data = files_.open(value.stored.file);
  if (value.stored.offset > data.bytes || value.stored.bytes > data.bytes - value.stored.offset) {
    fail(Errc::corrupt, "it lies behind the end of '{}'", value.stored.file);
  }
  return data;
}

void Values::add(const ValueMetadata& value) {
  try {
    if (read(value)) return;
  } catch (const Error& error) {
    if (error.code() == Errc::io) throw;
    if (error.code() != Errc::unsupported) {
      fail(error.code(), "the value '{}': {}", value.name, error.what());
    }
    warnings_.insert(fmt::format("the value '{}' is not read: {}", value.name, error.what()));
  }
  named_.push_back(value.name);
}

/// False where it is not to be read.
bool Values::read(const ValueMetadata& value) {
  const DataFiles::Open& data = open(value);
  const Stored& stored = value.stored;
  if (value.transformed || stored.bytes > kMostValueBytes || !is_zip(data.file, stored)) {
    return false;
  }
  const torch::Archive archive = torch::Archive::open(data.file, stored.offset, stored.bytes);
  const std::uint64_t bytes = archive.find("data.pkl")->unpacked_bytes;
  if (bytes > kMostValueBytes || bytes > kMostBytes - read_bytes_) return false;
  read_bytes_ += bytes;
  if (std::string warning = archive.missing_checksums(); !warning.empty()) warn(std::move(warning));
  const Graph graph = archive.read_pickle(data.file);
  torch::Storages storages = torch::storages_of(graph);
  archive.place(storages);
  std::vector<TensorEntry> tensors = take(graph, storages, data.number, value.path);
  const bool at_root = value.path.empty();
  if (at_root || tensors.empty()) remember(graph, value.path);
  if (tensors.empty()) return true;
  for (TensorEntry& tensor : tensors) {
    if (!at_root) tensor.name = dotted(tensor.path);
    manifest_.tensors.push_back(std::move(tensor));
  }
  for (Checksum checksum : archive.checksums()) {
    checksum.file = data.number;
    manifest_.checksums.push_back(checksum);
  }
  for (Checksum place : archive.unchecked()) {
    place.file = data.number;
    unchecked_.push_back(place);
  }
  return true;
}

void Values::add_file(const std::filesystem::path& path) {
  try {
    const torch::StateFile file(path, manifest_, table_bytes_);
    const Graph& graph = file.graph();
    for (TensorEntry& tensor : take(graph, file.storages(), file.number(), {})) {
      manifest_.tensors.push_back(std::move(tensor));
    }
    remember(graph, {});
  } catch (const Error& error) {
    if (error.code() != Errc::unsupported) throw;
    warnings_.insert(fmt::format("{}: what is in it does not come along", error.what()));
  }
}

/// Takes in all but the tensors, which it returns.
std::vector<TensorEntry> Values::take(const Graph& graph, const torch::Storages& storages,
                                      std::uint32_t file, const std::vector<PathKey>& path) {
  torch::Contents contents = torch::walk(graph, storages, table_bytes_, budget_, {path, {}});
  append(objects_, contents.objects);
  append(opaque_, contents.opaque);
  append(arrays_, contents.arrays);
  append(containers_, contents.containers);
  warnings_.insert(contents.warnings.begin(), contents.warnings.end());
  for (TensorEntry& tensor : contents.tensors) {
    for (Extent& extent : tensor.extents) extent.file = file;
  }
  return std::move(contents.tensors);
}

/// Keeps a value, or at the root those in a dict, for the documents that tell what the training
/// was.
void Values::remember(const Graph& graph, const std::vector<PathKey>& path) {
  if (!path.empty()) return remember(graph, graph.root(), path);
  const auto pairs = graph.pairs(graph.root());
  for (std::size_t i = 0; i < pairs.size(); i += 2) {
    if (graph.kind(pairs[i]) != Kind::text) continue;
    remember(graph, pairs[i + 1], {std::string(graph.text(pairs[i]))});
  }
}

void Values::remember(const Graph& graph, Ref ref, const std::vector<PathKey>& path) {
  if (remembered_ == kMostRemembered || remembered_bytes_ > kMostRememberedBytes ||
      path.size() > kMostDepth) {
    return;
  }
  Json json = torch::plain_json(graph, ref, path, torch::kFewPlainValues);
  ++remembered_;
  remembered_bytes_ += json.dump(-1, ' ', false, Json::error_handler_t::replace).size();
  if (remembered_bytes_ > kMostRememberedBytes) return;
  try {
    tree_.add_value(path, std::move(json));
  } catch (const Error& error) {
    fail(Errc::corrupt, "{}", error.what());
  }
}

bool Values::are_alike(const ValueMetadata& a, const ValueMetadata& b) {
  if (a.stored.bytes != b.stored.bytes || a.stored.bytes > kMostValueBytes) return false;
  const auto bytes_of = [&](const ValueMetadata& value) {
    std::vector<std::byte> bytes(value.stored.bytes);
    open(value).file.read_at(value.stored.offset, bytes);
    return bytes;
  };
  return bytes_of(a) == bytes_of(b);
}

void Values::finish() {
  manifest_.documents = facts_of(tree_, manifest_.tensors);
  manifest_.documents["objects"] = closed(std::move(objects_));
  manifest_.documents["opaque"] = closed(std::move(opaque_));
  manifest_.documents["arrays"] = closed(std::move(arrays_));
  if (!containers_.empty()) manifest_.documents["containers"] = closed(std::move(containers_));
  if (!named_.empty()) {
    manifest_.documents["values"] =
        Json(named_).dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  manifest_.warnings.insert(manifest_.warnings.end(), warnings_.begin(), warnings_.end());
}

}  // namespace cairn::detail::dcp
