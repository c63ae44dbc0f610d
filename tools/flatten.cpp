#include "checkpoint/flatten.hpp"

#include <fmt/format.h>

#include "output.hpp"
#include "program.hpp"
#include "sources/local.hpp"
#include "verbs.hpp"

namespace cairn::tool {

int flatten(const Comm& comm, const FlattenOptions& options) {
  const Manifest source = open_checkpoint(comm, detail::resolve_local(comm, options.in));
  detail::ConvertOptions flatten;
  flatten.overwrite = options.force;
  flatten.memory_bytes = options.memory_bytes;
  if (comm.is_root()) flatten.progress = progress_bar();
  const auto result = detail::flatten_checkpoint(comm, source, options.out, flatten);
  print(comm, [&] {
    if (options.json) {
      return to_text({{"path", options.out},
                      {"tensors", result.tensors},
                      {"bytes", result.bytes},
                      {"files", source.files.size()}});
    }
    return fmt::format("{}: {}, {}, from {}\n", options.out, counted(result.tensors, "tensor"),
                       human_bytes(result.bytes), counted(source.files.size(), "file"));
  });
  return kFine;
}

}  // namespace cairn::tool
