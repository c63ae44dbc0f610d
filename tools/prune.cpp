#include "checkpoint/prune.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <optional>

#include "base/throw.hpp"
#include "cairn/run.hpp"
#include "manifest/names.hpp"
#include "os/file.hpp"
#include "output.hpp"
#include "program.hpp"
#include "run_options.hpp"
#include "verbs.hpp"

namespace cairn::tool {
namespace {

namespace fs = std::filesystem;

/// A save may be on its way that holds no lease: what was written to lately stays.
constexpr std::int64_t kOldSeconds = 3600;

struct Pruned {
  detail::RunListing listing;
  std::vector<detail::Verdict> verdicts;
  std::vector<std::size_t> gone;         ///< or would go: positions of checkpoints
  std::vector<fs::path> partial;         ///< the same of partial files
  std::vector<std::string> not_partial;  ///< why partial files stay
};

std::int64_t modified_at(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) detail::fail_system("examine", path, errno);
  return status.st_mtim.tv_sec;
}

/// By the clock of whoever keeps the files: the lease was just made. Local.
void choose_partial(const fs::path& dir, Pruned& pruned) {
  const std::int64_t now = modified_at(dir / detail::names::kLease);
  for (const auto& partial : pruned.listing.partial) {
    const std::int64_t age = now - modified_at(partial.path);
    if (age >= kOldSeconds) {
      pruned.partial.push_back(partial.path);
    } else {
      pruned.not_partial.push_back(fmt::format("{} was written to {} s ago; an hour is waited",
                                               partial.path.filename().string(), age));
    }
  }
}

/// Removes what saves left that died, while no job can begin another one. Collective.
void prune_partial(const Comm& comm, const fs::path& dir, const PruneOptions& options,
                   Pruned& pruned) {
  std::optional<RunLease> lease;
  try {
    lease.emplace(comm, dir, LeaseOptions{.patience = std::chrono::milliseconds(0)});
  } catch (const Error& error) {
    // Agreed: every rank comes here.
    if (error.code() != Errc::refused) throw;
    pruned.not_partial.push_back(error.what());
    return;
  }
  agree(comm, "prune", [&] {
    if (!comm.is_root()) return;
    choose_partial(dir, pruned);
    if (options.dry_run) return;
    for (const fs::path& partial : pruned.partial) detail::remove_file(partial);
  });
}

void prune_checkpoints(const fs::path& dir, const PruneOptions& options, Pruned& pruned) {
  const RetentionPolicy policy = policy_of(options.keep);
  if (policy.keep_last == 0 && !options.bad && !options.partial) {
    detail::fail(Errc::usage, "say what is to be removed: --keep-last N, --bad or --partial");
  }
  pruned.listing = detail::list_run(dir, /*may_call_hdf5=*/true);
  const auto facts = detail::facts_of(pruned.listing);
  pruned.verdicts = detail::judge_retention({policy, {}, options.bad}, facts);
  if (options.dry_run) {
    pruned.gone = detail::removal_order(facts, pruned.verdicts);
    return;
  }
  detail::remove_checkpoints(pruned.listing, pruned.verdicts, [&](const auto& checkpoint) {
    pruned.gone.push_back(
        static_cast<std::size_t>(&checkpoint - pruned.listing.checkpoints.data()));
  });
}

std::string text_of(const Pruned& pruned, bool dry_run) {
  const auto& all = pruned.listing.checkpoints;
  std::uint64_t bytes = 0;
  Table table;
  for (const std::size_t i : pruned.gone) {
    bytes += all[i].bytes;
    table.add({dry_run ? "would go" : "removed", all[i].facts.name, human_bytes(all[i].bytes),
               all[i].bad ? "bad: " + all[i].bad->reason : "no rule keeps it"});
  }
  for (const fs::path& partial : pruned.partial) {
    table.add(
        {dry_run ? "would go" : "removed", partial.filename().string(), "", "a save that died"});
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!pruned.verdicts[i].keep()) continue;
    table.add({"stays", all[i].facts.name, human_bytes(all[i].bytes),
               joined(pruned.verdicts[i].why, ", ")});
  }
  std::string text = table.text();
  for (const std::string& why : pruned.not_partial) text += fmt::format("partial files: {}\n", why);
  return text + fmt::format("{} {} in {}\n", human_bytes(bytes),
                            dry_run ? "would become free" : "became free",
                            counted(pruned.gone.size(), "checkpoint"));
}

Json json_of(const Pruned& pruned, bool dry_run) {
  const auto& all = pruned.listing.checkpoints;
  Json json = {{"dry_run", dry_run},
               {"removed", Json::array()},
               {"stays", Json::array()},
               {"partial", Json::array()},
               {"notes", pruned.not_partial}};
  for (const std::size_t i : pruned.gone) {
    json["removed"].push_back({{"path", all[i].path.string()}, {"bytes", all[i].bytes}});
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (!pruned.verdicts[i].keep()) continue;
    json["stays"].push_back({{"path", all[i].path.string()}, {"why", pruned.verdicts[i].why}});
  }
  for (const fs::path& partial : pruned.partial) json["partial"].push_back(partial.string());
  return json;
}

}  // namespace

int prune(const Comm& comm, const PruneOptions& options) {
  Pruned pruned;
  fs::path dir;
  agree(comm, "prune", [&] {
    dir = run_directory(options.run);
    if (comm.is_root()) prune_checkpoints(dir, options, pruned);
  });
  if (options.partial) prune_partial(comm, dir, options, pruned);
  print(comm, [&] {
    return options.json ? to_text(json_of(pruned, options.dry_run))
                        : text_of(pruned, options.dry_run);
  });
  return kFine;
}

}  // namespace cairn::tool
