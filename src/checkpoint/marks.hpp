#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cairn/export.hpp"

namespace cairn::detail {

/// What is known of a checkpoint besides its bytes, in hidden files beside it: `.<name>.pinned`,
/// `.<name>.bad`, `.<name>.verified`. Files of their own, because a checkpoint is never written to
/// again, and because a job, a login node and a tool may tell different things at once. All
/// functions are Local; Errors: io.

/// A finding about the bytes that a file had.
struct Mark {
  std::string reason;
  std::string at;  ///< UTC, by the clock of `host`
  std::string host;
  std::uint64_t bytes = 0;
  std::uint64_t fingerprint = 0;
  std::int64_t modified = 0;  ///< the file's time, nanoseconds
  /// Whose bytes in the file are damaged. Nothing: too many to be listed, it may be any.
  std::optional<std::vector<std::string>> tensors = std::vector<std::string>{};
};

/// Says that the file is damaged, why, and, for files that take tensors from it, which of its
/// tensors are, besides those that are known to be; takes away what says that it is whole.
void mark_bad(const std::filesystem::path& checkpoint, const std::string& reason,
              std::vector<std::string> tensors = {});
/// Says that all digests were right; takes away what says that it is bad.
void mark_verified(const std::filesystem::path& checkpoint);

/// The mark, if it is about the bytes that the file has now, by size and fingerprint. The mark of a
/// bad file also goes by its time: one that was brought back from elsewhere differs in nothing else
/// where the damage was in its middle.
std::optional<Mark> bad_mark_of(const std::filesystem::path& checkpoint);
std::optional<Mark> verified_mark_of(const std::filesystem::path& checkpoint);

/// A pin is about the name: whoever saves that step again saves a pinned checkpoint.
void pin(const std::filesystem::path& checkpoint);
/// False: there was no pin.
bool unpin(const std::filesystem::path& checkpoint);
bool is_pinned(const std::filesystem::path& checkpoint);

}  // namespace cairn::detail
