#pragma once

#include <mpi.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cairn/error.hpp"
#include "cairn/export.hpp"

namespace cairn {

class Comm;

namespace detail {
class Funnel;
class PendingMax;
Comm make_funnelled(const Comm& comm, Funnel& funnel);
std::optional<Comm> part_of(const Comm& comm, std::optional<int> part);
}  // namespace detail

/// A failure as it travels between ranks.
struct Failure {
  Errc code = Errc::internal;
  int rank = Error::kLocal;
  std::string text;
  bool agreed = false;  ///< all ranks know it already; its text names step and rank
};

/// cairn's own communicator: a duplicate of the user's, so that messages never mix, with errors
/// returned instead of fatal. Every wait has a deadline; past it the call throws Errc::timeout that
/// names the ranks that did not come, and the communicator is unusable from then on.
///
/// The destructor does not communicate: it frees nothing. Call close() where all ranks meet.
class CAIRN_EXPORT Comm {
 public:
  static constexpr std::chrono::seconds kDefaultDeadline{600};

  /// Collective on `parent`. Errors: usage when MPI is not initialised or already finalised.
  explicit Comm(MPI_Comm parent, std::chrono::milliseconds deadline = kDefaultDeadline);
  ~Comm();
  Comm(Comm&&) noexcept;
  Comm& operator=(Comm&&) noexcept;
  Comm(const Comm&) = delete;
  Comm& operator=(const Comm&) = delete;

  /// Frees the duplicate. Collective.
  void close();

  /// This process among size() ones, from 0. Local.
  int rank() const noexcept;
  /// Local.
  int size() const noexcept;
  bool is_root() const noexcept { return rank() == 0; }
  std::chrono::milliseconds deadline() const noexcept;
  /// The duplicate itself, for parallel HDF5. Lifetime: until close(). Local.
  MPI_Comm raw() const noexcept;

  /// Copies rank 0's bytes to all ranks. Collective. Any size.
  void broadcast(std::vector<std::byte>& bytes) const;
  void broadcast(std::string& text) const;
  /// Copies the bytes of rank `root` to all ranks, which know their number: at most 1 GiB.
  /// Collective.
  void broadcast(std::vector<std::byte>& bytes, int root) const;
  /// All ranks' bytes in rank order on rank 0; empty elsewhere. Collective.
  std::vector<std::vector<std::byte>> gather(std::span<const std::byte> bytes) const;
  /// Inverse of gather: part r of rank 0's `parts` for rank r; other ranks' are ignored.
  /// Collective. Errors: internal when rank 0 has not one part for each rank.
  std::vector<std::byte> scatter(const std::vector<std::vector<std::byte>>& parts) const;
  /// Words for each rank (by rank) against the words from each rank. Collective. Errors: internal
  /// when there is not one part for each rank; unsupported above 2^31 words in or out of a rank.
  std::vector<std::vector<std::uint64_t>> exchange(
      const std::vector<std::vector<std::uint64_t>>& parts) const;
  /// Element-wise over ranks, in place, on all ranks. Collective; equal lengths on all ranks.
  void all_reduce_max(std::span<std::uint64_t> values) const;
  void all_reduce_sum(std::span<std::uint64_t> values) const;
  void all_reduce_max(std::span<double> values) const;
  /// Bit by bit.
  void all_reduce_or(std::span<std::uint64_t> values) const;
  void all_reduce_xor(std::span<std::uint64_t> values) const;
  /// Sum of the values of all lower ranks. Collective.
  std::vector<std::uint64_t> exclusive_sum(std::span<const std::uint64_t> values) const;
  /// Whether all ranks gave the same value. Collective.
  bool all_equal(std::uint64_t value) const;

  /// The failure of the lowest rank that has one, the same on all ranks. Collective. `step` is what
  /// a timeout names.
  std::optional<Failure> first_failure(std::optional<Failure> mine, std::string_view step) const;

 private:
  friend Comm detail::make_funnelled(const Comm& comm, detail::Funnel& funnel);
  friend class detail::PendingMax;
  friend std::optional<Comm> detail::part_of(const Comm& comm, std::optional<int> part);

  struct State;
  std::unique_ptr<State> state_;
};

/// Describes the exception being handled. Call inside a catch block. Local.
CAIRN_EXPORT Failure describe_current_exception(int rank);
/// Throws the agreed form of `failure`: "step: rank r: cause". Local.
[[noreturn]] CAIRN_EXPORT void throw_agreed(std::string_view step, const Failure& failure);

/// Runs `local`, which may throw anything but must not communicate, and agrees on the outcome: when
/// it failed on any rank, all ranks throw the Error of the lowest one. Collective on `comm`.
template <class F>
void agree(const Comm& comm, std::string_view step, F&& local) {
  std::optional<Failure> mine;
  try {
    std::forward<F>(local)();
  } catch (...) {
    mine = describe_current_exception(comm.rank());
  }
  if (auto first = comm.first_failure(std::move(mine), step)) throw_agreed(step, *first);
}

}  // namespace cairn
