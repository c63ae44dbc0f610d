#pragma once

#include <map>
#include <string>
#include <vector>

#include "pipeline/migrations/working.hpp"

namespace cairn::detail::migrations {

/// What became of parameters, by their dotted names: other names, several (its parts), or none. A
/// name that several became is the whole that they were put together to.
using NameChanges = std::map<std::string, std::vector<std::string>>;

/// What a parameter is called then; the same where nothing is said of it. Local.
std::vector<std::string> names_now(const NameChanges& changes, const std::string& name);

/// Errors: unsupported (one of them stands for another, or another for it). Local.
void require_untied(Working& working, const NameChanges& changes);

/// Makes the documents name parameters as they are called now: those of tied weights, of the
/// optimizer, and of the tree of a file of PyTorch's. Nothing where documents do not follow. Local.
/// Errors: unsupported (parameters that are numbered in a file of PyTorch's become more or fewer),
/// mismatch (a whole has parts in several groups of the optimizer).
void follow_names(Working& working, const NameChanges& changes);

}  // namespace cairn::detail::migrations
