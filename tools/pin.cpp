#include <fmt/format.h>

#include "base/throw.hpp"
#include "checkpoint/marks.hpp"
#include "manifest/names.hpp"
#include "output.hpp"
#include "program.hpp"
#include "sources/local.hpp"
#include "verbs.hpp"

namespace cairn::tool {

int pin(const Comm& comm, const PinOptions& options, bool on) {
  const std::filesystem::path path = detail::resolve_local(comm, options.file);
  std::filesystem::path file;
  bool was = false;
  agree(comm, on ? "pin" : "unpin", [&] {
    if (!comm.is_root()) return;
    file = std::filesystem::canonical(path);  // 'last' means what it links to
    if (!detail::names::parse_checkpoint_file(file.filename().string())) {
      detail::fail(Errc::usage, "'{}' is no checkpoint of a run (step-*.h5); nothing removes it",
                   path.string());
    }
    was = detail::is_pinned(file);
    if (on) {
      detail::pin(file);
    } else {
      detail::unpin(file);
    }
  });
  print(comm, [&] {
    if (options.json) return to_text({{"path", file.string()}, {"pinned", on}, {"was", was}});
    return fmt::format("'{}' is {}{}\n", file.string(), on == was ? "already " : "",
                       on ? "pinned" : "not pinned");
  });
  return kFine;
}

}  // namespace cairn::tool
