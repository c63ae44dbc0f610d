// A load, step by step:
//  1. match   every rank finds its tensors in the manifest and compares dtypes and shapes; the
//  ranks
//             compare their arguments
//  2. verify  the ranks share the digests of all tensors that any of them wants
//  3. move    every rank reads its pieces straight into their memory
// Up to 3 nothing in the targets changes. In 3 only the operating system can fail; targets are then
// partly filled.
#include <algorithm>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "cairn/checkpoint.hpp"
#include "checkpoint/verify.hpp"
#include "manifest/names.hpp"
#include "mpi/same.hpp"
#include "plan/part_digest.hpp"
#include "plan/region.hpp"
#include "transfer/engine.hpp"
#include "transfer/reader.hpp"

namespace cairn {

using namespace detail;

namespace {

std::vector<ReadItem> match(const Manifest& manifest, std::span<const MutableTensorView> targets) {
  const TensorNames by_name(manifest.tensors);
  const std::string file = manifest.path().string();
  std::vector<ReadItem> items;
  items.reserve(targets.size());
  for (const MutableTensorView& target : targets) {
    const auto position = by_name.find(target.name);
    if (!position) fail(Errc::not_found, "'{}' has no tensor '{}'", file, target.name);
    const TensorHead tensor = manifest.tensors.head(*position);
    const Shape& shape = target.placement.global_shape;
    if (tensor.dtype != target.dtype) {
      fail(Errc::mismatch, "tensor '{}' is {} in '{}' but {} in memory", target.name,
           to_string(tensor.dtype), file, to_string(target.dtype));
    }
    if (!std::equal(tensor.shape.begin(), tensor.shape.end(), shape.begin(), shape.end())) {
      fail(Errc::mismatch, "tensor '{}' has shape {} in '{}' but global shape {} in memory",
           target.name, to_string(Shape(tensor.shape.begin(), tensor.shape.end())), file,
           to_string(shape));
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
    ReadItem& item = items.emplace_back(ReadItem{*position, &target.placement, target.data, {}});
    if (tensor.layout != Layout::contiguous ||
        manifest.files.at(tensor.file).access != Access::extents) {
      continue;
    }
    if (const auto first = first_of_run(target.placement)) {
      item.run = FileRun{tensor.file, tensor.offset + *first * item_bytes(tensor.dtype)};
    }
  }
  return items;
}

std::uint64_t options_hash(const LoadOptions& options) {
  Digester digester;
  digester.update(static_cast<std::uint64_t>(options.engine));
  digester.update(static_cast<std::uint64_t>(options.transfer));
  digester.update(static_cast<std::uint64_t>(options.verify));
  return digester.value();
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
      /*rank=*/0);
}

}  // namespace

void load_tensors(const Comm& comm, const Manifest& manifest,
                  std::span<const MutableTensorView> targets, const LoadOptions& options) {
  std::vector<ReadItem> items;
  std::vector<Argument> arguments;
  std::vector<std::uint64_t> wanted;  // by position in the manifest, 1: by any rank
  std::unique_ptr<Engine> engine;
  agree(comm, "load: match", [&] {
    items = match(manifest, targets);
    arguments = {{"checkpoint", identity_of(manifest)}, {"options", options_hash(options)}};
    if (options.verify) {
      wanted.resize(manifest.tensors.size(), 0);
      for (const ReadItem& item : items) wanted[item.tensor] = 1;
    }
    engine = make_engine(options.engine, options.transfer);
  });
  require_same(comm, "load: match", arguments);
  if (options.verify) {
    comm.all_reduce_max(std::span<std::uint64_t>(wanted));
    throw_if_damaged(manifest, verify_wanted(comm, manifest, wanted));
  }
  try {
    engine->read(comm, manifest, items);
  } catch (const Error& error) {
    throw Error(error.code(),
                fmt::format("{}; the tensors are partly filled: load again before they are used",
                            error.what()),
                error.rank());
  }
}

std::optional<std::vector<std::byte>> load_rank_blob(const Comm& comm, const Manifest& manifest,
                                                     const std::string& name) {
  const TensorEntry* tensor = nullptr;
  std::vector<Argument> arguments;
  agree(comm, "load: rank blob", [&] {
    tensor = manifest.find(names::rank_blob(name));
    arguments = {{"checkpoint", identity_of(manifest)}, {"name of a blob", digest_of(name)}};
  });
  require_same(comm, "load: rank blob", arguments);
  if (tensor == nullptr || manifest.commit.writers != comm.size()) return std::nullopt;
  std::vector<std::byte> blob;
  agree(comm, "load: rank blob", [&] {
    Reader reader(manifest);
    for (const Extent& extent : tensor->extents) {
      if (extent.writer != comm.rank()) continue;
      blob.resize(extent.box.elements());
      reader.read(*tensor, Placement::block(tensor->shape, extent.box), blob.data());
      if (part_digest(*tensor, extent, blob) != extent.digest) {
        fail(Errc::corrupt, "'{}': blob '{}' of this rank is damaged; use an older checkpoint",
             manifest.path().string(), name);
      }
    }
  });
  return blob;
}

}  // namespace cairn
