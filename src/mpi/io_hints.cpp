#include "mpi/io_hints.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/near_names.hpp"
#include "base/throw.hpp"
#include "mpi/comm_state.hpp"

namespace cairn::detail {
namespace {

// The names that the components look for.
constexpr std::array<std::string_view, 5> kOmpio{
    "cb_buffer_size", "cb_nodes", "collective_buffering", "stripe_size", "stripe_width"};
constexpr std::array<std::string_view, 25> kRomio{"cb_buffer_size",
                                                  "cb_config_list",
                                                  "cb_nodes",
                                                  "direct_read",
                                                  "direct_write",
                                                  "ind_rd_buffer_size",
                                                  "ind_wr_buffer_size",
                                                  "romio_aggregator_list",
                                                  "romio_cb_alltoall",
                                                  "romio_cb_ds_threshold",
                                                  "romio_cb_fr_alignment",
                                                  "romio_cb_fr_type",
                                                  "romio_cb_pfr",
                                                  "romio_cb_read",
                                                  "romio_cb_write",
                                                  "romio_ds_read",
                                                  "romio_ds_write",
                                                  "romio_filesystem_type",
                                                  "romio_lustre_co_ratio",
                                                  "romio_lustre_coll_threshold",
                                                  "romio_min_fdomain_size",
                                                  "romio_no_indep_rw",
                                                  "start_iodevice",
                                                  "striping_factor",
                                                  "striping_unit"};

std::vector<std::string_view> names_known_to(std::string_view component) {
  if (component == "ompio") return {kOmpio.begin(), kOmpio.end()};
  if (component.starts_with("romio")) return {kRomio.begin(), kRomio.end()};
  return {};
}

}  // namespace

Hints::Hints(const HintMap& hints) {
  for (const auto& [key, value] : hints) {
    if (key.empty() || key.size() >= MPI_MAX_INFO_KEY || value.empty() ||
        value.size() >= MPI_MAX_INFO_VAL) {
      fail(Errc::usage,
           "the MPI-IO hint '{}' is none: MPI takes names of 1 to {} letters and values of 1 to {}",
           key, MPI_MAX_INFO_KEY - 1, MPI_MAX_INFO_VAL - 1);
    }
  }
  if (hints.empty()) return;
  check_mpi(MPI_Info_create(&info_), "MPI_Info_create");
  for (const auto& [key, value] : hints) {
    check_mpi(MPI_Info_set(info_, key.c_str(), value.c_str()), "MPI_Info_set");
  }
}

Hints::~Hints() {
  if (info_ != MPI_INFO_NULL) MPI_Info_free(&info_);
}

HintMap hints_in_force(MPI_File file) {
  MPI_Info info = MPI_INFO_NULL;
  check_mpi(MPI_File_get_info(file, &info), "MPI_File_get_info");
  if (info == MPI_INFO_NULL) return {};
  HintMap hints;
  int keys = 0;
  MPI_Info_get_nkeys(info, &keys);
  for (int i = 0; i < keys; ++i) {
    std::array<char, MPI_MAX_INFO_KEY + 1> key{};
    std::array<char, MPI_MAX_INFO_VAL + 1> value{};
    int found = 0;
    MPI_Info_get_nthkey(info, i, key.data());
    MPI_Info_get(info, key.data(), MPI_MAX_INFO_VAL, value.data(), &found);
    if (found != 0) hints[key.data()] = value.data();
  }
  MPI_Info_free(&info);
  return hints;
}

std::vector<std::string> hints_without_effect(const HintMap& asked, const HintMap& in_force,
                                              std::string_view component) {
  const std::vector<std::string_view> known = names_known_to(component);
  std::vector<std::string> sentences;
  for (const auto& [key, value] : asked) {
    const auto found = in_force.find(key);
    if (!known.empty() && std::find(known.begin(), known.end(), key) == known.end()) {
      sentences.push_back(
          fmt::format("the MPI-IO hint '{}' is none that {} knows, so it has no effect; near it "
                      "are {}",
                      key, component, list_near(key, known)));
    } else if (found == in_force.end()) {
      sentences.push_back(fmt::format("MPI dropped the MPI-IO hint '{}'", key));
    } else if (found->second != value) {
      sentences.push_back(
          fmt::format("MPI made '{}' of the MPI-IO hint '{}: {}'", found->second, key, value));
    }
  }
  return sentences;
}

}  // namespace cairn::detail
