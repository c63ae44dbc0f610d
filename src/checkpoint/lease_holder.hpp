#pragma once

#include <cstdint>
#include <string>

namespace cairn::detail {

/// Who holds a lease, or wants it: what lies in the file. All functions are Local.
struct LeaseHolder {
  std::uint64_t nonce = 0;  ///< of this taking of the lease
  std::string user;
  std::string host;
  std::string boot;       ///< of the machine; equal on no two
  std::string processes;  ///< the space in which `process` counts: a container has its own
  std::int64_t process = 0;
  std::uint64_t process_start = 0;  ///< tells it from a later one of the same number
  std::string job;                  ///< of Slurm, with its cluster; empty: none
  std::uint64_t restarts = 0;       ///< how often Slurm requeued it
  std::string since;                ///< UTC, by the clock of `host`
};

/// This process.
LeaseHolder this_holder(std::uint64_t nonce);

/// The first line counts the heartbeats in kBeatBytes bytes, so that a holder can count on in place.
inline constexpr std::size_t kBeatBytes = 21;
std::string beat_line(std::uint64_t beats);
/// The file's text after `beats` heartbeats.
std::string lease_text(const LeaseHolder& holder, std::uint64_t beats);
/// Who holds it, by the file's text. Text that is none of ours gives a holder of whom nothing but a
/// nonce is known, made from the text behind the first line.
LeaseHolder holder_of(const std::string& text);

enum class Life { alive, dead, unknown };
/// Whether `holder` still is, as far as `mine`, who runs here, can know without watching: of a
/// process on the same machine; and of the same job before it was requeued, which is dead.
Life judge_life(const LeaseHolder& holder, const LeaseHolder& mine);

/// "alice on node7 (process 4711, job 99), since 2026-01-31T12:00:00Z by its clock"
std::string describe(const LeaseHolder& holder);

}  // namespace cairn::detail
