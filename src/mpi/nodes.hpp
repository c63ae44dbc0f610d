#pragma once

#include <optional>

#include "cairn/comm.hpp"

namespace cairn::detail {

/// Whether this rank is the lowest of its node among those that are candidates. Collective.
bool is_first_on_node(const Comm& comm, bool candidate);

/// A communicator of the ranks that give the same `part` (at least 0), in their order; nothing
/// where none is given. Errors that it gives name ranks by their numbers in `comm`. To be closed by
/// those that have it. Collective on `comm`.
std::optional<Comm> part_of(const Comm& comm, std::optional<int> part);

/// A communicator of rank 0 and the members, in their order; nothing on the other ranks. To be
/// closed by those that have it. Collective.
std::optional<Comm> with_members(const Comm& comm, bool member);

}  // namespace cairn::detail
