#include "checkpoint/run_listing.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>

#include "base/json_numbers.hpp"
#include "cairn/error.hpp"
#include "checkpoint/references.hpp"
#include "checkpoint/usable.hpp"
#include "manifest/names.hpp"
#include "os/file.hpp"

namespace cairn::detail {
namespace {

namespace fs = std::filesystem;

/// Programs may save without a context, or with one of another form: then less is known.
void take_context(const std::string& text, RunCheckpoint& checkpoint) {
  try {
    const auto context = nlohmann::json::parse(text);
    checkpoint.epoch = context.at("epoch").get<std::uint64_t>();
    for (const auto& [name, value] : context.at("metrics").items()) {
      checkpoint.facts.metrics[name] = number_from_json(value);
    }
  } catch (const nlohmann::json::exception&) {
    return;
  }
}

/// The names in a run's directory, so that nothing is looked for that is not there.
using Present = std::set<std::string>;

bool is_in(const Present& present, const fs::path& path) {
  return present.contains(path.filename().string());
}

RunCheckpoint checkpoint_of(const fs::path& path, CommittedFile file, const Present& present) {
  RunCheckpoint checkpoint;
  checkpoint.path = path;
  checkpoint.bytes = file.bytes;
  if (is_in(present, names::bad_mark(path))) checkpoint.bad = bad_mark_of(path);
  if (is_in(present, names::verified_mark(path))) checkpoint.verified = verified_mark_of(path);
  CheckpointFacts& facts = checkpoint.facts;
  facts.name = path.filename().string();
  facts.step = names::parse_checkpoint_file(facts.name).value_or(file.commit.step);
  facts.committed_at = file.commit.committed_at;
  facts.pinned = is_in(present, names::pin_file(path));
  facts.needs = std::move(file.needs);
  facts.bad = checkpoint.bad.has_value();
  facts.verified = checkpoint.verified.has_value();
  take_context(file.context, checkpoint);
  checkpoint.commit = std::move(file.commit);
  return checkpoint;
}

/// Whether the file is a committed checkpoint; if not it is one of the others, or gone.
bool add_checkpoint_file(const fs::directory_entry& entry, const Present& present,
                         RunListing& listing) {
  try {
    if (auto file = committed_file(entry.path())) {
      listing.checkpoints.push_back(checkpoint_of(entry.path(), std::move(*file), present));
      return true;
    }
  } catch (const Error& error) {
    if (error.code() == Errc::not_found) return true;  // removed meanwhile
    if (error.code() != Errc::unsupported) throw;
  }
  std::error_code gone;
  listing.others.push_back({entry.path(), entry.file_size(gone)});
  return false;
}

void add_sidecar(const fs::directory_entry& entry, const names::SidecarName& sidecar,
                 const Present& present, RunListing& listing) {
  std::error_code gone;
  if (sidecar.kind == names::Sidecar::partial || sidecar.kind == names::Sidecar::skeleton) {
    listing.partial.push_back({entry.path(), entry.file_size(gone)});
  } else if (sidecar.kind != names::Sidecar::pin && !present.contains(sidecar.checkpoint) &&
             !fs::exists(entry.path().parent_path() / sidecar.checkpoint)) {
    listing.orphaned.push_back(entry.path());
  }
}

/// `references`: of files that no rule of a run judges.
void add_needs(RunListing& listing,
               const std::map<std::string, std::vector<std::string>>& references) {
  for (const auto& [name, needs] : references) {
    for (RunCheckpoint& one : listing.checkpoints) {
      if (std::find(needs.begin(), needs.end(), one.facts.name) == needs.end()) continue;
      one.facts.needed_by = name;
    }
  }
}

}  // namespace

RunListing list_run(const fs::path& dir, bool may_call_hdf5) {
  RunListing listing;
  std::vector<fs::directory_entry> files;
  Present present;
  for (const fs::directory_entry& entry : entries_of(dir)) {
    if (!is_own_file(entry)) continue;
    files.push_back(entry);
    present.insert(entry.path().filename().string());
  }
  std::map<std::string, std::vector<std::string>> references;
  for (const fs::directory_entry& entry : files) {
    const std::string name = entry.path().filename().string();
    if (names::parse_checkpoint_file(name)) {
      if (add_checkpoint_file(entry, present, listing)) continue;
    } else if (const auto sidecar = names::parse_sidecar(name)) {
      add_sidecar(entry, *sidecar, present, listing);
    }
    // Hidden files are saves that did not finish.
    if (!name.starts_with('.')) references[name] = references_of(entry.path(), may_call_hdf5);
  }
  const auto by_path = [](const auto& a, const auto& b) { return a.path < b.path; };
  std::sort(listing.checkpoints.begin(), listing.checkpoints.end(),
            [](const auto& a, const auto& b) { return a.facts.step < b.facts.step; });
  std::sort(listing.others.begin(), listing.others.end(), by_path);
  std::sort(listing.partial.begin(), listing.partial.end(), by_path);
  std::error_code error;
  const std::string linked = fs::read_symlink(dir / names::kLast, error).filename().string();
  for (RunCheckpoint& one : listing.checkpoints) one.facts.linked = one.facts.name == linked;
  add_needs(listing, references);
  for (RunCheckpoint& one : listing.checkpoints) {
    if (one.bad || one.facts.needs.empty()) continue;
    one.bad = unusable_mark_of(one.path, may_call_hdf5);
    one.facts.bad = one.bad.has_value();
  }
  return listing;
}

std::string why_not_committed(const fs::path& path) {
  try {
    read_container(path);
    return "it was rewritten by another program";
  } catch (const Error& error) {
    return error.what();
  }
}

std::vector<CheckpointFacts> facts_of(const RunListing& listing) {
  std::vector<CheckpointFacts> facts;
  for (const RunCheckpoint& one : listing.checkpoints) facts.push_back(one.facts);
  return facts;
}

}  // namespace cairn::detail
