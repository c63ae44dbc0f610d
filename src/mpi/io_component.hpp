#pragma once

#include <string>
#include <string_view>

namespace cairn::detail {

/// The MPI library, "Open MPI v4.1.4". Local.
std::string mpi_library();

/// The implementation of MPI-IO that this process uses: "ompio", "romio321", ... Where Open MPI was
/// not told which, the one that it prefers. Empty when unknown. Call it after a file was opened by
/// MPI-IO: only then it is settled. Local.
std::string io_component();

/// Makes MPI-IO use `wanted`, "ompio" or "romio" (whatever its version). Only the first file that a
/// process opens by MPI-IO decides, so this has to come before it. Local; the same on all ranks.
/// Errors: usage when it is too late, or the environment says otherwise, with what to export
/// instead; unsupported where this MPI has no such component.
void pin_io_component(std::string_view wanted);

}  // namespace cairn::detail
