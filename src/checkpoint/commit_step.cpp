#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/bytes.hpp"
#include "base/digest.hpp"
#include "base/throw.hpp"
#include "cairn/version.hpp"
#include "checkpoint/steps.hpp"
#include "formats/hdf5/commit.hpp"
#include "formats/hdf5/container.hpp"
#include "formats/hdf5/index.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"
#include "os/host.hpp"
#include "plan/chunks.hpp"
#include "plan/region.hpp"

namespace cairn::detail {
namespace {

std::vector<std::byte> encode_reports(const std::vector<PartReport>& reports, bool statistics) {
  ByteWriter out;
  for (const PartReport& report : reports) {
    out.put(report.digest);
    if (statistics) out.put(report.statistics);
  }
  return out.take();
}

/// Puts every rank's reports into the table; ranks send them in the order of their extents.
void fill_in(SaveLayout& layout, const std::vector<std::vector<std::byte>>& gathered,
             bool statistics) {
  for (TensorEntry& tensor : layout.container.tensors) {
    if (tensor.statistics && file_of(tensor) == 0) tensor.statistics = Statistics{};
  }
  for (std::size_t rank = 0; rank < gathered.size(); ++rank) {
    ByteReader in(gathered[rank], "what a rank reported of its extents");
    for (const WrittenExtent& written : layout.written[rank]) {
      written.extent->digest = in.get<std::uint64_t>();
      if (statistics) merge(*written.tensor->statistics, in.get<Statistics>());
    }
  }
}

std::map<std::string, std::string> with_facts(std::map<std::string, std::string> documents,
                                              const std::string& facts) {
  if (facts.empty()) return documents;
  std::string& text = documents.at("provenance");
  auto provenance = nlohmann::json::parse(text);
  provenance["mpi_io"] = nlohmann::json::parse(facts);
  text = provenance.dump();
  return documents;
}

std::vector<std::byte> padded(const std::string& text, std::uint64_t room) {
  std::vector<std::byte> bytes(room);
  std::memcpy(bytes.data(), text.data(), text.size());
  return bytes;
}

/// HDF5's metadata as the committed file has it.
struct Metadata {
  std::uint64_t hdf5_bytes = 0;
  const Template* planned = nullptr;
  std::optional<Template> own;  // where HDF5 placed chunks during this save

  const Template& all() const { return own ? *own : *planned; }
};

Metadata metadata_of(const SaveRequest& request, SaveLayout& layout, const File& file) {
  Metadata metadata{layout.container.hdf5_bytes, &layout.metadata, {}};
  // HDF5 places chunks with filters while it writes: its metadata is another one in every save.
  if (!has_filters(layout.container.tensors)) return metadata;
  metadata.hdf5_bytes = locate_stored(request.partial, layout.container.tensors);
  file.reserve(metadata.hdf5_bytes + kTrailerBytes);  // gives back the rest
  metadata.own = take_metadata(file, layout.container, metadata.hdf5_bytes);
  return metadata;
}

CommitRecord record_of(const SaveRequest& request, const SaveLayout& layout,
                       const Metadata& metadata) {
  CommitRecord record;
  record.info.format_version = kFormatVersion;
  record.info.library_version = CAIRN_VERSION_STRING;
  record.info.step = request.state.step;
  record.info.structure = to_hex(layout.structure);
  record.info.writers = layout.writers;
  record.info.committed_at = utc_now();
  record.hdf5_bytes = metadata.hdf5_bytes;
  record.metadata_digest = metadata.all().digest;
  record.index = layout.container.index;
  record.documents = layout.container.documents;
  return record;
}

/// Takes the signature away where the engine needed it while it wrote.
void withhold_signature(const File& file, bool durable) {
  constexpr std::array<std::byte, kSignatureBytes> kWithheld{};
  auto found = kWithheld;
  file.read_at(0, found);
  if (found == kWithheld) return;
  file.write_at(0, kWithheld, "commit.write");
  if (durable) file.sync();
}

/// Everything but the tensors' bytes. The signature, the first 8 bytes of the first piece of
/// metadata, is written after all else is durable: until then the file is not HDF5 to anyone.
void write_all_but_data(const SaveRequest& request, SaveLayout& layout,
                        const std::map<std::string, std::string>& documents) {
  File file = File::open_write(request.partial);
  const Metadata metadata = metadata_of(request, layout, file);
  withhold_signature(file, request.options.durable);
  for (const auto& [offset, bytes] : metadata.all().pieces) {
    const std::uint64_t skip = offset == 0 ? kSignatureBytes : 0;
    file.write_at(offset + skip, std::span(bytes).subspan(skip), "commit.write");
  }
  CommitRecord record = record_of(request, layout, metadata);
  const std::vector<std::byte> index =
      encode_index(layout.container.tensors, layout.container.files);
  record.index_digest = digest_of(index);
  file.write_at(record.index.offset, index, "commit.write");
  for (auto& [name, slot] : record.documents) {
    const std::vector<std::byte> text = padded(documents.at(name), slot.span.bytes);
    slot.digest = digest_of(text);
    file.write_at(slot.span.offset, text, "commit.write");
  }
  const std::vector<std::byte> commit_bytes = encode_commit(record);
  file.write_at(layout.container.commit_offset, commit_bytes, "commit.write");
  const auto trailer = encode_trailer({layout.container.commit_offset, digest_of(commit_bytes),
                                       metadata.hdf5_bytes + kTrailerBytes});
  file.write_at(metadata.hdf5_bytes, trailer, "commit.write");
  if (request.options.durable) file.sync();
  fault_point("commit.signature");
  const auto signature = std::span(metadata.all().pieces.front().second).first(kSignatureBytes);
  file.write_at(0, signature, "commit.write");
  fault_point("commit.sync");
  if (request.options.durable) file.sync();
  file.close();
}

/// What a delta refers to must be there when it counts.
void check_referenced(const SaveRequest& request, const std::vector<ReferencedFile>& files) {
  for (const ReferencedFile& file : files) {
    const FileEntry entry{request.target.parent_path() / file.name, file.bytes, Access::extents,
                          file.fingerprint};
    const std::string difference = difference_of(entry);
    if (difference.empty()) continue;
    fail(Errc::io,
         "'{}', which this save takes unchanged tensors from (save.delta), {}; save again",
         entry.path.string(), difference);
  }
}

}  // namespace

void commit(const Comm& comm, const SaveRequest& request, SaveLayout& layout,
            const std::map<std::string, std::string>& documents, const std::string& facts,
            const std::vector<PartReport>& reports) {
  const bool statistics = request.options.statistics;
  std::vector<std::byte> mine;
  agree(comm, "save: commit", [&] { mine = encode_reports(reports, statistics); });
  const auto gathered = comm.gather(mine);
  agree(comm, "save: commit", [&] {
    fault_point("commit");
    if (!comm.is_root()) return;
    fill_in(layout, gathered, statistics);
    write_all_but_data(request, layout, with_facts(documents, facts));
    check_referenced(request, layout.container.files);
  });
}

}  // namespace cairn::detail
