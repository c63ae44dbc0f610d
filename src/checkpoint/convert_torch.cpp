#include <algorithm>
#include <optional>
#include <utility>

#include "base/crc32.hpp"
#include "base/nonce.hpp"
#include "base/throw.hpp"
#include "checkpoint/convert_share.hpp"
#include "checkpoint/convert_steps.hpp"
#include "formats/torch/writer.hpp"
#include "manifest/names.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"
#include "transfer/runs.hpp"

namespace cairn::detail {
namespace {

/// The file with room for everything, and the nonce where its signature will be.
void make_file(const std::filesystem::path& partial, std::uint64_t bytes, std::uint64_t nonce) {
  make_directories(partial.parent_path());
  File file = File::create(partial);
  file.reserve(bytes);
  file.write_at(0, std::as_bytes(std::span(&nonce, 1)), "preflight.write");
  file.close();
}

/// The storages' CRCs, on rank 0, of those of the ranks' shares. Collective.
std::vector<std::uint32_t> join_crcs(const Comm& comm, const Share& share,
                                     const std::vector<PartReport>& reports,
                                     std::span<const TensorEntry> storages) {
  std::vector<std::uint64_t> mine;
  for (std::size_t i = 0; i < reports.size(); ++i) {
    const std::size_t storage = share.tensors[i];
    const std::uint64_t item = item_bytes(storages[storage].dtype);
    mine.insert(mine.end(), {storage, share.extents[i].box.elements() * item, reports[i].crc32});
  }
  std::vector<std::uint32_t> crcs(storages.size());
  for (const std::vector<std::byte>& part : comm.gather(std::as_bytes(std::span(mine)))) {
    const auto* words = reinterpret_cast<const std::uint64_t*>(part.data());
    for (std::size_t i = 0; i < part.size() / sizeof(*words); i += 3) {
      std::uint32_t& crc = crcs[words[i]];
      crc = crc32_joined(crc, static_cast<std::uint32_t>(words[i + 2]), words[i + 1]);
    }
  }
  return crcs;
}

/// The signature, which makes it a zip archive, comes last.
void finish_file(const std::filesystem::path& partial, const torch::TorchLayout& layout,
                 std::span<const std::uint32_t> crcs, bool durable) {
  const std::vector<torch::ZipLayout::Piece> pieces = torch::other_bytes(layout, crcs);
  File file = File::open_write(partial);
  RunWriter runs(file, "commit.write", WriteBack::later, [](std::uint64_t) {});
  const auto add = [&](const torch::ZipLayout::Piece& piece) {
    runs.add(piece.offset, reinterpret_cast<const std::byte*>(piece.bytes.data()),
             piece.bytes.size());
  };
  std::for_each(pieces.begin() + 1, pieces.end(), add);
  runs.flush();
  add(pieces.front());
  runs.flush();
  if (durable) file.sync();
  file.close();
}

}  // namespace

void write_torch(const Comm& comm, const Manifest& source, const std::filesystem::path& target,
                 const ConvertPlan& plan, const ConvertOptions& options) {
  const std::filesystem::path partial = names::partial_file(target);
  torch::TorchLayout layout;
  Manifest runs;  // the source, storage by storage
  std::vector<TensorEntry> storages;
  std::vector<std::size_t> sources;
  Share share;
  std::uint64_t nonce[1] = {0};
  agree(comm, "convert: plan", [&] {
    layout = torch::lay_out_torch(plan.torch.file);
    runs.format = source.format;
    runs.files = source.files;
    runs.commit = source.commit;
    for (std::size_t s = 0; s < plan.torch.runs.size(); ++s) {
      TensorEntry storage;
      storage.name = plan.torch.runs[s].name;
      storage.dtype = plan.torch.file.storages[s].dtype;
      storage.shape = plan.torch.runs[s].shape;
      storage.offset = layout.offsets[s];
      storages.push_back(std::move(storage));
      runs.tensors.push_back(plan.torch.runs[s]);
      sources.push_back(s);
    }
    share = share_of(storages, comm.size(), comm.rank());
    if (comm.is_root()) nonce[0] = random_nonce();
  });
  comm.all_reduce_max(std::span<std::uint64_t>(nonce));
  try {
    const NewTensors file{partial, nonce[0], storages, sources, /*crc32=*/true};
    const std::vector<PartReport> reports = copy_share(
        comm, runs, file, share, options, progress_of(options, 0, share.bytes),
        [&] { make_file(partial, layout.zip.file_bytes(), nonce[0]); },
        [&] { verify_source(comm, source, plan.sources, "convert"); });
    const std::vector<std::uint32_t> crcs = join_crcs(comm, share, reports, storages);
    agree(comm, "convert: publish", [&] {
      if (!comm.is_root()) return;
      finish_file(partial, layout, crcs, options.durable);
      fault_point("publish");
      replace_file(partial, target);
      if (options.durable) sync_directory(target.parent_path());
    });
  } catch (...) {
    if (comm.is_root()) remove_quietly(partial);
    throw;
  }
}

}  // namespace cairn::detail
