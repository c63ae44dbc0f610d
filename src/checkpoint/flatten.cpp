#include "checkpoint/flatten.hpp"

#include "base/throw.hpp"
#include "checkpoint/rewrite.hpp"

namespace cairn::detail {

ConvertResult flatten_checkpoint(const Comm& comm, const Manifest& source,
                                 const std::filesystem::path& target,
                                 const ConvertOptions& options) {
  agree(comm, "flatten: plan", [&] {
    if (source.is_container()) return;
    fail(Errc::usage, "'{}' is no container of cairn's; 'cairn convert' makes one of it",
         source.path().string());
  });
  return rewrite_container(comm, "flatten", source, target, options);
}

}  // namespace cairn::detail
