#pragma once

#include <string>
#include <vector>

#include "pipeline/migrations/working.hpp"

namespace cairn::detail::migrations {

/// What a step did.
struct Outcome {
  std::size_t changed = 0;            ///< names, tensors or values
  std::vector<std::string> examples;  ///< a few of them, as a person reads them
  /// Steps for undo_step that bring the tensors back, in their order. Documents come back by
  /// themselves (history.hpp).
  Json undo = Json::array();
  std::string no_undo;  ///< why the tensors can't come back; empty: they can
};

/// Carries out one step of a migration. Local. Errors: not_found (it finds nothing to do, and need
/// not), mismatch (names collide, shapes do not fit), unsupported, usage.
Outcome apply_step(Working& working, const Json& step);

/// Carries out a step of Outcome::undo. Local. Errors: corrupt, where it does not fit.
void undo_step(Working& working, const Json& step);

// By what they change. Each takes the steps of some types; `type` is one of them.

Outcome rename_step(Working& working, const Json& step);        // rename
Outcome rename_regex_step(Working& working, const Json& step);  // rename_regex
Outcome wrap_step(Working& working, const Json& step);          // wrap, unwrap
Outcome drop_step(Working& working, const Json& step);          // drop
Outcome unite_step(Working& working, const Json& step);         // unite
Outcome split_step(Working& working, const Json& step);         // split
Outcome merge_step(Working& working, const Json& step);         // merge
Outcome cast_step(Working& working, const Json& step);          // cast
Outcome permute_step(Working& working, const Json& step);       // permute
Outcome document_step(Working& working, const Json& step);      // set, delete, move, ...
Outcome class_step(Working& working, const Json& step);         // rename_class, drop_class

// The ways back.
void rename_to(Working& working, const std::map<std::string, std::string>& names);
void copy_to(Working& working, const std::string& name, const std::vector<std::string>& copies);
void permute_all(Working& working, const std::vector<std::string>& names, std::size_t dim,
                 const std::vector<std::uint64_t>& order);

/// A parameter that is divided into others, or put together from them, along a dimension.
struct Division {
  std::string whole;
  std::vector<std::string> parts;    ///< in their order
  std::vector<std::uint64_t> sizes;  ///< of the parts
};
/// All at once: each sees the names of before. Where there are no sizes, the parts of a split are
/// equal; they are filled in. Local. Errors: those of apply_step.
void split_all(Working& working, std::vector<Division>& divisions, std::size_t dim);
void merge_all(Working& working, std::vector<Division>& divisions, std::size_t dim);

/// The parameters that any of a step's patterns matches, in their order; each pattern must match
/// one unless the step is optional. Local. Errors: not_found.
std::vector<std::string> matched(Working& working, const Json& step, bool whole_names);
/// Errors: not_found, with what there is that looks like it.
[[noreturn]] void nothing_matches(Working& working, const std::string& pattern);
bool is_optional(const Json& step);
void add_example(Outcome& outcome, std::string text);

}  // namespace cairn::detail::migrations
