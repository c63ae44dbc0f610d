#include "formats/dcp/reader.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <regex>
#include <set>
#include <string>
#include <system_error>
#include <tuple>
#include <utility>
#include <vector>

#include "base/throw.hpp"
#include "formats/dcp/metadata.hpp"
#include "formats/dcp/parts.hpp"
#include "formats/dcp/safetensors.hpp"
#include "formats/dcp/values.hpp"
#include "formats/torch/zip.hpp"
#include "os/file.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;
using dcp::DataFiles;
using dcp::Metadata;
using dcp::Placed;
using dcp::Stored;
using dcp::TensorMetadata;
using dcp::ValueMetadata;
using dcp::Values;

constexpr std::string_view kMetadata = ".metadata";
/// What is kept beside the data files, with values alone: Lightning's epoch, step, loops, callbacks
/// and the like; Megatron's options, iteration and random state.
constexpr std::array<std::string_view, 2> kBeside{"meta.pt", "common.pt"};
constexpr std::uint64_t kMostMetadataBytes = std::uint64_t{1} << 30;

/// Each part has bytes of its own.
void sort_checksums(std::vector<Checksum>& checksums) {
  const auto before = [](const Checksum& a, const Checksum& b) {
    return std::pair(a.file, a.offset) < std::pair(b.file, b.offset);
  };
  const bool are_sorted = std::is_sorted(checksums.begin(), checksums.end(), before);
  if (!are_sorted) std::sort(checksums.begin(), checksums.end(), before);
  for (std::size_t i = 1; i < checksums.size(); ++i) {
    const Checksum& last = checksums[i - 1];
    if (last.file == checksums[i].file && last.offset + last.bytes > checksums[i].offset) {
      fail(Errc::corrupt, "two parts of tensors lie at the same place");
    }
  }
}

/// Nor has it, or a value, an archive with others: that would be looked into once for each of them.
void check_places(const Metadata& metadata) {
  std::vector<const Stored*> all;
  for (const TensorMetadata& tensor : metadata.tensors) {
    for (const Stored& stored : tensor.stored) all.push_back(&stored);
  }
  for (const ValueMetadata& value : metadata.values) all.push_back(&value.stored);
  const auto before = [](const Stored* a, const Stored* b) {
    return std::tie(a->file, a->offset) < std::tie(b->file, b->offset);
  };
  if (!std::is_sorted(all.begin(), all.end(), before)) std::sort(all.begin(), all.end(), before);
  for (std::size_t i = 1; i < all.size(); ++i) {
    if (all[i - 1]->file == all[i]->file &&
        all[i]->offset - all[i - 1]->offset < all[i - 1]->bytes) {
      fail(Errc::corrupt, "two parts of tensors, or values, lie at the same place");
    }
  }
}

Metadata read_one(const fs::path& path, Manifest& manifest, TableBytes& parts_bytes) {
  const File file = File::open_read(path);
  parts_bytes.add_file(file.size());
  manifest.files.push_back({path, file.size(), Access::extents, file.fingerprint()});
  const std::uint64_t size = file.size();
  if (size > kMostMetadataBytes) {
    fail(Errc::unsafe, "its '{}' has {} bytes; at most {} are read", path.filename().string(), size,
         kMostMetadataBytes);
  }
  std::vector<std::byte> bytes(size);
  file.read_at(0, bytes);
  Metadata metadata = dcp::read_metadata(std::move(bytes), parts_bytes);
  check_places(metadata);
  return metadata;
}

/// The metadata that each rank wrote for itself (`__3.metadata`), by rank.
std::map<std::uint32_t, fs::path> metadata_of_ranks(const fs::path& directory) {
  static const std::regex known(R"(__(\d{1,9})\.metadata)");
  std::map<std::uint32_t, fs::path> ranks;
  for (const fs::directory_entry& entry : entries_of(directory)) {
    const std::string name = entry.path().filename().string();
    std::smatch match;
    if (name.size() > 32 || !std::regex_match(name, match, known)) continue;
    ranks[static_cast<std::uint32_t>(std::stoul(match[1].str()))] = entry.path();
  }
  if (!ranks.empty() && ranks.rbegin()->first != ranks.size() - 1) {
    fail(Errc::corrupt,
         "it has the metadata of {} ranks, of which one is number {}: some are missing",
         ranks.size(), ranks.rbegin()->first);
  }
  return ranks;
}

class Reader {
 public:
  Reader(const fs::path& directory, TableBytes& table_bytes)
      : directory_(directory),
        files_(directory, manifest_, table_bytes),
        values_(manifest_, files_, table_bytes),
        table_bytes_(table_bytes) {
    manifest_.format = "dcp";
  }

  Manifest read() {
    std::error_code ignored;
    if (fs::exists(directory_ / kMetadata, ignored)) {
      read_whole();
    } else if (const auto ranks = metadata_of_ranks(directory_); !ranks.empty()) {
      read_ranks(ranks);
    } else {
      fail(Errc::corrupt, "it has data files but no '{}': the save never committed", kMetadata);
    }
    for (const std::string_view name : kBeside) {
      if (fs::exists(directory_ / name, ignored)) values_.add_file(directory_ / name);
    }
    sort_checksums(manifest_.checksums);
    check_unchecked();
    values_.finish();
    manifest_.documents["globals"] =
        nlohmann::json(globals_).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    return std::move(manifest_);
  }

