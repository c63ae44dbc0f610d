#include "checkpoint/verify_checksums.hpp"

#include <algorithm>
#include <map>
#include <span>

#include "base/crc32.hpp"
#include "base/throw.hpp"
#include "mpi/time_limit.hpp"
#include "os/file.hpp"
#include "transfer/reader.hpp"

namespace cairn::detail {
namespace {

struct ByteRange {
  std::uint32_t file = 0;
  std::uint64_t start = 0;
  std::uint64_t end = 0;
};

/// The bytes of a file from the first to the last one of an extent.
ByteRange range_of(const TensorEntry& tensor, const Extent& extent) {
  const std::uint64_t item = item_bytes(tensor.dtype);
  std::uint64_t bytes = extent.box.elements() * item;
  if (bytes != 0 && tensor.layout == Layout::strided) {
    bytes = item;
    for (std::size_t d = 0; d < tensor.strides.size(); ++d) {
      bytes += (tensor.shape[d] - 1) * tensor.strides[d];
    }
  }
  return {extent.file, extent.offset, extent.offset + bytes};
}

/// The checksum that a byte is under.
const Checksum* checksum_at(const Manifest& manifest, std::uint32_t file, std::uint64_t position) {
  const auto& all = manifest.checksums;
  const auto behind = [](const std::pair<std::uint32_t, std::uint64_t>& at, const Checksum& c) {
    return at < std::pair(c.file, c.offset);
  };
  const auto next = std::upper_bound(all.begin(), all.end(), std::pair(file, position), behind);
  if (next == all.begin()) return nullptr;
  const Checksum& checksum = *std::prev(next);
  const bool holds = checksum.file == file && position < checksum.offset + checksum.bytes;
  return holds ? &checksum : nullptr;
}

/// A checksum that the bytes under it do not have.
struct Wrong {
  const Checksum* checksum = nullptr;
  std::uint32_t found = 0;
  std::string names;  ///< of tensors with bytes under it, as far as an error has room for them
  std::size_t tensors = 0;

  void add(const std::string& name) {
    constexpr std::size_t kShown = 3;
    if (tensors < kShown) names += fmt::format("{}'{}'", tensors == 0 ? "" : ", ", name);
    if (tensors++ == kShown) names += ", ...";
  }
};

/// Names the tensors in one pass over them: both may be many. `wrong` is in the order of the
/// manifest's checksums, by file and offset.
void name_tensors(const Manifest& manifest, std::vector<Wrong>& wrong) {
  if (wrong.empty()) return;
  for (const TensorEntry& tensor : manifest.tensors) {
    for (const Extent& extent : tensor.extents) {
      const ByteRange range = range_of(tensor, extent);
      // From the first one that ends behind the range's start.
      auto at = std::partition_point(wrong.begin(), wrong.end(), [&](const Wrong& each) {
        const Checksum& c = *each.checksum;
        return std::pair(c.file, c.offset + c.bytes) <= std::pair(range.file, range.start);
      });
      for (; at != wrong.end() && at->checksum->file == range.file &&
             at->checksum->offset < range.end;
           ++at) {
        at->add(tensor.name);
      }
    }
  }
}

Defect defect_of(const Manifest& manifest, const Wrong& wrong) {
  const Checksum& checksum = *wrong.checksum;
  const std::string tensors = wrong.tensors == 0
                                  ? "no tensor"
                                  : (wrong.tensors == 1 ? "tensor " : "tensors ") + wrong.names;
  Defect defect;
  defect.file = manifest.files.at(checksum.file).path;
  defect.text = fmt::format("'{}': bytes {} to {} ({}) have CRC-32 {:08x} instead of {:08x}",
                            defect.file.string(), checksum.offset, checksum.offset + checksum.bytes,
                            tensors, wrong.found, checksum.crc32);
  return defect;
}

/// The CRC-32 of what lies under a checksum.
std::uint32_t crc_under(const File& file, const Checksum& checksum) {
  constexpr std::uint64_t kWindowBytes = 4 << 20;
  std::vector<std::byte> window(std::min(kWindowBytes, checksum.bytes));
  std::uint32_t crc = 0;
  for (std::uint64_t at = 0; at < checksum.bytes; at += window.size()) {
    check_time_limit();
    const auto part = std::span(window).first(std::min(kWindowBytes, checksum.bytes - at));
    file.read_at(checksum.offset + at, part);
    crc = crc32_update(crc, part);
  }
  return crc;
}

}  // namespace

bool is_covered(const Manifest& manifest, const TensorEntry& tensor) {
  if (manifest.checksums.empty()) return false;
  return std::all_of(tensor.extents.begin(), tensor.extents.end(), [&](const Extent& extent) {
    const ByteRange range = range_of(tensor, extent);
    if (range.start == range.end) return true;
    const Checksum* checksum = checksum_at(manifest, range.file, range.start);
    return checksum != nullptr && range.end <= checksum->offset + checksum->bytes;
  });
}

std::vector<Checksum> checksums_to_check(const Manifest& manifest,
                                         const std::vector<std::uint64_t>& wanted) {
  if (manifest.checksums.empty()) return {};
  const bool all = std::all_of(wanted.begin(), wanted.end(), [](auto w) { return w != 0; });
  if (all) return manifest.checksums;
  std::vector<bool> touched(manifest.checksums.size());
  for (std::size_t t = 0; t < wanted.size(); ++t) {
    if (wanted[t] == 0) continue;
    for (const Extent& extent : manifest.tensors[t].extents) {
      const Checksum* found = checksum_at(manifest, extent.file, extent.offset);
      if (found != nullptr)
        touched[static_cast<std::size_t>(found - manifest.checksums.data())] = true;
    }
  }
  std::vector<Checksum> result;
  for (std::size_t i = 0; i < touched.size(); ++i) {
    if (touched[i]) result.push_back(manifest.checksums[i]);
  }
  return result;
}

std::vector<Defect> check_share(const Comm& comm, const Manifest& manifest,
                                const std::vector<Checksum>& checksums) {
  std::uint64_t total = 0;
  for (const Checksum& checksum : checksums) total += checksum.bytes;
  const Range mine = balanced_range(total, comm.size(), comm.rank());
  std::vector<Wrong> wrong;
  constexpr std::size_t kMostOpen = 256;
  std::map<std::uint32_t, File> files;
  std::uint64_t at = 0;
  for (const Checksum& checksum : checksums) {
    const std::uint64_t middle = at + checksum.bytes / 2;
    at += checksum.bytes;
    if (checksum.bytes == 0 || middle < mine.start || middle >= mine.start + mine.count) continue;
    auto file = files.find(checksum.file);
    if (file == files.end()) {
      if (files.size() >= kMostOpen) files.clear();
      file = files.emplace(checksum.file, open_same(manifest.files.at(checksum.file))).first;
    }
    const std::uint32_t crc = crc_under(file->second, checksum);
    if (crc != checksum.crc32) wrong.push_back({&checksum, crc, {}, 0});
  }
  name_tensors(manifest, wrong);
  std::vector<Defect> defects;
  for (const Wrong& each : wrong) defects.push_back(defect_of(manifest, each));
  return defects;
}

}  // namespace cairn::detail
