#include "pipeline/migrations/migrate.hpp"

#include <algorithm>
#include <utility>

#include "base/json_text.hpp"
#include "base/throw.hpp"
#include "manifest/names.hpp"
#include "pipeline/migrations/steps.hpp"

namespace cairn::detail::migrations {
namespace {

void require_extents(const Manifest& manifest) {
  for (const FileEntry& file : manifest.files) {
    if (file.access == Access::extents) continue;
    fail(Errc::unsupported,
         "'{}' was rewritten by another program, and its table is out of date: 'cairn convert' "
         "makes a container that can be migrated",
         file.path.string());
  }
}

/// Runs `body`; what fails in it is told with `where` in front.
template <class F>
void told_at(const std::string& where, F&& body) {
  try {
    std::forward<F>(body)();
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", where, error.what()));
  } catch (const nlohmann::json::exception& error) {
    fail(Errc::corrupt, "{}: a document is not as it should be ({})", where, error.what());
  }
}

/// Names grow with every step of some migrations. Those of the source are as they are.
/// Errors: usage.
void check_new_names(const Manifest& source, const Working& working) {
  for (const Item& item : working.items) {
    const std::string& name = item.entry.name;
    if (name != source.tensors.head(item.origin).name) names::check_tensor_name(name);
  }
}

Applied apply(const Manifest& source, Working& working, const Migration& migration, const std::string& when, Json& report) {
  const Documents before = working.texts();
  Json tensors = Json::array();
  std::string none;
  Json steps = Json::array();
  for (std::size_t s = 0; s < migration.steps.size(); ++s) {
    const Json& step = migration.steps[s];
    Outcome outcome;
    told_at(migration.places[s], [&] {
      outcome = apply_step(working, step);
      check_new_names(source, working);
    });
    tensors.insert(tensors.begin(), outcome.undo.begin(), outcome.undo.end());
    if (!outcome.no_undo.empty() && none.empty()) {
      none = fmt::format("{}: {}", migration.places[s], outcome.no_undo);
    }
    steps.push_back({{"type", step.at("type")},
                     {"changed", outcome.changed},
                     {"examples", outcome.examples},
                     {"reversible", outcome.no_undo.empty()}});
  }
  // The file will hold what was cast; parts of different dtypes are no whole.
  const auto has = [&](const char* type) {
    return std::any_of(tensors.begin(), tensors.end(),
                       [&](const Json& step) { return step.at("type") == type; });
  };
  if (none.empty() && has("cast") && has("merge")) {
    none = fmt::format("'{}' divides and casts; give each a migration of its own", migration.name);
  }
  Json undo{{"tensors", std::move(tensors)}, {"documents", way_back(before, working.texts())}};
  if (!none.empty()) undo = {{"none", none}};
  report.push_back({{"name", migration.name},
                    {"version", migration.version},
                    {"description", migration.description},
                    {"steps", std::move(steps)}});
  return {migration.name, migration.version, migration.signature, when, std::move(undo)};
}

void take_back(const Manifest& source, Working& working, const Applied& applied, Json& report) {
  const std::string where = fmt::format("'{}' can't be taken back", applied.name);
  if (applied.undo.is_null()) {
    fail(Errc::unsupported,
         "{}: the checkpoint was saved by a program that had it already, and there is no older "
         "form of it",
         where);
  }
  told_at(where, [&] {
    if (applied.undo.contains("none")) {
      fail(Errc::unsupported, "{}", applied.undo["none"].get<std::string>());
    }
    std::size_t changed = 0;
    for (const Json& step : applied.undo.at("tensors")) {
      undo_step(working, step);
      check_new_names(source, working);
      ++changed;
    }
    const Documents now = working.texts();
    for (const auto& [name, way] : applied.undo.at("documents").items()) {
      ++changed;
      if (way.is_null()) {
        working.restore(name, std::nullopt);
      } else if (way.contains("text")) {
        working.restore(name, way["text"].get<std::string>());
      } else {
        const auto found = now.find(name);
        if (found == now.end()) fail(Errc::corrupt, "there is no document '{}'", name);
        working.restore(name, parse_ordered(found->second).patch(way.at("patch")).dump());
      }
    }
    report.push_back({{"name", applied.name}, {"version", applied.version}, {"changed", changed}});
  });
}

Migrated finish(const Manifest& source, Working& working, const std::vector<Applied>& history,
                Migrated migrated) {
  Manifest& manifest = migrated.manifest;
  manifest.format = source.format;
  manifest.files = source.files;
  manifest.commit = source.commit;
  manifest.checksums = source.checksums;
  manifest.warnings = source.warnings;
  manifest.documents = working.texts();
  if (history.empty()) {
    manifest.documents.erase(kHistory);
  } else {
    manifest.documents[kHistory] = history_text(history);
  }
  manifest.tensors.reserve(working.items.size());
  if (source.is_container()) {
    // As tables of containers list them.
    std::stable_sort(working.items.begin(), working.items.end(), [](const Item& a, const Item& b) {
      return names::natural_less(a.entry.name, b.entry.name);
    });
  }
  for (Item& item : working.items) {
    if (item.cast) migrated.casts[item.entry.name] = *item.cast;
    const std::string_view before = source.tensors.head(item.origin).name;
    const bool stays = item.entry.name == before && !working.lost_digests.contains(item.origin);
    if (source.is_container() && !stays) item.entry.path = {std::string(before)};
    manifest.tensors.push_back(std::move(item.entry));
  }
  if (const auto twice = TensorNames(std::span<const TensorEntry>(manifest.tensors)).duplicate()) {
    fail(Errc::mismatch, "two tensors would be called '{}'", *twice);
  }
  migrated.lost_digests.assign(working.lost_digests.begin(), working.lost_digests.end());
  return migrated;
}

}  // namespace

Migrated migrate_forward(const Manifest& manifest, const std::vector<Migration>& migrations,
                         const std::string& to, const Bytes& bytes, const std::string& when) {
  std::vector<Applied> history = history_of(manifest);
  Missing missing = missing_in(history, migrations, to, manifest.path().string());
  Migrated migrated;
  migrated.warnings = std::move(missing.warnings);
  if (missing.positions.empty()) {
    migrated.manifest = manifest;
    return migrated;
  }
  require_extents(manifest);
  Working working(manifest, bytes);
  working.restore(kHistory, std::nullopt);
  for (const std::size_t position : missing.positions) {
    history.push_back(apply(manifest, working, migrations[position], when, migrated.report));
  }
  return finish(manifest, working, history, std::move(migrated));
}

Migrated migrate_back(const Manifest& manifest, const std::string& to, const Bytes& bytes) {
  std::vector<Applied> history = history_of(manifest);
  const std::size_t count = count_back(history, to, manifest.path().string());
  Migrated migrated;
  if (count == 0) {
    migrated.manifest = manifest;
    return migrated;
  }
  require_extents(manifest);
  Working working(manifest, bytes);
  working.documents_follow = false;
  working.restore(kHistory, std::nullopt);
  for (std::size_t i = 0; i < count; ++i) {
    take_back(manifest, working, history.back(), migrated.report);
    history.pop_back();
  }
  return finish(manifest, working, history, std::move(migrated));
}

}  // namespace cairn::detail::migrations
