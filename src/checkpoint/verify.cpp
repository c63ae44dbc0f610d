#include "checkpoint/verify.hpp"

#include <algorithm>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "checkpoint/verify_checksums.hpp"
#include "manifest/codec.hpp"
#include "mpi/same.hpp"
#include "transfer/engine.hpp"
#include "transfer/reader.hpp"

namespace cairn {

using namespace detail;

namespace {

struct Work {
  std::size_t tensor;
  std::size_t extent;
  std::uint64_t bytes;
};

/// The extents with digests, and in the report how much that is. Tensors that checksums of the
/// format cover count as checked.
std::vector<Work> extents_to_check(const Manifest& manifest,
                                   const std::vector<std::uint64_t>& wanted,
                                   const HeldExtents* held, VerifyReport& report) {
  std::vector<Work> all;
  for (std::size_t t = 0; t < wanted.size(); ++t) {
    if (wanted[t] == 0) continue;
    const TensorEntry& tensor = manifest.tensors[t];
    bool whole = true;
    for (std::size_t e = 0; e < tensor.extents.size(); ++e) {
      whole = whole && tensor.extents[e].digest;
      if (!tensor.extents[e].digest || (held != nullptr && held->by_any_rank(t, e))) continue;
      all.push_back({t, e, tensor.extents[e].box.elements() * item_bytes(tensor.dtype)});
      report.bytes += all.back().bytes;
    }
    whole = whole || is_covered(manifest, tensor);
    (whole ? report.tensors : report.unchecked) += 1;
  }
  report.extents = all.size();
  return all;
}

/// This rank's run of the work: neighbours in the file, about equal bytes on every rank.
std::span<const Work> my_share(const std::vector<Work>& all, int rank, int size) {
  std::uint64_t total = 0;
  for (const Work& work : all) total += work.bytes;
  const Range mine = balanced_range(total, size, rank);
  std::uint64_t middle_at = 0;
  std::size_t first = all.size();
  std::size_t last = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const std::uint64_t middle = middle_at + all[i].bytes / 2;
    middle_at += all[i].bytes;
    if (middle < mine.start || middle >= mine.start + mine.count) continue;
    first = std::min(first, i);
    last = i + 1;
  }
  if (first >= last) return {};
  return std::span(all).subspan(first, last - first);
}

void put_defect(ByteWriter& out, const Defect& defect) {
  out.put_text(defect.tensor);
  put_box(out, defect.box);
  out.put(static_cast<std::int32_t>(defect.writer));
  out.put_text(defect.text);
  out.put_text(defect.file.string());
}

Defect get_defect(ByteReader& in) {
  Defect defect;
  defect.tensor = in.get_text();
  defect.box = get_box(in);
  defect.writer = in.get<std::int32_t>();
  defect.text = in.get_text();
  defect.file = in.get_text();
  return defect;
}

/// All ranks' defects in rank order, on all ranks; `mine` are this rank's, encoded.
std::vector<Defect> share_defects(const Comm& comm, const std::vector<std::byte>& mine) {
  const auto gathered = comm.gather(mine);
  std::vector<std::byte> all;
  agree(comm, "verify", [&] {
    for (const auto& bytes : gathered) all.insert(all.end(), bytes.begin(), bytes.end());
  });
  comm.broadcast(all);
  std::vector<Defect> defects;
  agree(comm, "verify", [&] {
    for (ByteReader in(all, "the ranks' lists of defects"); in.left() != 0;) {
      defects.push_back(get_defect(in));
    }
  });
  return defects;
}

/// Checks one extent, whose digest `find` computes; the defect where it is damaged or can't be read
/// to its end.
template <class F>
std::optional<Defect> check_extent(const Manifest& manifest, const TensorEntry& tensor,
                                   const Extent& extent, F&& find) {
  const auto defect = [&](const std::string& what) {
    const std::filesystem::path& file = manifest.files.at(extent.file).path;
    return Defect{
        tensor.name, extent.box, extent.writer,
        fmt::format("'{}': tensor '{}' {}{}, written by rank {}: {}", file.string(), tensor.name,
                    extent.flat ? "elements " : "", to_string(extent.box), extent.writer, what),
        file};
  };
  try {
    const std::uint64_t found = find();
    if (found == *extent.digest) return std::nullopt;
    return defect(fmt::format("its bytes have digest {} instead of {}", to_hex(found),
                              to_hex(*extent.digest)));
  } catch (const Error& error) {
    if (error.code() != Errc::corrupt) throw;
    return defect(error.what());
  }
}

}  // namespace

namespace detail {

std::uint64_t identity_of(const Manifest& manifest) {
  Digester digester;
  for (const FileEntry& file : manifest.files) {
    digester.update(file.path.string());
    digester.update(file.fingerprint);
  }
  return digester.value();
}

VerifyReport verify_wanted(const Comm& comm, const Manifest& manifest,
                           const std::vector<std::uint64_t>& wanted, const HeldExtents* held) {
  VerifyReport report;
  std::vector<std::byte> mine;
  agree(comm, "verify", [&] {
    const std::vector<Work> all = extents_to_check(manifest, wanted, held, report);
    ByteWriter defects;
    Reader reader(manifest);
    for (const Work& work : my_share(all, comm.rank(), comm.size())) {
      const TensorEntry& tensor = manifest.tensors[work.tensor];
      const Extent& extent = tensor.extents[work.extent];
      auto defect = check_extent(manifest, tensor, extent,
                                 [&] { return digest_in_file(reader, tensor, extent); });
      if (defect) put_defect(defects, *defect);
    }
    const std::vector<Checksum> checksums = checksums_to_check(manifest, wanted);
    for (const Checksum& checksum : checksums) report.bytes += checksum.bytes;
    for (const Defect& defect : check_share(comm, manifest, checksums)) put_defect(defects, defect);
    mine = defects.take();
  });
  report.defects = share_defects(comm, mine);
  return report;
}

std::vector<Defect> verify_held(const Comm& comm, const Manifest& manifest,
                                const HeldExtents& held) {
  std::vector<std::byte> mine;
  agree(comm, "verify", [&] {
    ByteWriter defects;
    for (const HeldExtents::Held& one : held.mine()) {
      const TensorEntry& tensor = manifest.tensors[one.item->tensor];
      const Extent& extent = tensor.extents[one.extent];
      auto defect = check_extent(manifest, tensor, extent,
                                 [&] { return digest_in_memory(tensor, extent, *one.item); });
      if (defect) put_defect(defects, *defect);
    }
    mine = defects.take();
  });
  return share_defects(comm, mine);
}

}  // namespace detail

VerifyReport verify_tensors(const Comm& comm, const Manifest& manifest,
                            const std::vector<std::string>& names) {
  std::vector<std::uint64_t> wanted;
  std::vector<Argument> arguments;
  agree(comm, "verify", [&] {
    wanted.resize(manifest.tensors.size(), names.empty() ? 1 : 0);
    const TensorNames by_name(manifest.tensors);
    Digester digester;
    for (const std::string& name : names) {
      const auto position = by_name.find(name);
      if (!position) {
        fail(Errc::not_found, "'{}' has no tensor '{}'", manifest.path().string(), name);
      }
      wanted[*position] = 1;
      digester.update(name);
    }
    arguments = {{"checkpoint", identity_of(manifest)}, {"tensors", digester.value()}};
  });
  require_same(comm, "verify", arguments);
  return verify_wanted(comm, manifest, wanted);
}

}  // namespace cairn
