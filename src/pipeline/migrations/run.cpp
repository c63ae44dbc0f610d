#include "pipeline/migrations/run.hpp"

#include <utility>

#include "base/throw.hpp"
#include "checkpoint/convert_documents.hpp"
#include "checkpoint/convert_plan.hpp"
#include "checkpoint/few_bytes.hpp"
#include "checkpoint/rewrite.hpp"
#include "checkpoint/verify.hpp"
#include "manifest/codec.hpp"
#include "os/host.hpp"
#include "pipeline/migrations/migrate.hpp"

namespace cairn::detail::migrations {
namespace {

/// A checkpoint as `cairn convert` would make a container of it, with its bytes where they are.
struct ContainerForm {
  Manifest manifest;
  std::vector<std::size_t> sources;  ///< of each tensor: its position in the source
};

ContainerForm container_form(const Manifest& source) {
  ContainerForm form;
  if (source.is_container()) {
    form.manifest = source;
    for (std::size_t t = 0; t < source.tensors.size(); ++t) form.sources.push_back(t);
    return form;
  }
  ConvertPlan plan = plan_conversion(source, {});
  Manifest& manifest = form.manifest;
  manifest.format = "cairn";
  manifest.files = source.files;
  manifest.checksums = source.checksums;
  manifest.commit.step = plan.step;
  manifest.documents = std::move(plan.documents);
  for (std::size_t t = 0; t < plan.tensors.size(); ++t) {
    TensorEntry entry = source.tensors[plan.sources[t]];
    entry.name = plan.tensors[t].name;
    entry.path.clear();
    manifest.tensors.push_back(std::move(entry));
  }
  form.sources = std::move(plan.sources);
  return form;
}

Bytes bytes_of(const Manifest& manifest) {
  return {[&](const TensorEntry& a, const TensorEntry& b) { return same_content(manifest, a, b); },
          [&](const TensorEntry& tensor) { return integers_in(manifest, tensor); }};
}

// What rank 0 worked out travels as one message.

std::vector<std::byte> encode(const Migrated& migrated) {
  ByteWriter out;
  const std::vector<std::byte> manifest = detail::encode(migrated.manifest);
  out.put(static_cast<std::uint64_t>(manifest.size()));
  out.put_raw(manifest);
  out.put(static_cast<std::uint64_t>(migrated.casts.size()));
  for (const auto& [name, dtype] : migrated.casts) {
    out.put_text(name);
    out.put(static_cast<std::uint8_t>(dtype));
  }
  out.put(static_cast<std::uint64_t>(migrated.lost_digests.size()));
  for (const std::uint64_t position : migrated.lost_digests) out.put(position);
  out.put_text(migrated.report.dump());
  out.put(static_cast<std::uint64_t>(migrated.warnings.size()));
  for (const std::string& warning : migrated.warnings) out.put_text(warning);
  return out.take();
}

Migrated decode(std::span<const std::byte> bytes) {
  ByteReader in(bytes, "the migrated checkpoint sent by rank 0");
  Migrated migrated;
  migrated.manifest = decode_manifest(in.get_raw(in.get<std::uint64_t>()));
  for (auto n = in.get<std::uint64_t>(); n > 0; --n) {
    std::string name = in.get_text();
    migrated.casts[std::move(name)] = dtype_from_code(in.get<std::uint8_t>());
  }
  for (auto n = in.get<std::uint64_t>(); n > 0; --n) {
    migrated.lost_digests.push_back(in.get<std::uint64_t>());
  }
  migrated.report = Json::parse(in.get_text());
  for (auto n = in.get<std::uint64_t>(); n > 0; --n) migrated.warnings.push_back(in.get_text());
  return migrated;
}

/// Collective. `work` runs on rank 0.
template <class F>
Migrated by_root(const Comm& comm, const char* step, F&& work) {
  std::vector<std::byte> message;
  agree(comm, step, [&] {
    if (comm.is_root()) message = encode(std::forward<F>(work)());
  });
  comm.broadcast(message);
  Migrated migrated;
  agree(comm, step, [&] { migrated = decode(message); });
  return migrated;
}

/// Checks the digests of tensors that are put together anew, where these still say something.
/// Collective. Errors: corrupt.
void check_lost(const Comm& comm, const Manifest& source, const std::vector<std::size_t>& positions,
                const char* consequence) {
  if (positions.empty()) return;
  std::vector<std::uint64_t> wanted(source.tensors.size());
  for (const std::size_t position : positions) wanted[position] = 1;
  const VerifyReport report = verify_wanted(comm, source, wanted);
  if (report.defects.empty()) return;
  throw Error(Errc::corrupt,
              fmt::format("migrate: {}; {}", report.defects.front().text, consequence),
              /*rank=*/0);
}

}  // namespace

MigrateResult migrate_checkpoint(const Comm& comm, const Manifest& source,
                                 const std::filesystem::path& target,
                                 const MigrateOptions& options) {
  ContainerForm form;
  agree(comm, "migrate", [&] { form = container_form(source); });
  const Migrated migrated = by_root(comm, "migrate", [&] {
    const Bytes bytes = bytes_of(form.manifest);
    if (options.rollback) return migrate_back(form.manifest, options.to, bytes);
    return migrate_forward(form.manifest, read_migrations(options.steps), options.to, bytes,
                           utc_now());
  });
  MigrateResult result;
  result.migrations = migrated.report;
  result.warnings = migrated.warnings;
  if (options.dry_run || !migrated.is_changed()) return result;
  std::vector<std::size_t> lost;
  for (const std::size_t position : migrated.lost_digests) {
    lost.push_back(form.sources.at(position));
  }
  check_lost(comm, source, lost, "nothing was written");
  ConvertOptions convert = options.convert;
  convert.casts = migrated.casts;
  const bool to_container = convert.to == TargetFormat::cairn;
  result.written = source.is_container() && to_container
                       ? rewrite_container(comm, "migrate", migrated.manifest, target, convert)
                       : convert_checkpoint(comm, migrated.manifest, target, convert);
  return result;
}

Manifest migrated_for_load(const Comm& comm, Manifest manifest, const std::filesystem::path& steps,
                           bool verify) {
  // No file of PyTorch's is written from it, so no numbers have to follow.
  manifest.documents.erase(kTree);
  Migrated migrated = by_root(comm, "load: migrate", [&] {
    Migrated result =
        migrate_forward(manifest, read_migrations(steps), "", bytes_of(manifest), utc_now());
    if (result.casts.empty()) return result;
    fail(Errc::unsupported,
         "'{}': the migrations convert the values of '{}', which a load can't: 'cairn migrate' "
         "writes a file in which they are converted",
         manifest.path().string(), result.casts.begin()->first);
  });
  if (!migrated.is_changed()) return manifest;
  if (verify) check_lost(comm, manifest, migrated.lost_digests, "nothing was loaded");
  migrated.manifest.warnings.insert(migrated.manifest.warnings.end(), migrated.warnings.begin(),
                                    migrated.warnings.end());
  return std::move(migrated.manifest);
}

std::string history_of_new(const std::filesystem::path& steps) {
  std::vector<Applied> history;
  for (const Migration& migration : read_migrations(steps)) {
    history.push_back({migration.name, migration.version, migration.signature, utc_now(), Json()});
  }
  return history_text(history);
}

std::string history_of_next(const Manifest& loaded) {
  std::vector<Applied> history = history_of(loaded);
  for (Applied& applied : history) applied.undo = Json();
  return history.empty() ? std::string() : history_text(history);
}

}  // namespace cairn::detail::migrations
