// What a delta save need not write, step by step:
//  1. ask      rank 0 reads the index of the last checkpoint and says for which tensors it has a
//              digest to compare with
//  2. digest   every rank looks at its share of those tensors; the shares add up to their digests
//  3. choose   rank 0 compares: equal ones are referred to, in the files that really hold them
//  4. lay out  where other tensors are referred to than the last time, a layout without them is
//              made; the bytes of the rest are shared out anew, so that all ranks write as much
#include "checkpoint/delta_step.hpp"

#include <algorithm>
#include <limits>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/digest.hpp"
#include "base/throw.hpp"
#include "checkpoint/marks.hpp"
#include "formats/hdf5/container.hpp"
#include "manifest/names.hpp"
#include "os/fault.hpp"
#include "plan/part_digest.hpp"
#include "plan/region.hpp"

namespace cairn::detail {

/// The last checkpoint: its table, and the files that its tensors lie in.
struct DeltaStep::Base {
  std::shared_ptr<const IndexTable> table;
  std::vector<ReferencedFile> files;  // the first is its own
  std::vector<bool> usable;           // by file
};

namespace {

constexpr std::string_view kStep = "save: find what changed";
constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();
constexpr std::size_t kBits = 64;
// Every file that is referred to stays, with all that it holds, and must be opened by a load.
constexpr std::size_t kMostFiles = 16;

/// By tensor of the layout: its position in the base, or kNone.
using Positions = std::vector<std::size_t>;

bool is_set(std::span<const std::uint64_t> bits, std::size_t at) {
  return (bits[at / kBits] >> at % kBits & 1) != 0;
}

/// Whether an index can hold the name.
bool is_plain(std::string_view name) {
  return std::none_of(name.begin(), name.end(),
                      [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

bool is_there(const std::filesystem::path& dir, const ReferencedFile& file) {
  return difference_of({dir / file.name, file.bytes, Access::extents, file.fingerprint}).empty();
}

/// This rank's shares of the digests of the tensors asked for, in their order.
std::vector<std::uint64_t> shares_of(std::span<const WriteItem> items,
                                     std::span<const TensorEntry> tensors,
                                     std::span<const std::uint64_t> asked) {
  std::vector<std::size_t> place(tensors.size());
  std::size_t count = 0;
  for (std::size_t t = 0; t < tensors.size(); ++t) place[t] = is_set(asked, t) ? count++ : kNone;
  std::vector<std::uint64_t> shares(count, 0);
  for (const WriteItem& item : items) {
    if (place[item.tensor] == kNone) continue;
    const TensorEntry& tensor = tensors[item.tensor];
    const std::uint64_t bytes = item.extent->box.elements() * item_bytes(tensor.dtype);
    shares[place[item.tensor]] ^= part_digest(tensor, *item.extent, {item.data, bytes});
  }
  return shares;
}

/// Forgets the tensors of the files that hold the fewest bytes, where there are too many files.
void limit_files(const IndexTable& table, std::span<const TensorEntry> tensors, std::size_t files,
                 Positions& positions) {
  std::vector<std::pair<std::uint64_t, std::size_t>> held(files);  // bytes, file
  for (std::size_t f = 0; f < files; ++f) held[f].second = f;
  for (std::size_t t = 0; t < positions.size(); ++t) {
    if (positions[t] != kNone) held[table.head(positions[t]).file].first += tensors[t].bytes();
  }
  std::sort(held.rbegin(), held.rend());
  std::vector<bool> stays(files, false);
  for (std::size_t i = 0; i < std::min(files, kMostFiles); ++i) stays[held[i].second] = true;
  for (std::size_t& position : positions) {
    if (position != kNone && !stays[table.head(position).file]) position = kNone;
  }
}

}  // namespace

/// What rank 0 decides.
struct DeltaStep::Choice {
  const Base& base;
  const SaveLayout& full;
  const SaveOptions& options;
  Positions positions;

  /// The tensors that the base has, too, in a file that can be referred to.
  void find_tensors() {
    const std::vector<TensorEntry>& tensors = full.container.tensors;
    positions.assign(tensors.size(), kNone);
    if (options.statistics && !base.table->has_statistics()) return;
    const TensorNames names{TensorTable(base.table)};
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      // A rank finds its own blobs by who wrote them.
      if (tensors[t].bytes() == 0 || names::is_rank_blob(tensors[t].name)) continue;
      const auto found = names.find(tensors[t].name);
      if (!found) continue;
      const TensorHead head = base.table->head(*found);
      const Shape& shape = tensors[t].shape;
      if (head.dtype == tensors[t].dtype && base.usable[head.file] &&
          std::equal(head.shape.begin(), head.shape.end(), shape.begin(), shape.end())) {
        positions[t] = *found;
      }
    }
  }

  void set_bits(std::span<std::uint64_t> bits) const {
    for (std::size_t t = 0; t < positions.size(); ++t) {
      if (positions[t] != kNone) bits[t / kBits] |= std::uint64_t{1} << t % kBits;
    }
  }

  /// Forgets what differs. `together`: all ranks' shares, in the order of the tensors.
  void compare(std::span<const std::uint64_t> together) {
    auto next = together.begin();
    for (std::size_t& position : positions) {
      if (position != kNone && ~*next++ != base.table->content_digest(position)) position = kNone;
    }
    limit_files(*base.table, full.container.tensors, base.files.size(), positions);
  }

  bool refers() const {
    return std::any_of(positions.begin(), positions.end(), [](auto p) { return p != kNone; });
  }

  /// Equal for the same tensors in the same files.
  std::uint64_t key() const {
    Digester digester;
    for (std::size_t t = 0; t < positions.size(); ++t) {
      if (positions[t] == kNone) continue;
      const ReferencedFile& file = base.files[base.table->head(positions[t]).file];
      digester.update(static_cast<std::uint64_t>(t));
      digester.update(file.name);
      digester.update(file.bytes);
      digester.update(file.fingerprint);
    }
    return digester.value();
  }

  LayoutPlan plan() const {
    LayoutPlan plan;
    const std::vector<TensorEntry>& tensors = full.container.tensors;
    std::unordered_set<std::string_view> referred;
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      if (positions[t] != kNone) referred.insert(tensors[t].name);
    }
    std::vector<TensorEntry> own = plan_tensors(
        full.reports, options, [&](const std::string& name) { return !referred.contains(name); });
    std::vector<TensorEntry> known = base.table->decode();
    std::vector<std::uint32_t> number(base.files.size(), 0);
    auto next = own.begin();  // both are in natural order of the names
    for (std::size_t t = 0; t < tensors.size(); ++t) {
      if (positions[t] == kNone) {
        plan.tensors.push_back(std::move(*next++));
        continue;
      }
      TensorEntry& tensor = known[positions[t]];
      std::uint32_t& file = number[file_of(tensor)];
      if (file == 0) {
        plan.files.push_back(base.files[file_of(tensor)]);
        file = static_cast<std::uint32_t>(plan.files.size());
      }
      for (Extent& extent : tensor.extents) extent.file = file;
      if (!options.statistics) tensor.statistics.reset();
      plan.tensors.push_back(std::move(tensor));
    }
    for (const auto& [name, slot] : full.container.documents) plan.rooms[name] = slot.span.bytes;
    return plan;
  }
};

std::optional<DeltaStep::Base> DeltaStep::find_base(const SaveRequest& request) const {
  const std::filesystem::path dir = request.target.parent_path();
  const auto read = [&](const std::filesystem::path& path) -> std::optional<Base> {
    // What can't be read can't be referred to; a save does not depend on it.
    try {
      if (bad_mark_of(path)) return std::nullopt;
      ContainerTable table = read_container(path);
      check_table(table);
      const FileEntry& own = table.head.files.front();
      Base base;
      base.files = files_of_index(table.index);
      base.files.insert(base.files.begin(), {path.filename().string(), own.bytes, own.fingerprint,
                                             table.head.commit.writers});
      for (const ReferencedFile& file : base.files) {
        base.usable.push_back(file.name != request.target.filename() && is_plain(file.name) &&
                              is_there(dir, file) && !bad_mark_of(dir / file.name));
      }
      // Its offsets hold no more.
      if (own.access != Access::extents) base.usable.front() = false;
      base.table = std::make_shared<IndexTable>(std::move(table.index));
      return base;
    } catch (const Error&) {
      return std::nullopt;
    }
  };
  if (!last_.empty() && last_.parent_path() == dir) {
    if (auto base = read(last_)) return base;
  }
  try {
    if (const auto newest = newest_checkpoint(dir.empty() ? "." : dir)) return read(*newest);
  } catch (const Error&) {
    return std::nullopt;
  }
  return std::nullopt;
}

std::shared_ptr<SaveLayout> DeltaStep::choose(const Comm& comm, const SaveRequest& request,
                                              const std::shared_ptr<SaveLayout>& full,
                                              std::span<const WriteItem> items) {
  if (full_ != full) layout_.reset();
  full_ = full;
  const std::vector<TensorEntry>& tensors = full->container.tensors;
  std::optional<Base> base;
  std::optional<Choice> choice;  // on rank 0, where there is a base
  std::vector<std::uint64_t> asked;
  agree(comm, kStep, [&] {
    fault_point("delta");
    asked.resize((tensors.size() + kBits - 1) / kBits, 0);
    if (!comm.is_root()) return;
    base = find_base(request);
    last_ = request.target;
    if (!base) return;
    choice.emplace(Choice{*base, *full, request.options, {}});
    choice->find_tensors();
    choice->set_bits(asked);
  });
  comm.all_reduce_or(asked);
  if (std::all_of(asked.begin(), asked.end(), [](auto bits) { return bits == 0; })) return full;

  std::vector<std::uint64_t> shares;
  agree(comm, kStep, [&] { shares = shares_of(items, tensors, asked); });
  comm.all_reduce_xor(shares);

  enum Verdict : std::uint64_t { whole, as_before, anew };
  std::uint64_t verdict[1] = {whole};
  LayoutPlan plan;
  agree(comm, kStep, [&] {
    if (!choice) return;
    choice->compare(shares);
    if (!choice->refers()) return;
    const std::uint64_t key = choice->key();
    verdict[0] = layout_ && key == key_ ? as_before : anew;
    key_ = key;
    if (verdict[0] == anew) plan = choice->plan();
  });
  comm.all_reduce_max(std::span<std::uint64_t>(verdict));
  if (verdict[0] == whole) return full;
  if (verdict[0] == as_before) return layout_;
  layout_.reset();  // one that is still written from is kept by its save
  auto layout = std::make_shared<SaveLayout>();
  lay_out(comm, request, std::move(plan), full->contributed, *layout);
  layout_ = std::move(layout);
  return layout_;
}

}  // namespace cairn::detail
