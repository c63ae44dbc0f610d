// A conversion, step by step:
//  1. plan     every rank, from the same manifest: which tensors, their names and dtypes
//  2. verify   the ranks share the digests of what is wanted, where the source has any
//  3. write    into a hidden file, every rank its share, read back; then the file is published
// Of a container, 3 is a save whose bytes come from the source (docs/design.md, "Saving"). A
// file of safetensors or PyTorch's goes the same way: its first 8 bytes, without which it is none,
// are written last.
#include "checkpoint/convert.hpp"

#include <algorithm>
#include <system_error>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "checkpoint/convert_steps.hpp"
#include "checkpoint/filter.hpp"
#include "checkpoint/references.hpp"
#include "checkpoint/verify.hpp"
#include "mpi/same.hpp"

namespace cairn::detail {
namespace {

std::uint64_t options_hash(const ConvertOptions& options) {
  Digester digester;
  digester.update(static_cast<std::uint64_t>(options.to));
  digester.update(static_cast<std::uint64_t>(options.overwrite));
  digester.update(static_cast<std::uint64_t>(options.weights_only));
  digester.update(static_cast<std::uint64_t>(options.durable));
  digester.update(options.shard_bytes);
  digester.update(options.dtype ? static_cast<std::uint64_t>(*options.dtype) : 0);
  for (const auto& [name, dtype] : options.casts) {
    digester.update(name);
    digester.update(static_cast<std::uint64_t>(dtype));
  }
  for (const auto& [from, to] : options.rename) {
    digester.update(from);
    digester.update(to);
  }
  update(digester, options.select);
  return digester.value();
}

}  // namespace

void check_target(const Manifest& source, const std::filesystem::path& target,
                  const ConvertOptions& options) {
  std::error_code ignored;
  if (!std::filesystem::exists(target, ignored)) return;
  if (!options.overwrite) {
    fail(Errc::usage, "'{}' exists; name another file, or overwrite it with --force",
         target.string());
  }
  for (const FileEntry& file : source.files) {
    if (!std::filesystem::equivalent(file.path, target, ignored)) continue;
    fail(Errc::usage, "'{}' is a file of the checkpoint that is to be converted", target.string());
  }
  check_replaceable(target, /*may_call_hdf5=*/true);
}

std::uint64_t window_bytes(const ConvertOptions& options) {
  constexpr std::uint64_t kLeast = 1 << 20;
  constexpr std::uint64_t kMost = 32 << 20;  // larger requests are no faster
  return std::clamp(options.memory_bytes / 4, kLeast, kMost);
}

std::function<void(std::uint64_t)> progress_of(const ConvertOptions& options, std::uint64_t before,
                                               std::uint64_t total) {
  if (!options.progress) return {};
  return [=, &options](std::uint64_t done) { options.progress(before + done, total); };
}

void verify_source(const Comm& comm, const Manifest& source, std::span<const std::size_t> tensors,
                   std::string_view verb) {
  std::vector<std::uint64_t> wanted;
  agree(comm, fmt::format("{}: verify", verb), [&] {
    wanted.resize(source.tensors.size());
    for (const std::size_t t : tensors) wanted[t] = 1;
  });
  const VerifyReport report = verify_wanted(comm, source, wanted);
  if (report.defects.empty()) return;
  throw Error(Errc::corrupt,
              fmt::format("{}: {}; nothing was written", verb, report.defects.front().text),
              /*rank=*/0);
}

ConvertResult convert_checkpoint(const Comm& comm, const Manifest& source,
                                 const std::filesystem::path& target,
                                 const ConvertOptions& options) {
  ConvertPlan plan;
  std::vector<Argument> arguments;
  agree(comm, "convert: plan", [&] {
    if (target.filename().empty()) fail(Errc::usage, "'{}' does not name a file", target.string());
    if (comm.is_root()) check_target(source, target, options);
    plan = plan_conversion(source, options);
    arguments = {{"checkpoint", identity_of(source)},
                 {"path", digest_of(target.string())},
                 {"options", options_hash(options)}};
  });
  require_same(comm, "convert: plan", arguments);
  switch (options.to) {
    case TargetFormat::cairn:
      write_container(comm, source, target, plan, options);
      break;
    case TargetFormat::safetensors:
      write_safetensors(comm, source, target, plan, options);
      break;
    case TargetFormat::torch:
    case TargetFormat::lightning:
      write_torch(comm, source, target, plan, options);
      break;
  }
  return plan.result;
}

}  // namespace cairn::detail
