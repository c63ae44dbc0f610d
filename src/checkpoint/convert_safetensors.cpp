#include <nlohmann/json.hpp>

#include "base/nonce.hpp"
#include "base/throw.hpp"
#include "checkpoint/convert_share.hpp"
#include "checkpoint/convert_steps.hpp"
#include "checkpoint/steps.hpp"
#include "formats/safetensors/writer.hpp"
#include "manifest/names.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"

namespace cairn::detail {
namespace {

/// One file on its way.
struct Shard {
  std::filesystem::path target;
  std::filesystem::path partial;
  SafetensorsLayout layout;
  std::vector<std::size_t> tensors;  ///< positions in the plan, as the layout was given them
  Share share;
};

/// The tensors in their order, as many to a file as fit; a larger one has a file of its own.
std::vector<std::vector<std::size_t>> divide(const ConvertPlan& plan, std::uint64_t shard_bytes) {
  std::vector<std::vector<std::size_t>> shards(1);
  std::uint64_t used = 0;
  for (std::size_t t = 0; t < plan.tensors.size(); ++t) {
    const std::uint64_t bytes = plan.tensors[t].bytes();
    if (shard_bytes != 0 && used + bytes > shard_bytes && !shards.back().empty()) {
      shards.emplace_back();
      used = 0;
    }
    used += bytes;
    shards.back().push_back(t);
  }
  return shards;
}

std::vector<Shard> shards_of(const Comm& comm, const ConvertPlan& plan,
                             const std::filesystem::path& target, const ConvertOptions& options) {
  const auto metadata = plan.documents.find("__metadata__");
  std::vector<Shard> shards;
  for (auto& tensors : divide(plan, options.shard_bytes)) {
    Shard shard;
    std::vector<TensorEntry> entries;
    for (const std::size_t t : tensors) entries.push_back(plan.tensors[t]);
    shard.layout =
        lay_out_safetensors(entries, metadata == plan.documents.end() ? "" : metadata->second);
    shard.tensors = std::move(tensors);
    shard.share = share_of(shard.layout.tensors, comm.size(), comm.rank());
    shards.push_back(std::move(shard));
  }
  for (std::size_t i = 0; i < shards.size(); ++i) {
    shards[i].target = options.shard_bytes == 0
                           ? target
                           : target.parent_path() / names::shard_file(i + 1, shards.size());
    shards[i].partial = names::partial_file(shards[i].target);
  }
  return shards;
}

/// The file but for its first 8 bytes, which hold the nonce.
void make_file(const Shard& shard, std::uint64_t nonce) {
  make_directories(shard.target.parent_path());
  File file = File::create(shard.partial);
  file.reserve(shard.layout.file_bytes);
  const auto head = std::as_bytes(std::span(shard.layout.head));
  file.write_at(sizeof(nonce), head.subspan(sizeof(nonce)), "preflight.write");
  file.write_at(0, std::as_bytes(std::span(&nonce, 1)), "preflight.write");
  file.close();
}

void finish_file(const Shard& shard, bool durable) {
  File file = File::open_write(shard.partial);
  const auto length = std::as_bytes(std::span(shard.layout.head)).first(sizeof(std::uint64_t));
  file.write_at(0, length, "commit.write");
  if (durable) file.sync();
  file.close();
}

void write_shard(const Comm& comm, const Manifest& source, const ConvertPlan& plan,
                 const Shard& shard, std::uint64_t nonce, const ConvertOptions& options,
                 const std::function<void(std::uint64_t)>& progress,
                 const std::function<void()>& before_settle) {
  NewTensors file{shard.partial, nonce, shard.layout.tensors, {}, /*crc32=*/false};
  std::vector<std::size_t> sources;
  agree(comm, "convert: preflight", [&] {
    for (const std::size_t position : shard.layout.positions) {
      sources.push_back(plan.sources[shard.tensors[position]]);
    }
    file.sources = sources;
  });
  copy_share(
      comm, source, file, shard.share, options, progress, [&] { make_file(shard, nonce); },
      before_settle);
}

std::string index_text(const ConvertPlan& plan, const std::vector<Shard>& shards) {
  nlohmann::json files = nlohmann::json::object();
  for (const Shard& shard : shards) {
    for (const std::size_t t : shard.tensors) {
      files[plan.tensors[t].name] = shard.target.filename().string();
    }
  }
  const nlohmann::json index{{"metadata", {{"total_size", plan.result.bytes}}},
                             {"weight_map", std::move(files)}};
  return index.dump(2) + "\n";
}

/// The index appears last: without it, shards are no checkpoint.
void publish_all(const ConvertPlan& plan, const std::vector<Shard>& shards,
                 const std::filesystem::path& target, const ConvertOptions& options) {
  const std::filesystem::path partial_index = names::partial_file(target);
  for (const Shard& shard : shards) finish_file(shard, options.durable);
  if (options.shard_bytes != 0) {
    const std::string text = index_text(plan, shards);
    File file = File::create(partial_index);
    file.write_at(0, std::as_bytes(std::span(text)), "commit.write");
    if (options.durable) file.sync();
    file.close();
  }
  fault_point("publish");
  // An index of before would name shards of two models while they are replaced.
  if (options.shard_bytes != 0 && std::filesystem::remove(target) && options.durable) {
    sync_directory(target.parent_path());
  }
  for (const Shard& shard : shards) replace_file(shard.partial, shard.target);
  if (options.durable) sync_directory(target.parent_path());
  if (options.shard_bytes == 0) return;
  replace_file(partial_index, target);
  if (options.durable) sync_directory(target.parent_path());
}

}  // namespace

void write_safetensors(const Comm& comm, const Manifest& source,
                       const std::filesystem::path& target, const ConvertPlan& plan,
                       const ConvertOptions& options) {
  std::vector<Shard> shards;
  std::uint64_t total = 0;  // of this rank
  std::uint64_t nonce[1] = {0};
  agree(comm, "convert: plan", [&] {
    shards = shards_of(comm, plan, target, options);
    for (const Shard& shard : shards) total += shard.share.bytes;
    if (!comm.is_root()) return;
    for (const Shard& shard : shards) check_target(source, shard.target, options);
    nonce[0] = random_nonce();
  });
  comm.all_reduce_max(std::span<std::uint64_t>(nonce));
  try {
    std::uint64_t before = 0;
    for (const Shard& shard : shards) {
      write_shard(comm, source, plan, shard, nonce[0], options, progress_of(options, before, total),
                  [&] {
                    if (&shard == &shards.back())
                      verify_source(comm, source, plan.sources, "convert");
                  });
      before += shard.share.bytes;
    }
    agree(comm, "convert: publish", [&] {
      if (comm.is_root()) publish_all(plan, shards, target, options);
    });
  } catch (...) {
    if (comm.is_root()) {
      for (const Shard& shard : shards) remove_quietly(shard.partial);
      remove_quietly(names::partial_file(target));
    }
    throw;
  }
}

}  // namespace cairn::detail
