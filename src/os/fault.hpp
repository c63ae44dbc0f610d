#pragma once

#include <string_view>

namespace cairn::detail {

/// Places where tests make the operating system, or this process, fail. CAIRN_FAULT is a
/// comma-separated list of POINT:RANK:ACTION[:N]; the Nth (first) pass of POINT on that world rank
/// does ACTION:
///   kill   SIGKILL of this process
///   error  a local Error (io); damage: one that says corrupt
///   stay   this process stays where it is, for ever
///   stop   this process stops (SIGSTOP) until somebody lets it go on
///   full   the write, or the reservation, at the point fails with ENOSPC
///   refuse the write at the point fails with EINVAL (no O_DIRECT), a reservation with EOPNOTSUPP
///   short  the write at the point transfers half of its bytes and says so
///   flip   the write at the point stores one wrong bit and says nothing
///   twice  the call at the point is made, and answers as one that a server got twice
/// Compiled in only with CAIRN_FAULT_POINTS; otherwise nothing remains of it.
enum class Fault { none, full, refused, short_write, flip, twice };

#ifdef CAIRN_FAULT_POINTS
Fault fault_point(std::string_view point);
#else
inline Fault fault_point(std::string_view) { return Fault::none; }
#endif

}  // namespace cairn::detail
