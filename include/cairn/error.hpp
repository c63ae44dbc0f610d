#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "cairn/export.hpp"

namespace cairn {

/// What a caller can do about a failure.
enum class Errc {
  usage,        ///< the call or the configuration is wrong: fix it
  mismatch,     ///< ranks disagree, or the checkpoint does not fit the model
  not_found,    ///< the named file, run or tensor does not exist
  corrupt,      ///< damaged or incomplete data: use another checkpoint
  unsupported,  ///< understood, but not handled (for example a newer format)
  unsafe,       ///< would execute code, escape a directory or exhaust the machine
  io,           ///< the operating system refused: space, permission, hardware
  refused,      ///< the run directory must not be used now: another job has it, or it gets no further
  timeout,      ///< a rank or a server did not answer within the deadline
  internal,     ///< a defect in cairn
};

CAIRN_EXPORT std::string_view to_string(Errc code) noexcept;

/// The one exception of cairn. Errors of collective calls are *agreed*: every rank throws the same
/// code, rank and text. The text says which step, which rank, which file, and what to do next.
class CAIRN_EXPORT Error : public std::runtime_error {
 public:
  static constexpr int kLocal = -1;

  Error(Errc code, const std::string& text, int rank = kLocal)
      : std::runtime_error(text), code_(code), rank_(rank) {}
  ~Error() override;

  Errc code() const noexcept { return code_; }
  /// The rank on which the failure happened, or kLocal for an error that was not agreed.
  int rank() const noexcept { return rank_; }

 private:
  Errc code_;
  int rank_;
};

}  // namespace cairn
