#pragma once

#include <array>
#include <string_view>
#include <utility>

#include "cairn/config.hpp"

namespace cairn::detail {

/// The words of the configuration and what they mean.
template <class T, std::size_t N>
using Words = std::array<std::pair<std::string_view, T>, N>;

inline constexpr Words<LoadingType, 4> kLoadingWords{
    {{"warm_start", LoadingType::warm_start},
     {"cold_start", LoadingType::cold_start},
     {"weights_only", LoadingType::weights_only},
     {"transfer_learning", LoadingType::transfer_learning}}};
inline constexpr Words<RescaleRate, 3> kRescaleWords{
    {{"off", RescaleRate::off}, {"linear", RescaleRate::linear}, {"sqrt", RescaleRate::sqrt}}};
inline constexpr Words<VerifyWhen, 3> kVerifyWords{
    {{"before", VerifyWhen::before}, {"loaded", VerifyWhen::loaded}, {"never", VerifyWhen::never}}};
inline constexpr Words<BroadcastReplicas, 3> kBroadcastWords{
    {{"auto", BroadcastReplicas::automatic},
     {"always", BroadcastReplicas::always},
     {"never", BroadcastReplicas::never}}};
inline constexpr Words<DType, 4> kFloatWords{
    {{"f64", DType::f64}, {"f32", DType::f32}, {"f16", DType::f16}, {"bf16", DType::bf16}}};
inline constexpr Words<S3Style, 3> kStyleWords{
    {{"auto", S3Style::automatic}, {"path", S3Style::path}, {"virtual", S3Style::virtual_host}}};
inline constexpr Words<MetricOrder, 2> kOrderWords{
    {{"min", MetricOrder::min}, {"max", MetricOrder::max}}};
inline constexpr Words<SaveUnit, 3> kUnitWords{{{"minutes", SaveUnit::minutes},
                                                {"epochs", SaveUnit::epochs},
                                                {"train_steps", SaveUnit::train_steps}}};
inline constexpr Words<WhenBusy, 3> kBusyWords{
    {{"wait", WhenBusy::wait}, {"skip", WhenBusy::skip}, {"queue", WhenBusy::queue}}};
inline constexpr Words<OnFailure, 3> kFailureWords{
    {{"fatal", OnFailure::fatal}, {"warn", OnFailure::warn}, {"retry", OnFailure::retry}}};
inline constexpr Words<IoComponent, 3> kComponentWords{{{"auto", IoComponent::automatic},
                                                        {"ompio", IoComponent::ompio},
                                                        {"romio", IoComponent::romio}}};
inline constexpr Words<EngineKind, 2> kEngineWords{
    {{"direct", EngineKind::direct}, {"mpio", EngineKind::mpio}}};
inline constexpr Words<Transfer, 2> kTransferWords{
    {{"collective", Transfer::collective}, {"independent", Transfer::independent}}};
inline constexpr Words<ReplicaCheck, 3> kReplicaWords{
    {{"off", ReplicaCheck::off}, {"sample", ReplicaCheck::sample}, {"full", ReplicaCheck::full}}};

/// The word that means `value`; a text that is none where there is none.
template <class T, std::size_t N>
constexpr std::string_view word_of(T value, const Words<T, N>& words) {
  for (const auto& [word, meaning] : words) {
    if (meaning == value) return word;
  }
  return "(none)";
}

/// The words alone.
template <class T, std::size_t N>
constexpr std::array<std::string_view, N> words_of(const Words<T, N>& words) {
  std::array<std::string_view, N> all{};
  for (std::size_t i = 0; i < N; ++i) all[i] = words[i].first;
  return all;
}

}  // namespace cairn::detail
