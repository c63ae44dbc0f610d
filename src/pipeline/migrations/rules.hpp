#pragma once

#include "pipeline/rules.hpp"

namespace cairn::detail::migrations {

/// A file of steps.
extern const BlockRule kMigrationRule;

}  // namespace cairn::detail::migrations
