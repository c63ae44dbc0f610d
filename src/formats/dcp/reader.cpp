#include "formats/dcp/reader.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/throw.hpp"
#include "formats/dcp/metadata.hpp"
#include "formats/pickle/parse.hpp"
#include "formats/torch/storages.hpp"
#include "formats/torch/tensor.hpp"
#include "formats/torch/zip.hpp"
#include "os/file.hpp"
#include "plan/region.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;
using dcp::Stored;
using dcp::TensorMetadata;

constexpr std::string_view kMetadata = ".metadata";
constexpr std::uint64_t kMostMetadataBytes = std::uint64_t{1} << 30;
constexpr std::uint64_t kMostPickleBytes = 1 << 20;  // of a single tensor
constexpr std::string_view kPickle = "/data.pkl";    // below the archive's top
constexpr std::uint64_t kMostExtents = 1 << 22;      // of all tensors
constexpr std::size_t kMostOpen = 256;               // a process may open about 1000

/// The data files of one checkpoint, each listed once, and a limited number open at a time.
class DataFiles {
 public:
  DataFiles(const fs::path& directory, Manifest& manifest)
      : directory_(directory), manifest_(manifest) {}

  struct Open {
    File file;
    std::uint32_t number;  ///< in the manifest
    std::uint64_t bytes;
  };

  /// Lifetime: the result until the next call.
  const Open& open(const std::string& name) {
    auto known = open_.find(name);
    if (known == open_.end()) {
      if (open_.size() == kMostOpen) open_.clear();
      known = open_.emplace(name, open_new(name)).first;
    }
    return known->second;
  }

 private:
  Open open_new(const std::string& name) {
    try {
      File file = File::open_read(directory_ / name);
      const std::uint64_t bytes = file.size();
      const auto next = static_cast<std::uint32_t>(manifest_.files.size());
      const auto [number, is_new] = numbers_.try_emplace(name, next);
      if (is_new) {
        manifest_.files.push_back({directory_ / name, bytes, Access::extents, file.fingerprint()});
      }
      return {std::move(file), number->second, bytes};
    } catch (const Error& error) {
      if (error.code() != Errc::not_found) throw;
      fail(Errc::corrupt, "its data file '{}' does not exist", name);
    }
  }

  const fs::path& directory_;
  Manifest& manifest_;
  std::map<std::string, Open> open_;
  std::map<std::string, std::uint32_t> numbers_;  // in the manifest
};

/// Where the elements of a part lie in a data file.
struct Placed {
  Checksum checksum;         ///< of the storage around them
  std::uint64_t offset = 0;  ///< of the first
  Shape strides;             ///< in bytes
};

/// Looks into the file that torch.save wrote of one part of a tensor.
Placed place_of(const DataFiles::Open& data, const TensorMetadata& tensor, const Box& box,
                const Stored& stored) {
  if (stored.offset > data.bytes || stored.bytes > data.bytes - stored.offset) {
    fail(Errc::corrupt, "a part of tensor '{}' lies behind the end of '{}'", tensor.name,
         stored.file);
  }
  const ZipTable archive = ZipTable::read(data.file, stored.offset, stored.bytes);
  const auto& members = archive.members();
  const auto pickled = std::find_if(members.begin(), members.end(), [](const ZipMember& member) {
    return member.name.ends_with(kPickle) &&
           member.name.find('/') + kPickle.size() == member.name.size();
  });
  if (pickled == members.end()) fail(Errc::corrupt, "a part of '{}' has no pickle", tensor.name);
  const pickle::Graph graph =
      pickle::parse(read_member(data.file, *pickled, kMostPickleBytes), "the pickle of a part");
  if (!torch::is_tensor(graph, graph.root())) {
    fail(Errc::corrupt, "a part of tensor '{}' is no tensor", tensor.name);
  }
  const torch::Storages storages = torch::storages_of(graph);
  const torch::Tensor part = torch::tensor_of(graph, graph.root(), storages);
  if (part.dtype != tensor.dtype || part.shape != box.count) {
    fail(Errc::corrupt, "tensor '{}' has a part {} of {}, but {} {} is stored there", tensor.name,
         to_string(box), to_string(tensor.dtype), to_string(part.dtype), to_string(part.shape));
  }
  const torch::Storage& storage = storages.all[part.storage];
  const std::string top = pickled->name.substr(0, pickled->name.size() - kPickle.size());
  const ZipMember* bytes = archive.find(fmt::format("{}/data/{}", top, storage.key));
  if (bytes == nullptr || bytes->bytes < storage.bytes) {
    fail(Errc::corrupt, "a part of tensor '{}' lacks its bytes", tensor.name);
  }
  if (bytes->method != 0) {
    fail(Errc::unsupported, "a part of tensor '{}' is compressed", tensor.name);
  }
  return {{data.number, bytes->offset, bytes->bytes, bytes->crc},
          bytes->offset + part.first,
          part.strides};
}

