#include <algorithm>
#include <tuple>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "checkpoint/steps.hpp"
#include "formats/hdf5/commit.hpp"
#include "manifest/codec.hpp"
#include "manifest/names.hpp"
#include "os/fault.hpp"
#include "os/file.hpp"
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

std::map<std::string, std::uint64_t> rooms_for(
    const std::map<std::string, std::string>& documents) {
  std::map<std::string, std::uint64_t> rooms;
  for (const auto& [name, text] : documents) rooms[name] = document_room(text.size() + 1);
  return rooms;
}

/// This rank's extents of the table, ascending by offset, and the piece that fills each.
std::vector<std::pair<WriteItem, std::size_t>> items_of(int rank,
                                                        const std::vector<TensorEntry>& tensors,
                                                        const std::vector<TensorView>& pieces) {
  using Key = std::tuple<std::string_view, Shape, Shape>;
  std::map<Key, std::size_t> piece_of;
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    const Box& box = pieces[p].placement.box;
    piece_of.try_emplace(Key(pieces[p].name, box.start, box.count), p);
  }
  std::vector<std::pair<WriteItem, std::size_t>> items;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    for (std::size_t e = 0; e < tensors[t].extents.size(); ++e) {
      const Extent& extent = tensors[t].extents[e];
      if (extent.writer != rank) continue;
      const auto piece = piece_of.at(Key(tensors[t].name, extent.box.start, extent.box.count));
      items.push_back({WriteItem{t, e, nullptr}, piece});
    }
  }
  std::stable_sort(items.begin(), items.end(), [&](const auto& a, const auto& b) {
    const auto offset = [&](const WriteItem& i) {
      return tensors[i.tensor].extents[i.extent].offset;
    };
    return offset(a.first) < offset(b.first);
  });
  return items;
}

}  // namespace

SaveLayout make_layout(const Comm& comm, const SaveRequest& request,
                       const std::map<std::string, std::string>& documents) {
  SaveLayout layout;
  std::vector<std::uint64_t> sizes;
  agree(comm, "save: layout", [&] {
    fault_point("layout");
    layout.key = layout_key(request.state);
    for (const auto& [name, bytes] : request.state.rank_blobs) sizes.push_back(bytes.size());
  });
  const std::vector<std::uint64_t> starts = comm.exclusive_sum(sizes);
  comm.all_reduce_sum(std::span<std::uint64_t>(sizes));
  std::vector<TensorView> pieces;
  std::vector<std::byte> mine;
  agree(comm, "save: layout", [&] {
    pieces = all_pieces(request.state, place_blobs(request.state, starts, sizes));
    ByteWriter out;
    put_pieces(out, pieces);
    mine = out.take();
  });
  const auto gathered = comm.gather(mine);

  std::vector<std::byte> table;
  agree(comm, "save: layout", [&] {
    if (!comm.is_root()) return;
    std::vector<std::vector<TensorView>> by_rank;
    for (const auto& bytes : gathered) {
      ByteReader in(bytes, "a rank's list of tensors");
      by_rank.push_back(get_pieces(in));
    }
    check_commit_room(rooms_for(documents));
    make_directories(request.target.parent_path());
    std::tie(layout.container, layout.metadata) = build_skeleton(
        names::skeleton_file(request.target), plan_save(by_rank), rooms_for(documents));
    Manifest manifest;
    manifest.tensors = layout.container.tensors;
    ByteWriter out;
    out.put(layout.container.hdf5_bytes);
    out.put_raw(encode(manifest));
    table = out.take();
  });
  comm.broadcast(table);
  agree(comm, "save: layout", [&] {
    if (!comm.is_root()) {
      ByteReader in(table, "the layout sent by rank 0");
      layout.container.hdf5_bytes = in.get<std::uint64_t>();
      layout.container.tensors = decode_manifest(in.get_raw(in.left())).tensors;
    }
    layout.structure = structure_hash(layout.container.tensors);
    layout.items = items_of(comm.rank(), layout.container.tensors, pieces);
  });
  return layout;
}

}  // namespace cairn::detail
