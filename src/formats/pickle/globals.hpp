#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace cairn::detail::pickle {

/// What a name in a pickle (a class or a function) means to a reader that never calls it.
enum class Class : std::uint8_t {
  unknown,  ///< some class: its objects stay inert records
  unsafe,   ///< executes, imports, or opens files: a reason to refuse the whole file
  // Python's own
  object,
  dict,
  ordered_dict,
  default_dict,
  counter,
  list,
  tuple,
  set,
  frozenset,
  complex,
  bytes,
  bytearray,
  name_space,  ///< argparse.Namespace, types.SimpleNamespace
  path,        ///< pathlib
  get_attribute,
  attribute_getter,  ///< operator.attrgetter, methodcaller: getattr in other clothes
  codecs_encode,
  reconstructor,  ///< copyreg: how protocols 0 and 1 make objects
  // PyTorch
  torch_storage,
  torch_dtype,
  torch_size,
  torch_device,
  torch_tensor,  ///< the class Tensor itself
  rebuild_tensor_v2,
  rebuild_tensor_v3,
  rebuild_parameter,
  rebuild_parameter_with_state,
  rebuild_from_type_v2,
  rebuild_other,  ///< sparse, quantized, nested, ...: tensors that are no strided bytes
  // NumPy
  numpy_dtype,
  numpy_ndarray,
  numpy_reconstruct,
  numpy_scalar,
  numpy_frombuffer,
  // OmegaConf
  omega_dict,
  omega_list,
  omega_node,
};

/// The class of a name, by exact name; unsafe names by what Python would do with them. Local.
Class class_of(std::string_view module, std::string_view name);

/// Whether an attribute of that (dotted) name may lead to code: "os.system", "__globals__". Local.
bool is_unsafe_attribute(std::string_view name);

/// "builtins" for Python 2's "__builtin__", "copyreg" for "copy_reg", ... Local.
std::string_view modern_module(std::string_view module);
/// "builtins.range" for "__builtin__" and "xrange", as protocols 0 to 2 call it also where Python 3
/// wrote them. Local.
std::string modern_name(std::string_view module, std::string_view name);

}  // namespace cairn::detail::pickle
