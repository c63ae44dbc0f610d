#include <fmt/format.h>

#include "base/throw.hpp"
#include "cairn/source.hpp"
#include "sources/local.hpp"

namespace cairn {

using namespace detail;

std::filesystem::path resolve_source(const Comm& comm, const Source& source,
                                     const SourceSettings&) {
  std::string found;
  agree(comm, "resolve source", [&] {
    if (!comm.is_root()) return;
    if (const auto* local = std::get_if<LocalSource>(&source)) {
      found = find_local(*local).string();
    } else if (const auto* run = std::get_if<RunSource>(&source)) {
      if (run->fork) {
        fail(Errc::unsupported,
             "source.fork is not supported by this version of cairn: the run '{}' would be "
             "continued, not forked; take fork away, and give save.dir another directory",
             run->run_id);
      }
      found = find_run(*run).string();
    } else {
      fail(Errc::unsupported, "the source type '{}' is not supported by this version of cairn",
           source_type(source));
    }
  });
  comm.broadcast(found);
  return found;
}

}  // namespace cairn
