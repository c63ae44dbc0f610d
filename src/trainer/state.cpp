#include "cairn/state.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/throw.hpp"

namespace cairn {

using Json = nlohmann::json;

Stateful::~Stateful() = default;

std::function<void()> Stateful::undo() {
  return [this, before = state()] { load(before); };
}

std::string Stateful::resized(int saved_ranks, int ranks) {
  if (scope() == StateScope::shared) return "taken as it was: it is the same on every rank";
  return fmt::format("left as it is: {} ranks saved one each, and there are {}", saved_ranks,
                     ranks);
}

LossScaler::LossScaler(double scale, double growth, double backoff, std::uint64_t growth_interval)
    : scale_(scale), growth_(growth), backoff_(backoff), growth_interval_(growth_interval) {}

void LossScaler::update(bool overflow) {
  if (overflow) {
    scale_ *= backoff_;
    good_steps_ = 0;
  } else if (++good_steps_ == growth_interval_) {
    scale_ *= growth_;
    good_steps_ = 0;
  }
}

std::string LossScaler::state() const {
  return Json{{"scale", scale_}, {"good_steps", good_steps_}}.dump();
}

void LossScaler::load(const std::string& state) {
  try {
    const Json json = Json::parse(state);
    const auto scale = json.at("scale").get<double>();
    good_steps_ = json.at("good_steps").get<std::uint64_t>();
    scale_ = scale;
  } catch (const Json::exception& error) {
    detail::fail(Errc::corrupt, "the state of a loss scaler can't be understood ({})",
                 error.what());
  }
}

}  // namespace cairn
