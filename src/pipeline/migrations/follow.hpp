#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "pipeline/migrations/working.hpp"

namespace cairn::detail::migrations {

/// What became of parameters, by their dotted names: other names, several (its parts), or none. A
/// name that several became is the whole that they were put together to.
using NameChanges = std::map<std::string, std::vector<std::string>>;

/// What a parameter is called then; the same where nothing is said of it. Local.
std::vector<std::string> names_now(const NameChanges& changes, const std::string& name);

/// A list of names as it is then; a whole stands where the first of its parts did. `seen` are the
/// names of all lists of which only one may have each. Local. Errors: mismatch (a whole has parts
/// in several lists).
Json followed(const Json& list, const NameChanges& changes, std::set<std::string>& seen);

/// Errors: unsupported (one of them stands for another, or another for it). Local.
void require_untied(Working& working, const NameChanges& changes);

/// Makes the documents name parameters as they are called now: those of tied weights, of the
/// optimizer, and of the tree of a file of PyTorch's, whose paths follow. Nothing where documents
/// do not follow. Local. Errors: unsupported (a parameter whose path does not end with its name
/// becomes several), mismatch (a whole has parts in several groups of the optimizer, or these
/// differ in what the optimizer keeps of them beside tensors).
void follow_names(Working& working, const NameChanges& changes);

}  // namespace cairn::detail::migrations
