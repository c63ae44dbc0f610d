#include <nlohmann/json.hpp>

#include "checkpoint/convert_steps.hpp"
#include "checkpoint/steps.hpp"
#include "manifest/names.hpp"

namespace cairn::detail {

void write_container(const Comm& comm, const Manifest& source, const std::filesystem::path& target,
                     const ConvertPlan& plan, const ConvertOptions& options) {
  StateView state;
  SaveOptions save;
  save.durable = options.durable;
  agree(comm, "convert: plan", [&] {
    // Replicas: the planner divides what they hold among the ranks, by bytes.
    for (const TensorEntry& tensor : plan.tensors) {
      state.tensors.push_back(
          {tensor.name, tensor.dtype, Placement::replicated(tensor.shape), nullptr});
    }
    state.documents = plan.documents;
    state.step = plan.step;
  });
  const SaveRequest request{target, names::partial_file(target), state, save,
                            /*bytes_elsewhere=*/true};
  SaveStart start = agree_on_request(comm, request, nullptr);
  agree(comm, "convert: plan", [&] {
    // So that nobody takes the ranks of a conversion for those of a training.
    start.documents["topology"] =
        nlohmann::json{{"world_size", comm.size()}, {"converted", true}}.dump();
  });
  SaveLayout layout = make_layout(comm, request, start.documents);
  WriteJob job;
  std::vector<std::size_t> sources;
  agree(comm, "convert: plan", [&] {
    job = job_of(request, layout, start);
    for (const LayoutItem& item : layout.items) {
      job.items.push_back({item.tensor, &item.extent, nullptr});
      sources.push_back(plan.sources[item.piece]);
    }
    job.progress = progress_of(options, 0, bytes_of(job.items, job.tensors));
  });
  CopyWriter writer(source, std::move(sources), window_bytes(options));
  carry_out(comm, request, layout, start, writer, std::move(job), [&](SaveStep step) {
    if (step == SaveStep::durable) verify_source(comm, source, plan.sources, "convert");
  });
}

}  // namespace cairn::detail
