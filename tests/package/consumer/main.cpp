#include <cairn/checkpoint.hpp>
#include <cstdio>
#include <vector>

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  int result = 1;
  try {
    cairn::Comm comm(MPI_COMM_WORLD);
    std::vector<float> weight(6, static_cast<float>(comm.rank()));
    cairn::StateView state;
    const auto placement = cairn::Placement::split({6 * static_cast<unsigned>(comm.size())}, 0,
                                                   comm.size(), comm.rank());
    state.tensors.push_back({"model/weight", cairn::DType::f32, placement,
                             reinterpret_cast<const std::byte*>(weight.data())});
    state.step = 7;
    cairn::Saver(comm, {}).save(cairn::checkpoint_path(argv[1], state.step), state);
    const auto newest = cairn::newest_checkpoint(argv[1]);
    const auto manifest = cairn::open_checkpoint(comm, newest.value());
    std::vector<float> loaded(6, -1);
    const cairn::MutableTensorView target{"model/weight", cairn::DType::f32, placement,
                                          reinterpret_cast<std::byte*>(loaded.data())};
    cairn::load_tensors(comm, manifest, {&target, 1});
    result = loaded == weight ? 0 : 1;
    // An error thrown inside the library is caught by its type outside.
    try {
      cairn::open_checkpoint(comm, "does-not-exist.h5");
      result = 1;
    } catch (const cairn::Error& error) {
      if (error.code() != cairn::Errc::not_found) result = 1;
    }
    comm.close();
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
  }
  MPI_Finalize();
  return result;
}
