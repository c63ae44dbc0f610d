// Which checkpoints of a run stay once another one is committed.
#include <exception>

#include "base/throw.hpp"
#include "checkpoint/prune.hpp"
#include "checkpoint/steps.hpp"
#include "manifest/names.hpp"

namespace cairn::detail {

void retain(const SaveRequest& request) noexcept {
  const RetentionPolicy& policy = request.options.retention;
  const std::string saved = request.target.filename().string();
  if (policy.keep_last == 0 || !names::parse_checkpoint_file(saved)) return;
  try {
    const std::filesystem::path dir = request.target.parent_path();
    const RunListing listing =
        list_run(dir.empty() ? std::filesystem::path(".") : dir, !request.in_background);
    remove_checkpoints(listing, judge_retention({policy, saved}, facts_of(listing)));
  } catch (const std::exception& error) {
    fmt::print(stderr, "cairn: warning: no old checkpoint is removed: {}\n", error.what());
  }
}

}  // namespace cairn::detail
