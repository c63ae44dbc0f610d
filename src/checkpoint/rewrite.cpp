#include "checkpoint/rewrite.hpp"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/throw.hpp"
#include "checkpoint/convert_steps.hpp"
#include "checkpoint/steps.hpp"
#include "checkpoint/verify.hpp"
#include "manifest/names.hpp"
#include "mpi/same.hpp"

namespace cairn::detail {
namespace {

using Casts = std::map<std::string, DType>;

DType dtype_after(const Casts& casts, const TensorEntry& tensor) {
  const auto cast = casts.find(tensor.name);
  return cast == casts.end() ? tensor.dtype : cast->second;
}

/// Everything that a rank could be told to write: all of every tensor.
std::vector<TensorView> whole_tensors(const Manifest& source, const Casts& casts) {
  std::vector<TensorView> views;
  for (const TensorEntry& tensor : source.tensors) {
    const bool flat = tensor.placement == Placement::Kind::flat;
    views.push_back({tensor.name, dtype_after(casts, tensor),
                     flat ? Placement::flat(tensor.shape, 0, element_count(tensor.shape))
                          : Placement::replicated(tensor.shape),
                     nullptr});
  }
  return views;
}

/// Whether nobody wrote the tensor as it is: it is a view of another one.
bool is_view(const TensorEntry& tensor) {
  return std::any_of(tensor.extents.begin(), tensor.extents.end(),
                     [](const Extent& extent) { return extent.writer < 0; });
}

/// A tensor that is put together anew counts as written by rank 0.
void make_whole(TensorEntry& tensor) {
  tensor.layout = Layout::contiguous;
  tensor.strides = {};
  tensor.placement = Placement::Kind::replicated;
  tensor.extents.clear();
  Extent extent;
  extent.box = Box::whole(tensor.shape);
  extent.writer = 0;
  tensor.extents.push_back(std::move(extent));
}

/// The tensors as they are, but all in one file. Who copies an extent has nothing to do with who
/// wrote it: each rank takes a run of the table of about as many bytes.
LayoutPlan plan_of(const Manifest& source, const Casts& casts, int ranks) {
  LayoutPlan plan;
  plan.tensors = source.tensors.all();
  for (TensorEntry& tensor : plan.tensors) {
    tensor.dtype = dtype_after(casts, tensor);
    if (tensor.layout == Layout::strided || tensor.layout == Layout::pieces || is_view(tensor)) {
      make_whole(tensor);
    }
    if (tensor.filters != 0) {
      tensor.layout = Layout::contiguous;
      tensor.filters = 0;
      tensor.chunk = {};
      tensor.stored.clear();
    }
    for (Extent& extent : tensor.extents) {
      // Ranks of another job: this file has as many as wrote the delta.
      if (extent.file != 0) extent.writer %= source.commit.writers;
      extent.file = 0;
      extent.digest.reset();
    }
  }
  const double total = static_cast<double>(std::max<std::uint64_t>(source.tensor_bytes(), 1));
  plan.writer = [total, ranks, done = 0.](const TensorEntry& tensor, const Extent& extent) mutable {
    const int rank = std::min(static_cast<int>(done / total * ranks), ranks - 1);
    done += static_cast<double>(extent.box.elements() * item_bytes(tensor.dtype));
    return rank;
  };
  plan.rooms = rooms_for(source.documents);
  return plan;
}

void check_source(const Comm& comm, const Manifest& source, const std::filesystem::path& target,
                  const ConvertOptions& options) {
  if (target.filename().empty()) fail(Errc::usage, "'{}' does not name a file", target.string());
  if (comm.is_root()) check_target(source, target, options);
}

}  // namespace

ConvertResult rewrite_container(const Comm& comm, const char* verb, const Manifest& source,
                                const std::filesystem::path& target,
                                const ConvertOptions& options) {
  const std::string step = fmt::format("{}: plan", verb);
  const Casts& casts = options.casts;
  ConvertResult result;
  StateView state;
  SaveOptions save;
  std::vector<Argument> arguments;
  std::vector<std::size_t> all;  // positions in the source
  agree(comm, step, [&] {
    check_source(comm, source, target, options);
    save.durable = options.durable;
    save.statistics = !source.tensors.empty() && source.tensors.front().statistics.has_value();
    state.tensors = whole_tensors(source, casts);
    state.step = source.commit.step;
    all.resize(source.tensors.size());
    std::iota(all.begin(), all.end(), std::size_t{0});
    result.tensors = source.tensors.size();
    for (const TensorView& tensor : state.tensors) {
      result.bytes += element_count(tensor.placement.global_shape) * item_bytes(tensor.dtype);
    }
    for (const TensorEntry& tensor : source.tensors) {
      const DType dtype = dtype_after(casts, tensor);
      if (dtype != tensor.dtype) result.casts.push_back({tensor.name, tensor.dtype, dtype});
    }
    arguments = {{"checkpoint", identity_of(source)}};
  });
  require_same(comm, step, arguments);
  const SaveRequest request{target, names::partial_file(target), state, save,
                            /*bytes_elsewhere=*/true};
  SaveStart start = agree_on_request(comm, request, nullptr);
  LayoutPlan plan;
  agree(comm, step, [&] {
    start.documents = source.documents;  // they tell how the state was saved, not this file
    if (comm.is_root()) plan = plan_of(source, casts, comm.size());
  });
  SaveLayout layout;
  lay_out(comm, request, std::move(plan), state.tensors, layout);
  layout.writers = source.commit.writers;
  WriteJob job;
  std::vector<std::size_t> sources;
  agree(comm, step, [&] {
    job = job_of(request, layout, start);
    for (const LayoutItem& item : layout.items) {
      job.items.push_back({item.tensor, &item.extent, nullptr});
      sources.push_back(item.piece);
    }
    job.progress = progress_of(options, 0, bytes_of(job.items, job.tensors));
  });
  CopyWriter writer(source, std::move(sources), window_bytes(options));
  carry_out(comm, request, layout, start, writer, std::move(job), [&](SaveStep entered) {
    if (entered == SaveStep::durable) verify_source(comm, source, all, verb);
  });
  return result;
}

}  // namespace cairn::detail
