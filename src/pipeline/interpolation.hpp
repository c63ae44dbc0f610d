#pragma once

#include <string>

#include "pipeline/value.hpp"

namespace cairn::detail {

/// Replaces what OmegaConf calls interpolations in the blocks of `document` (is_foreign_section
/// tells the others), and in what these refer to:
///   ${a.b.c}, ${list[0].x}     another value of the document; alone in a text, also a whole block
///   ${.x}, ${..x}              from the mapping that holds the value, from the one around it, ...
///   ${oc.env:NAME}             an environment variable; ${oc.env:NAME,default}; default null: none
///   ${oc.select:a.b,default}   another value of the document, if it is there
///   ${oc.decode:text}          the text itself: the key that takes it decides about its type
/// They nest, and stand anywhere in a text. \${ is a plain ${. Errors: usage (cycles, what does not
/// exist, unknown resolvers, an interpolation that does not end), unsafe (too large).
void interpolate(Value& document, const std::string& origin);

}  // namespace cairn::detail
