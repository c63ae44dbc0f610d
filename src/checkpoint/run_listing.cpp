#include "checkpoint/run_listing.hpp"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
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

RunCheckpoint checkpoint_of(const fs::path& path, CommittedFile file) {
  RunCheckpoint checkpoint;
  checkpoint.path = path;
  checkpoint.bytes = file.bytes;
  checkpoint.bad = bad_mark_of(path);
  checkpoint.verified = verified_mark_of(path);
  CheckpointFacts& facts = checkpoint.facts;
  facts.name = path.filename().string();
  facts.step = names::parse_checkpoint_file(facts.name).value_or(file.commit.step);
  facts.committed_at = file.commit.committed_at;
  facts.pinned = is_pinned(path);
  facts.bad = checkpoint.bad.has_value();
  facts.verified = checkpoint.verified.has_value();
  take_context(file.context, checkpoint);
  checkpoint.commit = std::move(file.commit);
  return checkpoint;
}

void add_checkpoint_file(const fs::directory_entry& entry, RunListing& listing) {
  try {
    if (auto file = committed_file(entry.path())) {
      listing.checkpoints.push_back(checkpoint_of(entry.path(), std::move(*file)));
      return;
    }
  } catch (const Error& error) {
    if (error.code() == Errc::not_found) return;  // removed meanwhile
    if (error.code() != Errc::unsupported) throw;
  }
  std::error_code gone;
  listing.others.push_back({entry.path(), entry.file_size(gone)});
}

void add_needs(RunListing& listing, std::map<std::string, std::vector<std::string>> references) {
  for (RunCheckpoint& one : listing.checkpoints) {
    const auto of_one = references.extract(one.facts.name);
    if (!of_one.empty()) one.facts.needs = of_one.mapped();
  }
  // What is left are files that no rule of a run judges.
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
  std::error_code error;
  fs::directory_iterator entries(dir, error);
  if (error) fail_system("list", dir, error.value());
  const std::string linked = fs::read_symlink(dir / names::kLast, error).filename().string();
  for (const auto& entry : entries) {
    const std::string name = entry.path().filename().string();
    std::error_code gone;
    if (!is_own_file(entry)) continue;
    if (names::parse_checkpoint_file(name)) {
      add_checkpoint_file(entry, listing);
    } else if (const auto sidecar = names::parse_sidecar(name)) {
      if (sidecar->kind == names::Sidecar::partial || sidecar->kind == names::Sidecar::skeleton) {
        listing.partial.push_back({entry.path(), entry.file_size(gone)});
      } else if (sidecar->kind != names::Sidecar::pin && !fs::exists(dir / sidecar->checkpoint)) {
        listing.orphaned.push_back(entry.path());
      }
    }
  }
  const auto by_path = [](const auto& a, const auto& b) { return a.path < b.path; };
  std::sort(listing.checkpoints.begin(), listing.checkpoints.end(),
            [](const auto& a, const auto& b) { return a.facts.step < b.facts.step; });
  std::sort(listing.others.begin(), listing.others.end(), by_path);
  std::sort(listing.partial.begin(), listing.partial.end(), by_path);
  for (RunCheckpoint& one : listing.checkpoints) one.facts.linked = one.facts.name == linked;
  add_needs(listing, references_in(dir, may_call_hdf5));
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
