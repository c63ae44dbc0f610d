// A load, step by step:
//  1. match   every rank finds its tensors in the manifest and compares dtypes and shapes
//  2. verify  the ranks share the digests of all tensors that any of them wants
//  3. move    every rank reads its pieces straight into their memory
// Up to 3 nothing in the targets changes.
#include "base/digest.hpp"
#include "base/throw.hpp"
#include "cairn/checkpoint.hpp"
#include "checkpoint/verify.hpp"
#include "manifest/names.hpp"
#include "transfer/engine.hpp"
#include "transfer/reader.hpp"

namespace cairn {

using namespace detail;

namespace {

std::vector<ReadItem> match(const Manifest& manifest, std::span<const MutableTensorView> targets) {
  const auto by_name = index_by_name(manifest);
  const std::string file = manifest.path().string();
  std::vector<ReadItem> items;
  for (const MutableTensorView& target : targets) {
    const auto it = by_name.find(target.name);
    if (it == by_name.end()) fail(Errc::not_found, "'{}' has no tensor '{}'", file, target.name);
    const TensorEntry& tensor = manifest.tensors[it->second];
    if (tensor.dtype != target.dtype) {
      fail(Errc::mismatch, "tensor '{}' is {} in '{}' but {} in memory", target.name,
           to_string(tensor.dtype), file, to_string(target.dtype));
    }
    if (tensor.shape != target.placement.global_shape) {
      fail(Errc::mismatch, "tensor '{}' has shape {} in '{}' but global shape {} in memory",
           target.name, to_string(tensor.shape), file, to_string(target.placement.global_shape));
    }
    try {
      check_placement(target.placement);
    } catch (const Error& error) {
      fail(Errc::usage, "tensor '{}': {}", target.name, error.what());
    }
    if (target.data == nullptr && target.placement.elements() != 0) {
      fail(Errc::usage, "tensor '{}' has no memory to load into", target.name);
    }
    if (target.placement.elements() == 0) continue;
    items.push_back({it->second, target.placement, target.data});
  }
  return items;
}

/// The tensors that any rank wants.
std::vector<std::size_t> wanted_by_any(const Comm& comm, const Manifest& manifest,
                                       const std::vector<ReadItem>& items) {
  std::vector<std::uint64_t> wanted(manifest.tensors.size(), 0);
  for (const ReadItem& item : items) wanted[item.tensor] = 1;
  comm.all_reduce_max(std::span<std::uint64_t>(wanted));
  std::vector<std::size_t> positions;
  for (std::size_t t = 0; t < wanted.size(); ++t) {
    if (wanted[t] != 0) positions.push_back(t);
  }
  return positions;
}

void throw_if_damaged(const Manifest& manifest, const VerifyReport& report) {
  if (report.defects.empty()) return;
  const Defect& first = report.defects.front();
  throw Error(
      Errc::corrupt,
      fmt::format("load: {}{}; nothing was loaded: use an older checkpoint, or see 'cairn verify "
                  "{}'",
                  first.text,
                  report.defects.size() > 1
                      ? fmt::format(" (and {} more defects)", report.defects.size() - 1)
                      : "",
                  manifest.path().string()),
      std::max(first.writer, 0));
}

}  // namespace

void load_tensors(const Comm& comm, const Manifest& manifest,
                  std::span<const MutableTensorView> targets, const LoadOptions& options) {
  std::vector<ReadItem> items;
  agree(comm, "load: match", [&] { items = match(manifest, targets); });
  if (options.verify) {
    throw_if_damaged(manifest,
                     verify_positions(comm, manifest, wanted_by_any(comm, manifest, items)));
  }
  make_engine(options.engine, options.transfer)->read(comm, manifest, items);
}

std::optional<std::vector<std::byte>> load_rank_blob(const Comm& comm, const Manifest& manifest,
                                                     const std::string& name) {
  const TensorEntry* tensor = manifest.find(names::rank_blob(name));
  if (tensor == nullptr || manifest.commit.writers != comm.size()) return std::nullopt;
  std::vector<std::byte> blob;
  agree(comm, "load: rank blob", [&] {
    Reader reader(manifest);
    for (const Extent& extent : tensor->extents) {
      if (extent.writer != comm.rank()) continue;
      blob.resize(extent.box.elements());
      reader.read(*tensor, Placement::block(tensor->shape, extent.box), blob.data());
      if (digest_of(blob) != extent.digest) {
        fail(Errc::corrupt, "'{}': blob '{}' of this rank is damaged; use an older checkpoint",
             manifest.path().string(), name);
      }
    }
  });
  return blob;
}

}  // namespace cairn
