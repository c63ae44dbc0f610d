#include <algorithm>
#include <tuple>
#include <unordered_map>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "checkpoint/steps.hpp"
#include "formats/hdf5/commit.hpp"
#include "manifest/codec.hpp"
#include "manifest/names.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"
#include "plan/chunks.hpp"
#include "plan/region.hpp"
#include "plan/replicas.hpp"
#include "plan/save_plan.hpp"

namespace cairn::detail {
namespace {

/// The blobs of one name lie one behind the other in rank order, as one u8 tensor.
std::map<std::string, Placement> place_blobs(const StateView& state,
                                             const std::vector<std::uint64_t>& starts,
                                             const std::vector<std::uint64_t>& totals) {
  std::map<std::string, Placement> placements;
  std::size_t i = 0;
  for (const auto& [name, bytes] : state.rank_blobs) {
    placements[name] = Placement::block({totals[i]}, Box{{starts[i]}, {bytes.size()}});
    ++i;
  }
  return placements;
}

/// This rank's tensors and, behind them, its blobs.
std::vector<TensorView> all_pieces(const StateView& state,
                                   const std::map<std::string, Placement>& blobs) {
  std::vector<TensorView> pieces = state.tensors;
  for (const auto& [name, bytes] : state.rank_blobs) {
    pieces.push_back({names::rank_blob(name), DType::u8, blobs.at(name), bytes.data()});
  }
  return pieces;
}

/// The extents of file 0 by the rank that writes them, each rank's in the order of the file.
std::vector<std::vector<WrittenExtent>> by_writer(std::vector<TensorEntry>& tensors,
                                                  const LayoutPlan& plan, std::size_t ranks,
                                                  std::vector<std::vector<std::byte>>& messages) {
  std::vector<std::vector<WrittenExtent>> of_rank(ranks);
  for (TensorEntry& tensor : tensors) {
    if (file_of(tensor) != 0) continue;
    for (Extent& extent : tensor.extents) {
      of_rank.at(static_cast<std::size_t>(plan.writer(tensor, extent)))
          .push_back({&tensor, &extent});
    }
  }
  messages.resize(ranks);
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    std::stable_sort(of_rank[rank].begin(), of_rank[rank].end(),
                     [](const WrittenExtent& a, const WrittenExtent& b) {
                       return a.extent->offset < b.extent->offset;
                     });
    ByteWriter out;
    for (const WrittenExtent& written : of_rank[rank]) {
      out.put(static_cast<std::uint64_t>(written.tensor - tensors.data()));
      put_extent(out, *written.extent);
    }
    messages[rank] = out.take();
  }
  return of_rank;
}

bool contains(const Placement& piece, const Extent& extent) {
  if ((piece.kind == Placement::Kind::flat) != extent.flat) return false;
  for (std::size_t d = 0; d < extent.box.start.size(); ++d) {
    const std::uint64_t start = piece.box.start[d];
    if (extent.box.start[d] < start ||
        extent.box.start[d] + extent.box.count[d] > start + piece.box.count[d]) {
      return false;
    }
  }
  return true;
}

/// Where the first byte of an extent, which lies in the piece, is in the piece's dense bytes.
std::uint64_t skip_to(const Extent& extent, const Placement& piece, std::uint64_t item) {
  if (extent.flat) return (extent.box.start[0] - piece.box.start[0]) * item;
  const Region in_memory = region_of(piece, item);
  std::uint64_t at = in_memory.base;
  for (std::size_t d = 0; d < extent.box.start.size(); ++d) {
    at += extent.box.start[d] * in_memory.strides[d];
  }
  return at;
}

/// What rank 0 sent of this rank's extents, and the piece that fills each.
std::vector<LayoutItem> items_of(std::span<const std::byte> message,
                                 std::span<const TensorEntry> tensors,
                                 std::span<const TensorView> pieces) {
  std::unordered_multimap<std::string_view, std::size_t> pieces_of;
  for (std::size_t p = 0; p < pieces.size(); ++p) pieces_of.emplace(pieces[p].name, p);
  std::vector<LayoutItem> items;
  for (ByteReader in(message, "the extents sent by rank 0"); in.left() != 0;) {
    LayoutItem item;
    item.tensor = in.get<std::uint64_t>();
    item.extent = get_extent(in);
    const TensorEntry& tensor = tensors[item.tensor];
    const auto [first, last] = pieces_of.equal_range(tensor.name);
    const auto found = std::find_if(first, last, [&](const auto& entry) {
      return contains(pieces[entry.second].placement, item.extent);
    });
    if (found == last) {
      fail(Errc::internal, "rank 0 wants {} of tensor '{}', which this rank does not hold",
           to_string(item.extent.box), tensor.name);
    }
    item.piece = found->second;
    item.skip = skip_to(item.extent, pieces[item.piece].placement, item_bytes(tensor.dtype));
    items.push_back(std::move(item));
  }
  return items;
}

/// What this rank has to tell rank 0 of its pieces. Collective.
std::vector<std::byte> describe_pieces(const Comm& comm, std::span<const TensorView> pieces,
                                       SaveLayout& layout) {
  constexpr std::string_view kStep = "save: layout";
  agree(comm, kStep, [&] { layout.keys = PieceKeys(pieces, comm.size()); });
  layout.kept = comm.exchange(layout.keys.questions());
  Words answers;
  agree(comm, kStep, [&] { answers = answer_questions(layout.kept); });
  answers = comm.exchange(answers);
  std::vector<std::byte> report;
  agree(comm, kStep, [&] {
    const std::vector<Holding> holdings = layout.keys.holdings(answers);
    for (const Holding& holding : holdings) layout.replicated.push_back(holding.replicated);
    report = encode_report(report_of(pieces, holdings));
  });
  return report;
}

/// What all ranks need of the table: everything but the extents.
std::vector<std::byte> encode_table(const ContainerLayout& container) {
  ByteWriter out;
  out.put(container.hdf5_bytes);
  out.put(static_cast<std::uint64_t>(container.tensors.size()));
  for (const TensorEntry& tensor : container.tensors) {
    if (file_of(tensor) == 0) {
      put_tensor_head(out, tensor);
      continue;
    }
    TensorEntry elsewhere;  // nobody writes it
    elsewhere.name = tensor.name;
    put_tensor_head(out, elsewhere);
  }
  return out.take();
}

void decode_table(std::span<const std::byte> table, ContainerLayout& container) {
  ByteReader in(table, "the layout sent by rank 0");
  container.hdf5_bytes = in.get<std::uint64_t>();
  for (auto n = in.get<std::uint64_t>(); n > 0; --n) {
    container.tensors.push_back(get_tensor_head(in));
  }
}

}  // namespace

