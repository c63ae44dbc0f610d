#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "cairn/state.hpp"

namespace cairn::test {

/// A text of the user's own; each rank has another one where it is per rank.
class Note : public Stateful {
 public:
  explicit Note(std::string first, StateScope scope = StateScope::shared)
      : text(std::move(first)), scope_(scope) {}
  std::string state() const override { return '"' + text + '"'; }
  void load(const std::string& state) override {
    if (refuses) throw std::runtime_error("the note is full");
    text = state.substr(1, state.size() - 2);
  }
  StateScope scope() const override { return scope_; }

  std::string text;
  bool refuses = false;

 private:
  StateScope scope_;
};

}  // namespace cairn::test
