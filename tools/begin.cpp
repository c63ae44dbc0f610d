#include <optional>

#include "base/throw.hpp"
#include "cairn/checkpoint.hpp"
#include "cairn/run.hpp"
#include "manifest/names.hpp"
#include "output.hpp"
#include "program.hpp"
#include "run_options.hpp"
#include "verbs.hpp"

namespace cairn::tool {

int begin(const Comm& comm, const BeginOptions& options) {
  std::filesystem::path dir;
  std::optional<std::uint64_t> step;
  agree(comm, "begin", [&] {
    dir = run_directory(options.run);
    if (!comm.is_root()) return;
    if (const auto newest = newest_checkpoint(dir)) {
      step = detail::names::parse_checkpoint_file(newest->filename().string());
    }
  });
  std::string refusal;
  try {
    RestartGuard(dir, options.max_restarts).begin(comm, step);
  } catch (const Error& error) {
    // Agreed: every rank comes here.
    if (error.code() != Errc::refused) throw;
    refusal = error.what();
  }
  print(comm, [&] {
    if (options.json) {
      return to_text({{"run", dir.string()},
                      {"step", step ? Json(*step) : Json()},
                      {"refused", refusal.empty() ? Json() : Json(refusal)}});
    }
    if (!refusal.empty()) return refusal + "\n";
    return step ? fmt::format("goes on at step {}\n", *step) : std::string("begins\n");
  });
  return refusal.empty() ? kFine : kDifferent;
}

}  // namespace cairn::tool