/// Cuts a part whose elements do not lie densely into boxes whose elements do.
void add_rows(const Placed& placed, const Box& box, std::uint64_t item, std::uint32_t file,
              TensorEntry& entry, std::uint64_t& extents) {
  std::size_t inner = box.count.size();  // from here on, dimensions are dense
  std::uint64_t run = item;
  while (inner > 0 && (box.count[inner - 1] == 1 || placed.strides[inner - 1] == run)) {
    run *= box.count[--inner];
  }
  Box row = box;
  for (std::size_t d = 0; d < inner; ++d) row.count[d] = 1;
  for (;;) {
    std::uint64_t offset = placed.offset;
    for (std::size_t d = 0; d < inner; ++d) {
      offset += (row.start[d] - box.start[d]) * placed.strides[d];
    }
    if (++extents > kMostExtents) {
      fail(Errc::unsupported, "its tensors up to '{}' are stored in more than {} pieces",
           entry.name, kMostExtents);
    }
    Extent extent;
    extent.file = file;
    extent.offset = offset;
    extent.box = row;
    entry.extents.push_back(std::move(extent));
    std::size_t d = inner;
    while (d > 0 && ++row.start[d - 1] == box.start[d - 1] + box.count[d - 1]) {
      row.start[d - 1] = box.start[d - 1];
      --d;
    }
    if (d == 0) return;
  }
}

/// Each part has bytes of its own.
void sort_checksums(std::vector<Checksum>& checksums) {
  std::sort(checksums.begin(), checksums.end(), [](const Checksum& a, const Checksum& b) {
    return std::pair(a.file, a.offset) < std::pair(b.file, b.offset);
  });
  for (std::size_t i = 1; i < checksums.size(); ++i) {
    const Checksum& before = checksums[i - 1];
    if (before.file == checksums[i].file && before.offset + before.bytes > checksums[i].offset) {
      fail(Errc::corrupt, "two parts of tensors lie at the same place");
    }
  }
}

/// `extents` counts those of all tensors.
TensorEntry entry_of(DataFiles& files, TensorMetadata tensor, std::vector<Checksum>& checksums,
                     std::uint64_t& extents) {
  TensorEntry entry;
  entry.name = tensor.name;
  entry.dtype = tensor.dtype;
  entry.shape = tensor.shape;
  entry.path = tensor.path;
  for (std::size_t i = 0; i < tensor.boxes.size(); ++i) {
    const DataFiles::Open& data = files.open(tensor.stored[i].file);
    const Placed placed = place_of(data, tensor, tensor.boxes[i], tensor.stored[i]);
    checksums.push_back(placed.checksum);
    add_rows(placed, tensor.boxes[i], item_bytes(tensor.dtype), data.number, entry, extents);
  }
  if (entry.extents.size() == 1) {
    entry.offset = entry.extents.front().offset;
  } else if (!entry.extents.empty()) {
    entry.placement = Placement::Kind::block;
    entry.layout = Layout::pieces;
  }
  return entry;
}

std::vector<std::byte> read_whole(const File& file) {
  const std::uint64_t size = file.size();
  if (size > kMostMetadataBytes) {
    fail(Errc::unsafe, "its .metadata has {} bytes; at most {} are read", size, kMostMetadataBytes);
  }
  std::vector<std::byte> bytes(size);
  file.read_at(0, bytes);
  return bytes;
}

}  // namespace

Manifest read_dcp(const fs::path& directory) {
  const fs::path path = directory / kMetadata;
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    fail(Errc::corrupt, "it has data files but no '{}': the save never committed", kMetadata);
  }
  const File file = File::open_read(path);
  Manifest manifest;
  manifest.format = "dcp";
  manifest.files.push_back({path, file.size(), Access::extents, file.fingerprint()});
  dcp::Metadata metadata = dcp::read_metadata(read_whole(file));
  DataFiles files(directory, manifest);
  std::uint64_t extents = 0;
  for (TensorMetadata& tensor : metadata.tensors) {
    manifest.tensors.push_back(entry_of(files, std::move(tensor), manifest.checksums, extents));
  }
  sort_checksums(manifest.checksums);
  if (!metadata.values.empty()) {
    manifest.documents["values"] =
        nlohmann::json(metadata.values)
            .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
  return manifest;
}

}  // namespace cairn::detail