std::map<std::string, std::uint64_t> rooms_for(
    const std::map<std::string, std::string>& documents) {
  std::map<std::string, std::uint64_t> rooms;
  for (const auto& [name, text] : documents) rooms[name] = document_room(text.size() + 1);
  check_commit_room(rooms);
  return rooms;
}

std::vector<TensorEntry> plan_tensors(const std::vector<std::vector<std::byte>>& encoded,
                                      const SaveOptions& options,
                                      const std::function<bool(const std::string&)>& takes) {
  std::vector<RankReport> reports;
  reports.reserve(encoded.size());
  for (const auto& bytes : encoded) {
    RankReport& report = reports.emplace_back(decode_report(bytes));
    std::size_t taken = 0;
    for (std::size_t p = 0; p < report.pieces.size(); ++p) {
      if (!takes(report.pieces[p].name)) continue;
      if (taken != p) report.pieces[taken] = std::move(report.pieces[p]);
      report.piece_group[taken++] = report.piece_group[p];
    }
    report.pieces.resize(taken);
    report.piece_group.resize(taken);
  }
  std::vector<TensorEntry> tensors = plan_save(reports);
  if (options.mpio.deflate != 0) {
    for (TensorEntry& tensor : tensors) choose_filters(tensor, options.mpio.shuffle);
  }
  if (options.statistics) {
    for (TensorEntry& tensor : tensors) tensor.statistics.emplace();  // the index needs the room
  }
  return tensors;
}

void lay_out(const Comm& comm, const SaveRequest& request, LayoutPlan plan,
             std::span<const TensorView> pieces, SaveLayout& layout) {
  std::vector<std::byte> table;
  std::vector<std::vector<std::byte>> messages;
  agree(comm, "save: layout", [&] {
    if (!comm.is_root()) return;
    make_directories(request.target.parent_path());
    std::tie(layout.container, layout.metadata) =
        build_skeleton(names::skeleton_file(request.target), std::move(plan.tensors),
                       std::move(plan.files), plan.rooms, request.options.mpio.deflate);
    layout.structure = structure_hash(layout.container.tensors);
    layout.writers = comm.size();
    layout.written =
        by_writer(layout.container.tensors, plan, static_cast<std::size_t>(comm.size()), messages);
    table = encode_table(layout.container);
  });
  comm.broadcast(table);
  const std::vector<std::byte> message = comm.scatter(messages);
  agree(comm, "save: layout", [&] {
    if (!comm.is_root()) decode_table(table, layout.container);
    layout.items = items_of(message, layout.container.tensors, pieces);
  });
}

SaveLayout make_layout(const Comm& comm, const SaveRequest& request,
                       const std::map<std::string, std::string>& documents) {
  SaveLayout layout;
  std::vector<std::uint64_t> sizes;
  agree(comm, "save: layout", [&] {
    fault_point("layout");
    for (const auto& [name, bytes] : request.state.rank_blobs) {
      layout.blob_bytes[name] = bytes.size();
      sizes.push_back(bytes.size());
    }
  });
  const std::vector<std::uint64_t> starts = comm.exclusive_sum(sizes);
  comm.all_reduce_sum(std::span<std::uint64_t>(sizes));
  agree(comm, "save: layout", [&] {
    layout.contributed = all_pieces(request.state, place_blobs(request.state, starts, sizes));
    for (TensorView& piece : layout.contributed) piece.data = nullptr;
  });
  layout.reports = comm.gather(describe_pieces(comm, layout.contributed, layout));
  LayoutPlan plan;
  agree(comm, "save: layout", [&] {
    if (!comm.is_root()) return;
    plan.rooms = rooms_for(documents);
    plan.tensors =
        plan_tensors(layout.reports, request.options, [](const std::string&) { return true; });
    if (!request.options.delta) layout.reports.clear();
  });
  lay_out(comm, request, std::move(plan), layout.contributed, layout);
  return layout;
}

}  // namespace cairn::detail