 private:
  /// What has no checksums overlaps nothing either.
  void check_unchecked() {
    if (!unchecked_.empty()) values_.warn(std::string(kMissingCrcs));
    std::vector<Checksum> all = std::move(unchecked_);
    all.insert(all.end(), values_.unchecked().begin(), values_.unchecked().end());
    if (all.empty()) return;
    all.insert(all.end(), manifest_.checksums.begin(), manifest_.checksums.end());
    sort_checksums(all);
  }

  void read_whole() {
    Metadata metadata = read_one(directory_ / kMetadata, manifest_, parts_bytes_);
    globals_ = std::move(metadata.globals);
    manifest_.tensors.reserve(metadata.tensors.size());
    for (TensorMetadata& tensor : metadata.tensors) {
      check_boxes(tensor);
      const std::vector<Placed> places = places_of(files_, tensor);
      add(std::move(tensor), places);
    }
    for (const ValueMetadata& value : metadata.values) values_.add(value);
  }

  /// Saved without a coordinator: what several ranks have under one name are parts of one tensor,
  /// or copies of it, or tensors of their own.
  void read_ranks(const std::map<std::uint32_t, fs::path>& ranks) {
    std::map<std::string, std::vector<std::pair<std::uint32_t, TensorMetadata>>> by_name;
    std::vector<std::string> order;
    std::map<std::string, std::vector<std::pair<std::uint32_t, ValueMetadata>>> values;
    for (const auto& [rank, path] : ranks) {
      Metadata metadata = read_one(path, manifest_, parts_bytes_);
      for (TensorMetadata& tensor : metadata.tensors) {
        auto& found = by_name[tensor.name];
        if (found.empty()) order.push_back(tensor.name);
        found.emplace_back(rank, std::move(tensor));
      }
      globals_.merge(metadata.globals);
      for (ValueMetadata& value : metadata.values) {
        values[value.name].emplace_back(rank, std::move(value));
      }
    }
    for (const std::string& name : order) add_of_ranks(by_name.at(name));
    for (const auto& [name, found] : values) add_values_of_ranks(found);
  }

  void add_values_of_ranks(const std::vector<std::pair<std::uint32_t, ValueMetadata>>& found) {
    const bool alike = std::all_of(found.begin(), found.end(), [&](const auto& value) {
      return &value == &found[0] || values_.are_alike(found[0].second, value.second);
    });
    if (alike) return values_.add(found[0].second);
    for (const auto& [rank, value] : found) {
      ValueMetadata own = value;
      own.name = fmt::format("__{}/{}", rank, own.name);
      own.path = {own.name};
      values_.add(own);
    }
  }

  void add_of_ranks(const std::vector<std::pair<std::uint32_t, TensorMetadata>>& found) {
    TensorMetadata all = found[0].second;
    bool alike = true;
    for (std::size_t i = 1; i < found.size(); ++i) {
      const TensorMetadata& other = found[i].second;
      alike = alike && other.dtype == all.dtype && other.shape == all.shape;
      all.boxes.insert(all.boxes.end(), other.boxes.begin(), other.boxes.end());
      all.stored.insert(all.stored.end(), other.stored.begin(), other.stored.end());
    }
    if (alike && are_tiling(all)) return add(all, places_of(files_, all));
    for (const auto& [rank, tensor] : found) check_boxes(tensor);
    std::vector<std::vector<Placed>> places;
    for (const auto& [rank, tensor] : found) places.push_back(places_of(files_, tensor));
    if (alike && are_copies(found, places)) return add(found[0].second, places[0]);
    for (std::size_t i = 0; i < found.size(); ++i) {
      TensorMetadata own = found[i].second;
      own.name = fmt::format("__{}/{}", found[i].first, own.name);
      own.path = {own.name};
      add(own, places[i]);
    }
  }

  static bool are_copies(const std::vector<std::pair<std::uint32_t, TensorMetadata>>& found,
                         const std::vector<std::vector<Placed>>& places) {
    for (std::size_t i = 1; i < found.size(); ++i) {
      if (found[i].second.boxes != found[0].second.boxes) return false;
      for (std::size_t p = 0; p < places[i].size(); ++p) {
        if (!places[i][p].is_like(places[0][p])) return false;
      }
    }
    return true;
  }

  void add(TensorMetadata tensor, const std::vector<Placed>& places) {
    for (const Placed& place : places) {
      (place.has_checksum ? manifest_.checksums : unchecked_).push_back(place.checksum);
    }
    manifest_.tensors.push_back(entry_of(std::move(tensor), places, table_bytes_));
  }

  const fs::path& directory_;
  Manifest manifest_;
  std::vector<Checksum> unchecked_;  // storages whose checksums the file does not tell
  DataFiles files_;
  Values values_;
  TableBytes& table_bytes_;
  std::set<std::string> globals_;
  TableBytes parts_bytes_;  // what .metadata says, which is there only until the table is
};

}  // namespace

Manifest read_dcp(const fs::path& directory, TableBytes& table_bytes) {
  if (dcp::has_sharded_safetensors(directory)) {
    return dcp::read_sharded_safetensors(directory, table_bytes);
  }
  return Reader(directory, table_bytes).read();
}

}  // namespace cairn::detail
