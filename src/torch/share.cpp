#include "torch/share.hpp"

#include <functional>
#include <nlohmann/json.hpp>
#include <span>

#include "cairn/checkpoint.hpp"

namespace cairn::detail {

std::vector<std::string> share_texts(const Comm& comm, std::string_view step,
                                     const std::string& mine) {
  if (comm.all_equal(std::hash<std::string>{}(mine))) return {mine};
  const auto gathered = comm.gather(std::as_bytes(std::span(mine)));
  std::string all;
  agree(comm, step, [&] {
    if (!comm.is_root()) return;
    std::vector<std::string> texts;
    for (const auto& bytes : gathered) {
      texts.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    }
    all = nlohmann::json(texts).dump();
  });
  comm.broadcast(all);
  std::vector<std::string> texts;
  agree(comm, step, [&] { texts = nlohmann::json::parse(all).get<std::vector<std::string>>(); });
  return texts;
}

std::optional<std::filesystem::path> share_newest(const Comm& comm,
                                                  const std::filesystem::path& dir) {
  std::string path;
  agree(comm, "newest checkpoint", [&] {
    if (!comm.is_root()) return;
    if (const auto newest = newest_checkpoint(dir)) path = newest->string();
  });
  comm.broadcast(path);
  if (path.empty()) return std::nullopt;
  return path;
}

void share_reports(const Comm& comm, std::vector<StateReport>& reports) {
  using Json = nlohmann::json;
  Json words = Json::array();
  for (const auto& [name, text] : reports) words.push_back({name, text});
  std::string text = words.dump(-1, ' ', false, Json::error_handler_t::replace);
  comm.broadcast(text);
  words = Json::parse(text);
  reports.clear();
  for (const Json& each : words) {
    reports.push_back({each.at(0).get<std::string>(), each.at(1).get<std::string>()});
  }
}

std::vector<StageTrace> unite_traces(const Comm& comm, const Trace& trace) {
  std::vector<StageTrace> stages = trace.stages();
  std::vector<double> seconds;
  std::vector<std::uint64_t> bytes;
  for (const StageTrace& stage : stages) {
    seconds.push_back(stage.seconds);
    bytes.push_back(stage.bytes);
  }
  comm.all_reduce_max(std::span<double>(seconds));
  comm.all_reduce_sum(std::span<std::uint64_t>(bytes));
  for (std::size_t s = 0; s < stages.size(); ++s) {
    stages[s].seconds = seconds[s];
    stages[s].bytes = bytes[s];
  }
  return stages;
}

}  // namespace cairn::detail
