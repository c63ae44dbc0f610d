#pragma once

#include "pipeline/migrations/working.hpp"

namespace cairn::detail::migrations {

// A file of PyTorch's is told twice: the document "training" is its values as one tree, for those
// who look something up, and "objects", "opaque", "arrays" and "containers" are lists of them by
// path, from which a file of PyTorch's is written again. What a step changes in the tree these make
// so in the lists. Nothing for other documents. All Local.

void mirror_set(Working& working, const DocumentPlace& place, const Json& value);
void mirror_delete(Working& working, const DocumentPlace& place);
void mirror_move(Working& working, const DocumentPlace& from, const DocumentPlace& to,
                 const Json& value);
void mirror_rename(Working& working, const DocumentPlace& place, const std::string& to);
void mirror_wrap(Working& working, const DocumentPlace& place, const std::string& key);
void mirror_unwrap(Working& working, const DocumentPlace& place, const std::string& key);

}  // namespace cairn::detail::migrations
