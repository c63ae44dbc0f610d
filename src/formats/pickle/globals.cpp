#include "formats/pickle/globals.hpp"

#include <fmt/format.h>

#include <cstddef>

namespace cairn::detail::pickle {
namespace {

/// Whether `word` is in a list of words, each with a space before and behind it.
bool holds(std::string_view words, std::string_view word) {
  return words.find(fmt::format(" {} ", word)) != std::string_view::npos;
}

/// Whether `module` is one of `modules` or lies in one.
bool lies_in(std::string_view modules, std::string_view module) {
  for (std::size_t end = module.find('.'); end != std::string_view::npos;
       end = module.find('.', end + 1)) {
    if (holds(modules, module.substr(0, end))) return true;
  }
  return holds(modules, module);
}

template <class F>
bool any_component(std::string_view dotted, F&& matches) {
  for (;;) {
    const std::size_t dot = dotted.find('.');
    if (matches(dotted.substr(0, dot))) return true;
    if (dot == std::string_view::npos) return false;
    dotted.remove_prefix(dot + 1);
  }
}

// Modules that no checkpoint has a reason to name: they run programs or code, import, load other
// files, or reach the interpreter.
constexpr std::string_view kUnsafeModules =
    " os posix nt ntpath posixpath genericpath sys subprocess _posixsubprocess _winapi "
    "multiprocessing concurrent pty tty commands popen2 importlib _frozen_importlib "
    "_frozen_importlib_external _imp imp imputil zipimport pkgutil modulefinder runpy "
    "pickle _pickle cPickle pickletools shelve dbm marshal dill cloudpickle jsonpickle "
    "joblib shutil tempfile fileinput mmap socket _socket ssl socketserver SocketServer "
    "asyncio http httplib urllib urllib2 urllib3 requests aiohttp ftplib smtplib poplib "
    "imaplib nntplib telnetlib xmlrpc webbrowser ctypes _ctypes cffi _cffi_backend "
    "codeop _codeop bdb pdb pydb ipdb cProfile timeit doctest unittest pytest "
    "_pytest pydoc gc _signal resource atexit _thread thread _xxsubinterpreters "
    "_interpreters getpass crypt distutils setuptools pkg_resources pip ensurepip venv "
    "idlelib lib2to3 antigravity tkinter Tkinter turtle linecache IPython ipykernel "
    "jupyter_client notebook paramiko pexpect psutil cython Cython numba numexpr pandas.io "
    "pandas.core.computation numpy.testing numpy.distutils numpy.f2py numpy.ctypeslib "
    "numpy.lib.npyio numpy.lib._npyio_impl numpy.lib.format scipy.io torch.hub "
    "torch.package torch.jit torch.fx torch.utils.cpp_extension torch.utils.model_zoo "
    "torch.utils.collect_env torch.utils.bottleneck torch.utils._config_module "
    "torch.distributed.run torch.distributed.launch torch.distributed.rpc "
    "torch.distributed.elastic torch.multiprocessing torch._inductor torch.testing "
    "torch.onnx ";

struct Unsafe {
  std::string_view module;
  std::string_view names;
};

// Modules of Python's whose names are those of ordinary folders, too: what in them runs code.
constexpr Unsafe kUnsafeNames[] = {
    {"code",
     " InteractiveInterpreter InteractiveConsole Compile CommandCompiler compile_command "
     "interact "},
    {"site",
     " main addsitedir addpackage addsitepackages addusersitepackages execsitecustomize "
     "execusercustomize enablerlcompleter register_readline venv _script builtins io "},
    {"trace", " Trace CoverageResults main threading linecache "},
    {"profile", " Profile run runctx runfile main _Utils "},
};

// Nowhere in a dotted name: with protocol 4, "torch.serialization" "os.system" is os.system.
constexpr std::string_view kUnsafeComponents =
    " os posix nt sys subprocess builtins __builtin__ importlib ctypes runpy shutil socket "
    "pickle _pickle marshal ";

// Functions that run what they are given, whichever module exports them.
constexpr std::string_view kUnsafeFunctions =
    " eval exec execfile system popen Popen check_output check_call import_module "
    "load_module run_module run_path runstring runcode load_library getoutput "
    "getstatusoutput loads _load_from_bytes ";

// The only names of builtins that objects have a use for; all others are functions.
constexpr std::string_view kHarmlessBuiltins =
    " object dict list tuple set frozenset complex bytes bytearray int long float bool str "
    "unicode basestring slice range xrange type NoneType Ellipsis NotImplemented getattr "
    "property staticmethod classmethod super memoryview buffer enumerate zip map filter "
    "reversed iter next sorted len abs min max sum any all pow round divmod hash id repr "
    "ascii format chr ord hex oct bin isinstance issubclass callable hasattr print intern "
    "reduce unichr cmp coerce StopIteration KeyboardInterrupt function method module ";

constexpr std::string_view kNumpyRandom =
    " __randomstate_ctor __generator_ctor __bit_generator_ctor ";

constexpr std::string_view kDtypes =
    " float64 double float32 float float16 half bfloat16 float8_e4m3fn float8_e5m2 "
    "float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2 int64 long int32 int "
    "int16 short int8 uint8 uint16 uint32 uint64 bool complex128 cdouble complex64 cfloat "
    "complex32 chalf qint8 quint8 qint32 quint4x2 quint2x4 bits8 bits16 bits1x8 bits2x4 "
    "bits4x2 ";

struct Known {
  std::string_view module;
  std::string_view name;
  Class cls;
};

constexpr Known kKnown[] = {
    {"builtins", "object", Class::object},
    {"builtins", "dict", Class::dict},
    {"builtins", "list", Class::list},
    {"builtins", "tuple", Class::tuple},
    {"builtins", "set", Class::set},
    {"builtins", "frozenset", Class::frozenset},
    {"builtins", "complex", Class::complex},
    {"builtins", "bytes", Class::bytes},
    {"builtins", "bytearray", Class::bytearray},
    {"builtins", "getattr", Class::get_attribute},
    {"operator", "attrgetter", Class::attribute_getter},
    {"operator", "methodcaller", Class::attribute_getter},
    {"_operator", "attrgetter", Class::attribute_getter},
    {"_operator", "methodcaller", Class::attribute_getter},
    {"collections", "OrderedDict", Class::ordered_dict},
    {"collections", "defaultdict", Class::default_dict},
    {"collections", "Counter", Class::counter},
    {"argparse", "Namespace", Class::name_space},
    {"types", "SimpleNamespace", Class::name_space},
    {"_codecs", "encode", Class::codecs_encode},
    {"copyreg", "_reconstructor", Class::reconstructor},
    {"torch", "Size", Class::torch_size},
    {"torch", "device", Class::torch_device},
    {"torch", "Tensor", Class::torch_tensor},
    {"torch.nn.parameter", "Parameter", Class::torch_tensor},
    {"torch._utils", "_rebuild_tensor", Class::rebuild_tensor_v2},
    {"torch._utils", "_rebuild_tensor_v2", Class::rebuild_tensor_v2},
    {"torch._utils", "_rebuild_tensor_v3", Class::rebuild_tensor_v3},
    {"torch._utils", "_rebuild_parameter", Class::rebuild_parameter},
    {"torch._utils", "_rebuild_parameter_with_state", Class::rebuild_parameter_with_state},
    {"torch._tensor", "_rebuild_from_type_v2", Class::rebuild_from_type_v2},
    {"torch._tensor", "_rebuild_from_type", Class::rebuild_from_type_v2},  // up to PyTorch 1.11
    {"torch.tensor", "_rebuild_from_type", Class::rebuild_from_type_v2},   // up to 1.8
    {"numpy", "dtype", Class::numpy_dtype},
    {"numpy", "ndarray", Class::numpy_ndarray},
    {"numpy.core.multiarray", "_reconstruct", Class::numpy_reconstruct},
    {"numpy.core.multiarray", "scalar", Class::numpy_scalar},
    {"numpy._core.multiarray", "_reconstruct", Class::numpy_reconstruct},
    {"numpy._core.multiarray", "scalar", Class::numpy_scalar},
    {"numpy.core.numeric", "_frombuffer", Class::numpy_frombuffer},
    {"numpy._core.numeric", "_frombuffer", Class::numpy_frombuffer},
    {"omegaconf.dictconfig", "DictConfig", Class::omega_dict},
    {"omegaconf.listconfig", "ListConfig", Class::omega_list},
    // It keeps its node where a dict keeps its content.
    {"omegaconf.base", "UnionNode", Class::omega_dict},
};

struct Renamed {
  std::string_view module;
  std::string_view name;
  std::string_view now;
};

// Of what Python's _compat_pickle knows, what is no reason to refuse a file.
constexpr Renamed kRenamed[] = {
    {"__builtin__", "xrange", "builtins.range"},
    {"__builtin__", "long", "builtins.int"},
    {"__builtin__", "unicode", "builtins.str"},
    {"__builtin__", "unichr", "builtins.chr"},
    {"__builtin__", "reduce", "functools.reduce"},
    {"itertools", "izip", "builtins.zip"},
    {"itertools", "imap", "builtins.map"},
    {"itertools", "ifilter", "builtins.filter"},
    {"itertools", "izip_longest", "itertools.zip_longest"},
    {"itertools", "ifilterfalse", "itertools.filterfalse"},
    {"UserDict", "UserDict", "collections.UserDict"},
    {"UserDict", "IterableUserDict", "collections.UserDict"},
    {"UserList", "UserList", "collections.UserList"},
    {"UserString", "UserString", "collections.UserString"},
};

Class known_class(std::string_view module, std::string_view name) {
  for (const Known& known : kKnown) {
    if (known.module == module && known.name == name) return known.cls;
  }
  if (module == "omegaconf.nodes" && name.ends_with("Node")) return Class::omega_node;
  if ((module == "pathlib" || module == "pathlib._local") && name.ends_with("Path")) {
    return Class::path;
  }
  const bool torch = module == "torch" || module == "torch.storage" || module == "torch.cuda";
  if (torch && name.ends_with("Storage")) return Class::torch_storage;
  if (module == "torch" && holds(kDtypes, name)) return Class::torch_dtype;
  if ((module == "torch._utils" || module == "torch._tensor") && name.starts_with("_rebuild")) {
    return Class::rebuild_other;
  }
  return Class::unknown;
}

bool is_unsafe(std::string_view module, std::string_view name) {
  if (lies_in(kUnsafeModules, module) || is_unsafe_attribute(name)) return true;
  for (const Unsafe& unsafe : kUnsafeNames) {
    if (unsafe.module == module && holds(unsafe.names, name.substr(0, name.find('.')))) return true;
  }
  const auto unsafe = [](std::string_view part) { return holds(kUnsafeComponents, part); };
  const std::size_t dot = module.find('.');
  if (dot != std::string_view::npos && any_component(module.substr(dot + 1), unsafe)) return true;
  if (module == "builtins")
    return !holds(kHarmlessBuiltins, name) && !name.ends_with("Error") &&
           !name.ends_with("Exception") && !name.ends_with("Warning");
  if (module == "types")
    return name == "CodeType" || name == "FunctionType" || name == "LambdaType" ||
           name == "ModuleType";
  if (module == "signal") return name != "Signals" && name != "Handlers";
  if (module == "torch.serialization") return name != "_get_layout";
  if (module == "io" || module == "_io") return name != "BytesIO" && name != "StringIO";
  const bool loads = name == "load" || name == "save" || name == "open" || name == "compile";
  return loads && (module == "torch" || module == "numpy" || module == "codecs" ||
                   module == "gzip" || module == "bz2" || module == "lzma" || module == "zipfile");
}

}  // namespace

bool is_unsafe_attribute(std::string_view name) {
  const bool dotted = name.find('.') != std::string_view::npos;
  return any_component(name, [&](std::string_view part) {
    if (holds(kUnsafeFunctions, part)) return true;
    if (dotted && holds(kUnsafeComponents, part)) return true;
    return part.starts_with("__") && part.ends_with("__");
  });
}

std::string_view modern_module(std::string_view module) {
  if (module == "__builtin__" || module == "exceptions") return "builtins";
  if (module == "copy_reg") return "copyreg";
  if (module == "_collections") return "collections";
  if (module == "Queue") return "queue";
  if (module == "ConfigParser") return "configparser";
  return module;
}

std::string modern_name(std::string_view module, std::string_view name) {
  for (const Renamed& old : kRenamed) {
    if (old.module == module && old.name == name) return std::string(old.now);
  }
  return fmt::format("{}.{}", modern_module(module), name);
}

Class class_of(std::string_view module, std::string_view name) {
  module = modern_module(module);
  const Class cls = known_class(module, name);
  if (cls != Class::unknown) return cls;
  if (module == "copyreg" && name == "__newobj__") return Class::unknown;
  // What the state of a NumPy random generator is made with.
  if (module == "numpy.random._pickle" && holds(kNumpyRandom, name)) return Class::unknown;
  return is_unsafe(module, name) ? Class::unsafe : Class::unknown;
}

}  // namespace cairn::detail::pickle
