#include <array>

#include "pipeline/rules.hpp"

namespace cairn::detail {
namespace {

constexpr Key seconds_key(std::string_view name, double least, std::string_view help) {
  return {name,    Kind::number, "a number of seconds", help, {}, false, {},
          nullptr, least,        kMostTimeoutSeconds};
}
constexpr std::array kPreemptionKeys{
    Key{"signals", Kind::flag, "true or false", "SIGTERM and SIGUSR1 make a trainer save and stop",
        "true"},
    seconds_key("time_limit", 0.001,
                "From the start of the trainer to the end of the job; default: what Slurm says"),
    seconds_key("lead", 0,
                "The last save begins so long before the end of the job, at least; default: a "
                "twentieth of its time, at most 60"),
    seconds_key("grace", 0.001,
                "How long the job lives on after SIGTERM; default: long enough for a checkpoint"),
};

}  // namespace

const BlockRule kPreemptionRule{kPreemptionKeys};

}  // namespace cairn::detail
