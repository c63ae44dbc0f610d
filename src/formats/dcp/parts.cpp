#include "formats/dcp/parts.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/throw.hpp"
#include "formats/pickle/parse.hpp"
#include "formats/torch/storages.hpp"
#include "formats/torch/tensor.hpp"
#include "formats/torch/zip.hpp"

namespace cairn::detail::dcp {
namespace {

constexpr std::uint64_t kMostPickleBytes = 1 << 20;  // of a single tensor
constexpr std::string_view kPickle = "/data.pkl";    // below the archive's top
constexpr std::size_t kMostOpen = 256;               // a process may open about 1000

ZipTable archive_of(DataFiles::Open& data, const Stored& stored) {
  if (stored.bytes > DataFiles::Open::kSmallBytes) {
    return ZipTable::read(data.file, stored.offset, stored.bytes);
  }
  return ZipTable::read(data.read_small(stored), stored.offset);
}

/// Looks into the file that torch.save wrote of one part of a tensor.
Placed place_of(DataFiles::Open& data, PartPickles& pickles, const TensorMetadata& tensor,
                const Box& box, const Stored& stored) {
  if (stored.offset > data.bytes || stored.bytes > data.bytes - stored.offset) {
    fail(Errc::corrupt, "a part of tensor '{}' lies behind the end of '{}'", tensor.name,
         stored.file);
  }
  const ZipTable archive = archive_of(data, stored);
  const auto& members = archive.members();
  const auto pickled = std::find_if(members.begin(), members.end(), [](const ZipMember& member) {
    return member.name.ends_with(kPickle) &&
           member.name.find('/') + kPickle.size() == member.name.size();
  });
  if (pickled == members.end()) fail(Errc::corrupt, "a part of '{}' has no pickle", tensor.name);
  const PartPickle part = pickles.read(archive.read_member(data.file, *pickled, kMostPickleBytes));
  if (part.dtype != tensor.dtype || part.shape != box.count) {
    fail(Errc::corrupt, "tensor '{}' has a part {} of {}, but {} {} is stored there", tensor.name,
         to_string(box), to_string(tensor.dtype), to_string(part.dtype), to_string(part.shape));
  }
  const std::string top = pickled->name.substr(0, pickled->name.size() - kPickle.size());
  const ZipMember* bytes = archive.find(top + "/data/" + part.storage);
  if (bytes == nullptr || bytes->bytes < part.storage_bytes) {
    fail(Errc::corrupt, "a part of tensor '{}' lacks its bytes", tensor.name);
  }
  if (bytes->method != 0) {
    fail(Errc::unsupported, "a part of tensor '{}' is compressed", tensor.name);
  }
  return {{data.number, bytes->offset, bytes->bytes, bytes->crc.value_or(0)},
          bytes->crc.has_value(),
          bytes->offset + part.first,
          part.strides};
}

/// Cuts a part whose elements do not lie densely into boxes whose elements do.
void add_rows(const Placed& placed, const Box& box, std::uint64_t item, TensorEntry& entry,
              TableBytes& table_bytes) {
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
    table_bytes.add_extent(row.count.size());
    Extent extent;
    extent.file = placed.checksum.file;
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

}  // namespace

PartPickle PartPickles::read(std::vector<std::byte> bytes) {
  constexpr std::size_t kMostKnown = 1024;
  constexpr std::size_t kMostKnownBytes = 4096;  // of each; usual ones have a few hundred
  std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (const auto known = known_.find(text); known != known_.end()) return known->second;
  const pickle::Graph graph = pickle::parse(std::move(bytes), "the pickle of a part");
  if (!torch::is_tensor(graph, graph.root())) fail(Errc::corrupt, "a part is no tensor");
  const torch::Storages storages = torch::storages_of(graph);
  torch::Tensor tensor = torch::tensor_of(graph, graph.root(), storages);
  const torch::Storage& storage = storages.all[tensor.storage];
  PartPickle part{tensor.dtype, std::move(tensor.shape),  std::move(tensor.strides),
                  tensor.first, std::string(storage.key), storage.bytes};
  if (text.size() > kMostKnownBytes) return part;
  if (known_.size() == kMostKnown) known_.clear();
  return known_.emplace(std::move(text), std::move(part)).first->second;
}

std::vector<std::byte> DataFiles::Open::read_small(const Stored& stored) {
  constexpr std::uint64_t kAhead = 64 << 10;
  if (stored.offset < start_ || stored.offset + stored.bytes > start_ + block_.size()) {
    const bool follows = stored.offset == next_;
    block_.clear();  // of which nothing is left should this fail
    std::vector<std::byte> block(follows ? std::min(kAhead, bytes - stored.offset) : stored.bytes);
    file.read_at(stored.offset, block);
    block_ = std::move(block);
    start_ = stored.offset;
  }
  next_ = stored.offset + stored.bytes;
  const auto first = block_.begin() + static_cast<std::ptrdiff_t>(stored.offset - start_);
  return {first, first + static_cast<std::ptrdiff_t>(stored.bytes)};
}

DataFiles::Open& DataFiles::open(const std::string& name) {
  auto known = open_.find(name);
  if (known == open_.end()) {
    if (open_.size() == kMostOpen) open_.clear();
    known = open_.emplace(name, open_new(name)).first;
  }
  return known->second;
}

DataFiles::Open DataFiles::open_new(const std::string& name) {
  try {
    File file = File::open_read(directory_ / name);
    const std::uint64_t bytes = file.size();
    const auto next = static_cast<std::uint32_t>(manifest_.files.size());
    const auto [number, is_new] = numbers_.try_emplace(name, next);
    if (is_new) {
      table_bytes_.add_file(bytes);
      manifest_.files.push_back({directory_ / name, bytes, Access::extents, file.fingerprint()});
    }
    return Open(std::move(file), number->second, bytes);
  } catch (const Error& error) {
    if (error.code() != Errc::not_found) throw;
    fail(Errc::corrupt, "its data file '{}' does not exist", name);
  }
}

bool Placed::is_like(const Placed& other) const {
  return has_checksum && other.has_checksum && checksum.crc32 == other.checksum.crc32 &&
         checksum.bytes == other.checksum.bytes &&
         offset - checksum.offset == other.offset - other.checksum.offset &&
         strides == other.strides;
}

std::vector<Placed> places_of(DataFiles& files, const TensorMetadata& tensor) {
  std::vector<Placed> places;
  places.reserve(tensor.boxes.size());
  for (std::size_t i = 0; i < tensor.boxes.size(); ++i) {
    DataFiles::Open& data = files.open(tensor.stored[i].file);
    places.push_back(place_of(data, files.pickles(), tensor, tensor.boxes[i], tensor.stored[i]));
  }
  return places;
}

void lay_out(TensorEntry& entry) {
  if (entry.extents.size() == 1) {
    entry.offset = entry.extents.front().offset;
  } else if (!entry.extents.empty()) {
    entry.placement = Placement::Kind::block;
    entry.layout = Layout::pieces;
  }
}

TensorEntry entry_of(TensorMetadata tensor, const std::vector<Placed>& places,
                     TableBytes& table_bytes) {
  TensorEntry entry;
  entry.name = std::move(tensor.name);
  entry.dtype = tensor.dtype;
  entry.shape = std::move(tensor.shape);
  entry.path = std::move(tensor.path);
  table_bytes.add(entry);
  for (std::size_t i = 0; i < tensor.boxes.size(); ++i) {
    add_rows(places[i], tensor.boxes[i], item_bytes(tensor.dtype), entry, table_bytes);
  }
  lay_out(entry);
  return entry;
}

}  // namespace cairn::detail::dcp
