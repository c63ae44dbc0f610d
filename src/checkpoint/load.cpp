// A load, step by step:
//  1. match   every rank finds the tensors that it is to fill in the manifest and compares dtypes
//             and shapes; the ranks compare their arguments
//  2. verify  the ranks share the digests of all tensors that any of them wants; integers that are
//             to become narrower ones are looked at
//  3. move    every rank reads its pieces straight into their memory, or, where they are converted,
//             by way of a small buffer (checkpoint/move_step.cpp)
// Up to 3 nothing in the targets changes. In 3 only the operating system can fail; targets are then
// partly filled. With VerifyWhen::loaded most digests are checked after 3, in memory.
#include <algorithm>
#include <set>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "cairn/checkpoint.hpp"
#include "checkpoint/filter.hpp"
#include "checkpoint/load_steps.hpp"
#include "checkpoint/move_step.hpp"
#include "checkpoint/verify.hpp"
#include "manifest/names.hpp"
#include "mpi/same.hpp"
#include "plan/part_digest.hpp"
#include "plan/region.hpp"
#include "transfer/cast.hpp"
#include "transfer/engine.hpp"
#include "transfer/load_stream.hpp"
#include "transfer/reader.hpp"

namespace cairn {

using namespace detail;

namespace {

/// What one rank is to fill.
struct Matches {
  std::vector<ReadItem> straight;   ///< of the dtype of the checkpoint
  std::vector<LoadItem> converted;  ///< of another one
  std::uint64_t targets = 0;        ///< that the filter takes
};

/// What the step "match" leaves to those behind it.
struct Matched {
  Matches mine;
  std::vector<std::uint64_t> wanted;  ///< by position in the manifest, by any rank; 2: converted
  EngineKind kind = EngineKind::direct;
  std::unique_ptr<Engine> engine;
};

void check_dtype(const std::string& file, const TensorHead& tensor, DType wanted, bool cast) {
  if (tensor.dtype == wanted || (cast && can_cast(tensor.dtype, wanted))) return;
  fail(Errc::mismatch, "tensor '{}' is {} in '{}' but {} in memory; {}", tensor.name,
       to_string(tensor.dtype), file, to_string(wanted),
       can_cast(tensor.dtype, wanted) ? "LoadOptions::cast (checkpoint.loading.cast) converts it"
                                      : "LoadOptions::cast does not convert between these");
}

void check_target(const std::string& file, const TensorHead& tensor,
                  const MutableTensorView& target) {
  const Shape& shape = target.placement.global_shape;
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
}

/// Where a piece lies that is one run of its file.
std::optional<FileRun> run_of(const Manifest& manifest, const TensorHead& tensor,
                              const Placement& piece) {
  if (tensor.layout != Layout::contiguous ||
      manifest.files.at(tensor.file).access != Access::extents) {
    return std::nullopt;
  }
  const auto first = first_of_run(piece);
  if (!first) return std::nullopt;
  return FileRun{tensor.file, tensor.offset + *first * item_bytes(tensor.dtype)};
}

/// Names of several tensors: paths of other formats may differ where names do not.
std::set<std::string_view> repeated_names(const Manifest& manifest, const TensorNames& by_name) {
  std::set<std::string_view> repeated;
  if (!by_name.duplicate()) return repeated;
  for (std::size_t t = 0; t < manifest.tensors.size(); ++t) {
    const std::string_view name = manifest.tensors.head(t).name;
    if (by_name.find(name) != t) repeated.insert(name);
  }
  return repeated;
}

Matches match(const Manifest& manifest, std::span<const MutableTensorView> targets,
              const LoadOptions& options) {
  const CompiledFilter only(options.only);
  only.require_in(manifest);
  const TensorNames by_name(manifest.tensors);
  const std::string file = manifest.path().string();
  const std::set<std::string_view> repeated = repeated_names(manifest, by_name);
  Matches matches;
  matches.straight.reserve(targets.size());
  for (const MutableTensorView& target : targets) {
    if (!only.matches(target.name)) continue;
    ++matches.targets;
    const auto position = by_name.find(target.name);
    if (!position) fail(Errc::not_found, "'{}' has no tensor '{}'", file, target.name);
    if (repeated.contains(target.name)) {
      fail(Errc::mismatch,
           "'{}' has several tensors that are called '{}' (a text and a number are both keys "
           "there): save it again with other keys",
           file, target.name);
    }
    const TensorHead tensor = manifest.tensors.head(*position);
    check_dtype(file, tensor, target.dtype, options.cast);
    check_target(file, tensor, target);
    if (target.placement.elements() == 0) continue;
    if (tensor.dtype != target.dtype) {
      matches.converted.push_back({*position, &target.placement, target.data, target.dtype});
      continue;
    }
    matches.straight.push_back(
        {*position, &target.placement, target.data, run_of(manifest, tensor, target.placement)});
  }
  return matches;
}

/// Every cast of every rank, where `wanted` is 2 for the tensors that any rank converts.
/// Collective.
std::vector<TensorCast> all_casts(const Comm& comm, const Manifest& manifest,
                                  std::span<const LoadItem> converted,
                                  std::span<const std::uint64_t> wanted) {
  constexpr std::size_t kCodes = static_cast<std::size_t>(DType::u64) + 1;  // targets of casts
  std::vector<std::uint64_t> seen;  // by tensor that is converted and code of a dtype
  agree(comm, "load: match", [&] {
    std::vector<std::size_t> row(wanted.size());
    std::size_t rows = 0;
    for (std::size_t t = 0; t < wanted.size(); ++t) row[t] = wanted[t] == 2 ? rows++ : 0;
    seen.resize(rows * kCodes);
    for (const LoadItem& item : converted) {
      seen[row[item.tensor] * kCodes + static_cast<std::size_t>(item.to)] = 1;
    }
  });
  comm.all_reduce_max(std::span<std::uint64_t>(seen));
  std::vector<TensorCast> casts;
  agree(comm, "load: match", [&] {
    auto of_tensor = seen.begin();
    for (std::size_t t = 0; t < wanted.size(); ++t) {
      if (wanted[t] != 2) continue;
      const TensorHead tensor = manifest.tensors.head(t);
      for (std::size_t code = 0; code < kCodes; ++code) {
        if (*of_tensor++ == 0) continue;
        casts.push_back({std::string(tensor.name), tensor.dtype, static_cast<DType>(code)});
      }
    }
  });
  return casts;
}

/// Fills what is converted. Returns the bytes read. Collective.
std::uint64_t move_converted(const Comm& comm, Engine& engine, EngineKind kind,
                             const Manifest& manifest, std::span<const LoadItem> items) {
  std::uint64_t bytes = 0;
  if (kind == EngineKind::direct) {
    agree(comm, "load: move", [&] { bytes = convert_windows(manifest, items); });
  } else {
    bytes = convert_windows(comm, engine, manifest, items);
  }
  return bytes;
}

std::uint64_t options_hash(const LoadOptions& options) {
  Digester digester;
  digester.update(static_cast<std::uint64_t>(options.engine));
  digester.update(static_cast<std::uint64_t>(options.transfer));
  digester.update(hash_of(options.mpio));
  digester.update(static_cast<std::uint64_t>(options.verify));
  digester.update(static_cast<std::uint64_t>(options.broadcast));
  digester.update(static_cast<std::uint64_t>(options.cast));
  update(digester, options.only);
  return digester.value();
}

/// `consequence`: what it means for the targets.
void throw_if_damaged(const Manifest& manifest, std::span<const Defect> defects,
                      std::string_view consequence) {
  if (defects.empty()) return;
  const Defect& first = defects.front();
  throw Error(
      Errc::corrupt,
      fmt::format(
          "load: {}{}; {}: use an older checkpoint, or see 'cairn verify {}'", first.text,
          defects.size() > 1 ? fmt::format(" (and {} more defects)", defects.size() - 1) : "",
          consequence, manifest.path().string()),
      /*rank=*/0);
}

/// The engine that can do it. Parallel HDF5 finds tensors by their names, and migrations
/// (pipeline/migrations) give them others, and a path. Only a load by it looks: that decodes all
/// entries of the table.
EngineKind engine_for(const Manifest& manifest, EngineKind wanted) {
  if (wanted == EngineKind::direct || !manifest.is_container()) return EngineKind::direct;
  const bool in_datasets =
      std::all_of(manifest.tensors.begin(), manifest.tensors.end(),
                  [](const TensorEntry& tensor) { return tensor.path.empty(); });
  return in_datasets ? wanted : EngineKind::direct;
}

/// Step 1. Collective.
Matched match_all(const Comm& comm, const Manifest& manifest,
                  std::span<const MutableTensorView> targets, const LoadOptions& options) {
  Matched found;
  std::vector<Argument> arguments;
  std::uint64_t matched[1] = {0};  // targets of the rank that has the most
  agree(comm, "load: match", [&] {
    found.kind = engine_for(manifest, options.engine);
    found.mine = match(manifest, targets, options);
    arguments = {{"checkpoint", identity_of(manifest)}, {"options", options_hash(options)}};
    found.wanted.resize(manifest.tensors.size(), 0);
    for (const ReadItem& item : found.mine.straight) found.wanted[item.tensor] = 1;
    for (const LoadItem& item : found.mine.converted) found.wanted[item.tensor] = 2;
    matched[0] = found.mine.targets;
    found.engine = make_engine(found.kind, options.transfer, options.mpio);
  });
  require_same(comm, "load: match", arguments, matched);
  if (!options.only.is_empty() && matched[0] == 0) {
    throw Error(Errc::not_found,
                fmt::format("load: LoadOptions::only matches tensors of '{}', but none that any "
                            "rank gives as a target: give one of them, or change the filter",
                            manifest.path().string()),
                /*rank=*/0);
  }
  comm.all_reduce_max(std::span<std::uint64_t>(found.wanted));
  return found;
}

/// Step 3. Collective. `aftermath` as in load_tensors.
void move_all(const Comm& comm, const Manifest& manifest, const LoadOptions& options,
              Matched& found, std::string_view aftermath, LoadResult& result) {
  try {
    move_straight(comm, *found.engine, found.kind, options, manifest, found.mine.straight, result);
    if (!result.casts.empty()) {
      result.bytes_read +=
          move_converted(comm, *found.engine, found.kind, manifest, found.mine.converted);
    }
  } catch (const Error& error) {
    throw Error(error.code(),
                fmt::format("{}; {}", error.what(),
                            aftermath.empty()
                                ? "the tensors are partly filled: load again before they are used"
                                : aftermath),
                error.rank());
  }
}

}  // namespace

LoadResult load_tensors(const Comm& comm, const Manifest& manifest,
                        std::span<const MutableTensorView> targets, const LoadOptions& options) {
  return detail::load_tensors(comm, manifest, targets, options, [] {});
}

LoadResult detail::load_tensors(const Comm& comm, const Manifest& manifest,
                                std::span<const MutableTensorView> targets,
                                const LoadOptions& options,
                                const std::function<void()>& before_move,
                                std::string_view aftermath) {
  Matched found = match_all(comm, manifest, targets, options);
  const std::vector<std::uint64_t>& wanted = found.wanted;
  LoadResult result;
  for (const std::uint64_t want : wanted) result.tensors += want != 0 ? 1 : 0;
  if (options.cast) result.casts = all_casts(comm, manifest, found.mine.converted, wanted);
  std::optional<HeldExtents> held;
  if (options.verify == VerifyWhen::loaded) {
    agree(comm, "load: match", [&] { held.emplace(manifest, wanted, found.mine.straight); });
    held->share(comm);
  }
  if (options.verify != VerifyWhen::never) {
    throw_if_damaged(manifest,
                     verify_wanted(comm, manifest, wanted, held ? &*held : nullptr).defects,
                     "nothing was loaded");
  }
  if (!result.casts.empty()) {
    agree(comm, "load: verify", [&] {
      sort_by_place(manifest, found.mine.converted);
      result.bytes_read += check_integers(manifest, found.mine.converted);
    });
  }
  before_move();
  move_all(comm, manifest, options, found, aftermath, result);
  if (held) {
    throw_if_damaged(
        manifest, verify_held(comm, manifest, *held),
        aftermath.empty() ? "the tensors hold damaged bytes and must not be used" : aftermath);
  }
  return result;
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
