#include "checkpoint/prune.hpp"

#include <set>
#include <string>

#include "base/throw.hpp"
#include "manifest/names.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"

namespace cairn::detail {
namespace {

/// The checkpoint first: without it the marks say nothing, and without them it would be judged
/// anew.
void remove_with_marks(const RunCheckpoint& checkpoint) {
  remove_file(checkpoint.path);
  fault_point("remove.marks");
  remove_quietly(names::bad_mark(checkpoint.path));
  remove_quietly(names::verified_mark(checkpoint.path));
}

}  // namespace

void remove_checkpoints(const RunListing& listing, std::span<const Verdict> verdicts,
                        const std::function<void(const RunCheckpoint&)>& removed) {
  std::set<std::string> needed;  // by one that could not be removed
  for (const std::size_t i : removal_order(facts_of(listing), verdicts)) {
    const RunCheckpoint& checkpoint = listing.checkpoints[i];
    try {
      if (needed.contains(checkpoint.facts.name)) {
        fail(Errc::io, "another one that stays needs it");
      }
      if (is_pinned(checkpoint.path)) fail(Errc::io, "it was pinned meanwhile");
      remove_with_marks(checkpoint);
    } catch (const Error& error) {
      if (error.code() == Errc::not_found) continue;  // somebody else was faster
      needed.insert(checkpoint.facts.needs.begin(), checkpoint.facts.needs.end());
      fmt::print(stderr, "cairn: warning: the old checkpoint '{}' stays: {}\n",
                 checkpoint.path.string(), error.what());
      continue;
    }
    if (removed) removed(checkpoint);
  }
  for (const auto& mark : listing.orphaned) remove_quietly(mark);
}

}  // namespace cairn::detail
