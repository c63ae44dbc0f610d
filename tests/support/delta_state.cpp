#include "support/delta_state.hpp"

namespace cairn::test {

SaveOptions delta(EngineKind engine) {
  SaveOptions options;
  options.engine = engine;
  options.durable = false;
  options.delta = true;
  return options;
}

std::vector<Piece> pieces_of(Cut cut, std::uint64_t version, std::uint64_t rare, const Comm& comm) {
  auto pieces = sample_pieces(cut, comm.size(), comm.rank());
  const auto take = [&](const std::string& name, std::uint64_t from) {
    const auto others = sample_pieces(cut, comm.size(), comm.rank(), from);
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      if (pieces[i].name == name) pieces[i] = others[i];
    }
  };
  take("model/deep", version);
  take("optimizer/deep.weight/exp_avg", version);
  take("model/scalar", rare);
  return pieces;
}

void save(Saver& saver, const std::filesystem::path& path, const std::vector<Piece>& pieces,
          std::uint64_t step, const Comm& comm) {
  saver.save(path, sample_state(pieces, comm.rank(), step));
}

bool holds(const std::filesystem::path& path, const std::vector<Piece>& wanted,
           const LoadOptions& options) {
  const Manifest manifest = open_checkpoint(world(), path);
  std::uint64_t differs[1] = {wrong_pieces(world(), path, wanted, options).size() +
                              verify_tensors(world(), manifest).defects.size()};
  world().all_reduce_max(std::span<std::uint64_t>(differs));
  return differs[0] == 0;
}

std::string home_of(const Manifest& manifest, const std::string& tensor) {
  const auto& extents = manifest.find(tensor)->extents;
  return manifest.files.at(extents.front().file).path.filename().string();
}

std::string name_of(std::uint64_t step) { return checkpoint_path("", step).string(); }

std::set<std::string> files_in(const std::filesystem::path& dir) {
  world().all_equal(0);
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    names.insert(entry.path().filename().string());
  }
  world().all_equal(0);
  return names;
}

}  // namespace cairn::test
