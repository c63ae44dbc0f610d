#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "cairn/export.hpp"

namespace cairn::detail {

/// "[days-][[hours:]minutes:]seconds", as Slurm writes the time that is left, in seconds; nothing
/// for any other text ("UNLIMITED", "INVALID").
CAIRN_EXPORT std::optional<double> parse_slurm_time(std::string_view text);

/// How this process learns what Slurm knows; replaced by tests.
struct SlurmAccess {
  std::function<std::optional<std::string>(const std::string& name)> environment;
  std::function<std::optional<std::string>(const std::string& job)> time_left;  ///< asks squeue
  std::function<double()> unix_time;
};
/// `given_up`: whether nobody waits for squeue any more; asked from the thread that waits.
SlurmAccess slurm_access(std::function<bool()> given_up = {});

struct SlurmAnswer {
  std::optional<double> seconds_left;
  std::string warning;  ///< why it is not known, where a job runs; else empty
  bool is_known() const { return warning.empty(); }
};
/// From SLURM_JOB_END_TIME, or else from squeue. Local; may take 10 s where squeue hangs.
CAIRN_EXPORT SlurmAnswer ask_slurm(const SlurmAccess& access);
/// From squeue alone, which also knows of a limit that was changed since the job began.
CAIRN_EXPORT SlurmAnswer ask_squeue(const SlurmAccess& access);

}  // namespace cairn::detail
