#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string_view>

#include "checkpoint/convert.hpp"
#include "checkpoint/convert_plan.hpp"
#include "transfer/copy_writer.hpp"

namespace cairn::detail {

/// The parts of a conversion, whatever it writes.

/// Errors: usage, where `target` may not be written. Local.
void check_target(const Manifest& source, const std::filesystem::path& target,
                  const ConvertOptions& options);
/// Of the memory for bytes on their way: CopyWriter has a window as they are stored, and one as
/// they are written. Local.
std::uint64_t window_bytes(const ConvertOptions& options);
/// For a file of which this rank writes a part, of `total` bytes in all files, after `before` bytes
/// in others. Lifetime: that of `options`. Local.
std::function<void(std::uint64_t)> progress_of(const ConvertOptions& options, std::uint64_t before,
                                               std::uint64_t total);

/// Checks the digests and checksums of these tensors of the source. To be called when they are
/// copied and before the copy is published: the disk takes the copy meanwhile. Collective.
/// Errors: corrupt, in the name of `verb`.
void verify_source(const Comm& comm, const Manifest& source, std::span<const std::size_t> tensors,
                   std::string_view verb);

/// Write and publish what was planned. Collective. Errors: those of convert_checkpoint.
void write_container(const Comm& comm, const Manifest& source, const std::filesystem::path& target,
                     const ConvertPlan& plan, const ConvertOptions& options);
void write_safetensors(const Comm& comm, const Manifest& source,
                       const std::filesystem::path& target, const ConvertPlan& plan,
                       const ConvertOptions& options);
void write_torch(const Comm& comm, const Manifest& source, const std::filesystem::path& target,
                 const ConvertPlan& plan, const ConvertOptions& options);

}  // namespace cairn::detail
