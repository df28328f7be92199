// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// Pickles: what Python wrote is read, what is written is what Python would write, and nothing else
// is read at all.
#include <shardmesh/checkpoint/format/pickle_calls.hpp>
#include <shardmesh/checkpoint/format/pickle_cursor.hpp>
#include <shardmesh/checkpoint/format/pickle_globals.hpp>
#include <shardmesh/checkpoint/format/pickle_inert.hpp>
#include <shardmesh/checkpoint/format/pickle_opcodes.hpp>
#include <shardmesh/checkpoint/format/pickle_reader.hpp>
#include <shardmesh/checkpoint/format/pickle_runs.hpp>
#include <shardmesh/checkpoint/format/pickle_schema.hpp>
#include <shardmesh/checkpoint/format/pickle_stack.hpp>
#include <shardmesh/checkpoint/format/pickle_tree.hpp>
#include <shardmesh/checkpoint/format/pickle_values.hpp>
#include <shardmesh/checkpoint/format/pickle_writer.hpp>
#include <shardmesh/checkpoint/format/tensor_pickle.hpp>

#include <bit>
#include <cstdint>
#include <limits>

#include <doctest/doctest.h>

#include "damage.hpp"

namespace format_pickle_test {

namespace sm = shardmesh;
namespace format = shardmesh::format;

using Dialect = format::PickleDialect;
using Global = format::PickleGlobal;
using Kind = format::PickleKind;
using test::failure_of;
using test::unhex;

TEST_SUITE_BEGIN("checkpoint.format_pickle");

namespace {

std::string show(format::PickleTree const& tree, format::PickleRef ref);

std::string show_all(format::PickleTree const& tree, std::span<format::PickleRef const> refs) {
  std::string text;
  for (format::PickleRef const ref : refs) {
    text += (text.empty() ? "" : " ") + show(tree, ref);
  }
  return text;
}

/// A value of a tree as text. Globals are numbers, inert ones their names.
std::string show(format::PickleTree const& tree, format::PickleRef ref) {
  std::string const number = std::to_string(static_cast<int>(tree.node(ref).global));
  if (tree.is_inert(ref)) {
    bool const has_state = tree.is(ref, Kind::object) && tree.state(ref) != format::no_pickle_ref;
    return tree.is(ref, Kind::object)
               ? "<" + tree.name(ref) + ">" + (has_state ? show(tree, tree.state(ref)) : "")
               : tree.name(ref);
  }
  switch (tree.kind(ref)) {
    case Kind::none:
      return "None";
    case Kind::boolean:
      return tree.integer(ref) != 0 ? "True" : "False";
    case Kind::integer:
      return std::to_string(tree.integer(ref));
    case Kind::real:
      return std::to_string(tree.real(ref));
    case Kind::text:
      return "'" + std::string(tree.text(ref)) + "'";
    case Kind::tuple:
      return "(" + show_all(tree, tree.items(ref)) + ")";
    case Kind::list:
      return "[" + show_all(tree, tree.items(ref)) + "]";
    case Kind::dict:
      return "{" + show_all(tree, tree.items(ref)) + "}";
    case Kind::set:
      return "set(" + show_all(tree, tree.items(ref)) + ")";
    case Kind::opaque:
      return "opaque";
    case Kind::global:
      return "global" + number;
    case Kind::object:
      return "object" + number +
             (tree.state(ref) == format::no_pickle_ref ? "" : show(tree, tree.state(ref)));
    case Kind::call:
      return "call" + number + "(" + show_all(tree, tree.arguments(ref)) + ")";
    case Kind::persistent:
      return "persistent" + show(tree, tree.node(ref).link);
  }
  return "?";
}

std::string number_of(Global global) {
  return std::to_string(static_cast<int>(global));
}

std::string read(format::ByteSpan pickle,
                 Dialect dialect = Dialect::plain,
                 format::PickleLimits const& limits = {}) {
  auto const tree = format::read_pickle(pickle, dialect, "x.pkl", 0, limits);
  return show(tree, tree.root());
}

/// What reading the hexadecimal pickle throws.
test::Failure failure(std::string_view digits, Dialect dialect = Dialect::plain) {
  auto const bytes = unhex(digits);
  return failure_of([&] { static_cast<void>(read(bytes, dialect)); });
}

/// c"module\nname\n"
std::string global(std::string const& name) {
  std::string line = name;
  line[name.find_last_of('.')] = '\n';
  return "c" + line + "\n";
}

/// What reading `body` between PROTO 2 and STOP throws.
test::Failure failure_of_body(std::string const& body, Dialect dialect = Dialect::metadata) {
  auto const bytes = test::bytes_of("\x80\x02" + body + ".");
  return failure_of([&] { static_cast<void>(read(bytes, dialect)); });
}

std::string read_body(std::string const& body, Dialect dialect = Dialect::metadata) {
  return read(test::bytes_of("\x80\x02" + body + "."), dialect);
}

std::string const dcp = "torch.distributed.checkpoint.metadata.";
std::string const text_a{"X\x01\0\0\0a", 6};

/// {"a": [1, -1, 70000, 2**40, 0.5, None, True], "b": ("x", (), (1, 2, 3, 4)), "c": {}} by Python.
std::string_view const sample =
    "80027d71002858010000006171015d7102284b014affffffff4a701101008a06000000000001473fe0000000000000"
    "4e88655801000000627103580100000078710429284b014b024b034b0474710587710658010000006371077d710875"
    "2e";

}  // namespace

TEST_CASE("opcodes have Python's names, others their number") {
  CHECK(format::opcode_name(static_cast<std::uint8_t>(format::Opcode::mark)) == "MARK");
  CHECK(format::opcode_name(static_cast<std::uint8_t>(format::Opcode::stack_global)) ==
        "STACK_GLOBAL");
  CHECK(format::opcode_name(0x98) == "READONLY_BUFFER");
  CHECK(format::opcode_name(0x00) == "0x00");
  CHECK(format::opcode_name(0xfe) == "0xfe");
}

TEST_CASE("the cursor takes what is there and names the opcode that wanted more") {
  auto const bytes = unhex("80028a0100ff");
  format::detail::PickleCursor cursor(bytes, "x.pkl", 100, 2);
  cursor.read_protocol();
  CHECK(cursor.next() == format::Opcode::long1);
  CHECK(cursor.op_at() == 2);
  CHECK(cursor.long_integer() == 0);
  CHECK(cursor.remaining() == 1);
  auto const failure = failure_of([&] { static_cast<void>(cursor.take(2)); });
  CHECK(failure.what == "shardmesh::read_pickle: opcode LONG1: 2 bytes wanted, 1 left; the pickle "
                        "is truncated or damaged [x.pkl, byte 102]");
  CHECK(failure.path == "x.pkl");
  CHECK(failure.offset == 102);
  CHECK(failure_of([&] { static_cast<void>(cursor.next()); }).says("more opcodes than allowed"));
  CHECK(cursor.take(1)[0] == std::byte{0xff});
}

TEST_CASE("integers are written with Python's bytes and read back") {
  std::pair<std::int64_t, std::string_view> const table[] = {
      {0, "80024b002e"},
      {255, "80024bff2e"},
      {256, "80024d00012e"},
      {65535, "80024dffff2e"},
      {65536, "80024a000001002e"},
      {2147483647, "80024affffff7f2e"},
      {2147483648, "80028a0500000080002e"},
      {4294967296, "80028a0500000000012e"},
      {1099511627776, "80028a060000000000012e"},
      {4611686018427387904, "80028a0800000000000000402e"},
      {std::numeric_limits<std::int64_t>::max(), "80028a08ffffffffffffff7f2e"},
      {-1, "80024affffffff2e"},
      {-129, "80024a7fffffff2e"},
      {-2147483648, "80024a000000802e"},
      {-2147483649, "80028a05ffffff7fff2e"},
      {-549755813888, "80028a0500000000802e"},
      {-549755813889, "80028a06ffffffff7fff2e"},
      {std::numeric_limits<std::int64_t>::min(), "80028a0800000000000000802e"},
  };
  for (auto const& [value, digits] : table) {
    format::PickleWriter writer;
    writer.integer(value);
    auto const pickle = std::move(writer).finish();
    CHECK(test::hex(pickle) == digits);
    CHECK(read(pickle) == std::to_string(value));
  }
}

TEST_CASE("LONG1 of any legal length is read; what does not fit 64 bits is refused") {
  CHECK(read(unhex("80028a002e")) == "0");
  CHECK(read(unhex("80028a01ff2e")) == "-1");
  CHECK(read(unhex("80028a01802e")) == "-128");
  CHECK(read(unhex("80028a0280002e")) == "128");
  CHECK(read(unhex("80028a09ffffffffffffff7f002e")) == "9223372036854775807");
  CHECK(read(unhex("80028a090000000000000080ff2e")) == "-9223372036854775808");
  for (char const* const digits : {"80028a090000000000000080002e", "80028a09ffffffffffffff7fff2e",
                                   "80028a090000000000000000012e"}) {
    CHECK(failure(digits).kind == "PickleRefused");
    CHECK(failure(digits).says("the integer does not fit 64 bits"));
  }
  CHECK(failure("80028a0a00000000000000000001 2e").says("an integer of 10 bytes"));
}

TEST_CASE("floats keep their bits, texts their bytes") {
  for (double const value : {0.0, -0.0, 0.1, -1e300, std::numeric_limits<double>::infinity(),
                             std::numeric_limits<double>::denorm_min()}) {
    format::PickleWriter writer;
    writer.real(value);
    auto const pickle = std::move(writer).finish();
    auto const tree = format::read_pickle(pickle, Dialect::plain);
    CHECK(std::bit_cast<std::uint64_t>(tree.real(tree.root())) ==
          std::bit_cast<std::uint64_t>(value));
  }
  format::PickleWriter writer;
  writer.real(-0.0);
  CHECK(test::hex(std::move(writer).finish()) == "80024780000000000000002e");
  format::PickleWriter text;
  text.text("\xc3\xa9");
  CHECK(test::hex(std::move(text).finish()) == "80025802000000c3a971002e");
  CHECK(read(unhex("80025802000000c3a971002e")) == "'\xc3\xa9'");
  CHECK(failure("80025802000000c328 2e").says("not UTF-8"));
  CHECK(failure("80025803000000eda080 2e").says("not UTF-8"));  // half a surrogate pair
}

TEST_CASE("what Python pickled, in protocol 2 and in protocol 4, is read alike") {
  std::string const wanted = "[None True False 1 2.500000 'hi' (1) (1 2) (1 2 3) (1 2 3 4) () [] "
                             "{} {'a' 1} {'a' 1 'b' [2]}]";
  CHECK(read(unhex("80025d7100284e88894b014740040000000000005802000000686971014b018571024b014b0286"
                   "71034b014b024b03877104284b014b024b034b04747105295d71067d71077d7108580100000061"
                   "71094b01737d710a2868094b01580100000062710b5d710c4b026175652e")) == wanted);
  CHECK(
      read(unhex("80049554000000000000005d94284e88894b014740040000000000008c026869944b0185944b014b"
                 "0286944b014b024b038794284b014b024b034b047494295d947d947d948c0161944b01737d942868"
                 "094b018c0162945d944b026175652e")) == wanted);
  CHECK(read(unhex(sample)) ==
        "{'a' [1 -1 70000 1099511627776 0.500000 None True] 'b' ('x' () (1 2 3 4)) 'c' {}}");
}

TEST_CASE("every opcode that carries a value is read") {
  std::pair<std::string_view, std::string_view> const table[] = {
      {"80024e2e", "None"},
      {"8002882e", "True"},
      {"8002892e", "False"},
      {"80058c026f6b2e", "'ok'"},
      {"8002580200000 06f6b2e", "'ok'"},
      {"80048d02000000000000006f6b2e", "'ok'"},
      {"8002292e", "()"},
      {"80024b01852e", "(1)"},
      {"80024b014b02862e", "(1 2)"},
      {"80024b014b024b03872e", "(1 2 3)"},
      {"8002282874742e", "(())"},
      {"80025d4b01612e", "[1]"},
      {"80025d284b014b02652e", "[1 2]"},
      {"80025d2865 2e", "[]"},
      {"80027d4b014b02732e", "{1 2}"},
      {"80027d284b014b02752e", "{1 2}"},
      {"8002285d71054b01616805742e", "([1] [1])"},
      {"8002285d72050000006a05000000742e", "([] [])"},
      {"8004285d948c01619468006801742e", "([] 'a' [] 'a')"},
      {"80049501000000000000004e2e", "None"},
      {"8003 4e 2e", "None"},
  };
  for (auto const& [digits, wanted] : table) {
    CAPTURE(digits);
    CHECK(read(unhex(digits)) == wanted);
  }
}

TEST_CASE("every opcode that makes globals, objects and calls is read") {
  CHECK(read_body(global("torch.float32")) == "global" + number_of(Global::dtype));
  CHECK(read(unhex("80048c05746f726368948c0453697a6594932e"), Dialect::metadata) == "global9");
  CHECK(number_of(Global::torch_size) == "9");
  CHECK(read_body(global(dcp + "BytesStorageMetadata") + ")\x81") == "object3");
  CHECK(read_body(global(dcp + "StorageMeta") + ")\x81}" + text_a + "Nsb") ==
        "object" + number_of(Global::storage_meta) + "{'a' None}");
  CHECK(read_body(global("torch.Size") + "K\x02K\x03\x86\x85R") == "call9((2 3))");
  CHECK(read_body(global("torch.serialization._get_layout") + text_a + "\x85R") ==
        "call" + number_of(Global::get_layout) + "('a')");
  CHECK(read_body(global(dcp + "_MEM_FORMAT_ENCODING") + "K\x02\x85R") ==
        "call" + number_of(Global::memory_format) + "(2)");
  CHECK(read_body(global("pathlib.PosixPath") + text_a + text_a + "\x86R") ==
        "call" + number_of(Global::file_path) + "('a' 'a')");
  CHECK(read_body(global("collections.OrderedDict") + ")R" + text_a + "Ns") == "{'a' None}");
  CHECK(read_body("K\x05Q", Dialect::tensor) == "persistent5");
  CHECK(read_body(global("torch._utils._rebuild_tensor_v2") + ")R", Dialect::tensor) ==
        "call" + number_of(Global::rebuild_tensor_v2) + "()");
}

TEST_CASE("getattr is read for one purpose: the memory format, by name") {
  std::string const format = global(dcp + "_MEM_FORMAT_ENCODING");
  auto const named = [](std::string const& name) {
    return "X" + std::string(1, static_cast<char>(name.size())) + std::string(3, '\0') + name;
  };
  for (char const* const python : {"builtins.getattr", "__builtin__.getattr"}) {
    for (char const* const name :
         {"TORCH_CONTIGUOUS_FORMAT", "TORCH_CHANNELS_LAST", "TORCH_PRESERVE_FORMAT"}) {
      CHECK(read_body(global(python) + format + named(name) + "\x86R") ==
            "call" + number_of(Global::memory_format) + "(global" +
                number_of(Global::memory_format) + " '" + name + "')");
    }
    for (std::string const& arguments :
         {format + named("__init__") + "\x86", format + named("mro") + "\x86", format + "K\x01\x86",
          global("torch.Size") + named("TORCH_CHANNELS_LAST") + "\x86", format + "\x85",
          format + named("TORCH_CHANNELS_LAST") + "N\x87"}) {
      auto const failure = failure_of_body(global(python) + arguments + "R");
      CHECK(failure.kind == "PickleRefused");
      CHECK(failure.says("opcode REDUCE: this call is not allowed"));
    }
  }
}

TEST_CASE("globals outside the table are refused by name, in every dialect") {
  for (Dialect const dialect : {Dialect::metadata, Dialect::tensor, Dialect::plain}) {
    for (std::string const name : {"posix.system",
                                   "os.system",
                                   "nt.system",
                                   "commands.getoutput",
                                   "builtins.eval",
                                   "builtins.exec",
                                   "builtins.type",
                                   "__builtin__.eval",
                                   "builtins.getattr.x",
                                   "subprocess.Popen",
                                   "os.path.join",
                                   "importlib.import_module",
                                   "runpy.run_path",
                                   "operator.attrgetter",
                                   "functools.partial",
                                   "pickle.loads",
                                   "_pickle.loads",
                                   "_posixsubprocess.fork_exec",
                                   "io.open",
                                   "shutil.rmtree",
                                   "socket.socket",
                                   "code.InteractiveInterpreter",
                                   "webbrowser.open",
                                   "copyreg._reconstructor",
                                   "torch.load",
                                   "torch.hub.load",
                                   "torch.utils.cpp_extension.load",
                                   "torch.Size.x",
                                   "torch._C._jit_import",
                                   "a-b.C",
                                   "mylib..C",
                                   "1a.C",
                                   "mylib.C()"}) {
      auto const failure = failure_of_body(global(name) + text_a + "\x85R", dialect);
      CHECK(failure.kind == "PickleRefused");
      CHECK(failure.says("opcode GLOBAL: the global \"" + name + "\" is not allowed"));
      CHECK(failure.offset == 2);
      CHECK(failure.is_located());
    }
  }
  for (Dialect const dialect : {Dialect::tensor, Dialect::plain}) {
    for (std::string const name :
         {"numpy.core.multiarray._reconstruct", "torch.FloatTensor", "collections.deque",
          "Torch.Size", "mylib.Thing", "builtins.set", "torch.device"}) {
      CHECK(failure_of_body(global(name) + text_a + "\x85R", dialect)
                .says("the global \"" + name + "\" is not allowed"));
    }
  }
  auto const stacked = failure("80049514000000000000008c05706f736978948c0673797374656d9493942e");
  CHECK(stacked.says("opcode STACK_GLOBAL: the global \"posix.system\" is not allowed"));
  CHECK(failure_of_body("cos\x01\nsy\"stem\n").says("\"os\\x01.sy\\x22stem\" is not allowed"));
  CHECK(failure("80024b014b0293 2e", Dialect::metadata).says("a global needs two strings"));
  CHECK(failure("800263746f726368").says("a name has no end"));
  CHECK(failure_of_body("c" + std::string(600, 'm') + "\nx\n").says("a name has no end"));
}

namespace {

/// STACK_GLOBAL of a module and a name, which may have dots.
std::string stacked(std::string const& module, std::string const& name) {
  auto const text = [](std::string const& value) {
    return std::string("\x8c") + static_cast<char>(value.size()) + value;
  };
  return text(module) + text(name) + "\x93";
}

}  // namespace

TEST_CASE(
    "in .metadata a name outside the table is a name, and what is made of it has no meaning") {
  std::string const thing = global("mylib.saving.Thing");
  CHECK(read_body(thing) == "mylib.saving.Thing");
  CHECK(read_body(thing + ")\x81") == "<mylib.saving.Thing>");
  CHECK(read_body(thing + text_a + "\x85\x81") == "<mylib.saving.Thing>");
  CHECK(read_body(thing + "K\x01\x85R") == "<mylib.saving.Thing>");
  CHECK(read_body(thing + ")}" + text_a + "Ns\x92") == "<mylib.saving.Thing>");  // NEWOBJ_EX
  CHECK(read_body(thing + ")\x81}" + text_a + "Nsb") == "<mylib.saving.Thing>{'a' None}");
  CHECK(read_body(thing + ")\x81N}\x86" + "b") == "<mylib.saving.Thing>(None {})");
  // Classes that hold members: those are counted, and left.
  CHECK(read_body(thing + ")\x81(K\x01K\x02" + "eK\x03" + "a(" + text_a + "Nu" + text_a +
                  "Ns(N\x90") == "<mylib.saving.Thing>");
  // Enumerators, by value and by name; classes in classes.
  std::string const name = text_a;
  CHECK(read_body(global("builtins.getattr") + thing + name + "\x86R") == "<mylib.saving.Thing>");
  CHECK(read_body(stacked("mylib", "Outer.Inner") + ")\x81") == "<mylib.Outer.Inner>");
  CHECK(failure_of_body(stacked("mylib", "os.system") + ")R").kind == "PickleRefused");
  CHECK(failure_of_body(stacked("torch", "serialization.os.system") + ")R").kind ==
        "PickleRefused");
  for (char const* const known :
       {"builtins.set", "__builtin__.set", "collections.defaultdict", "collections.deque",
        "datetime.datetime", "uuid.UUID", "argparse.Namespace", "torch.device",
        "torch.distributed.checkpoint.planner.WriteItem", "torch._utils._rebuild_tensor_v2",
        "numpy.core.multiarray.scalar", "__main__.Config", "\xc3\xa9.\xc3\xa9"}) {
    CHECK(read_body(global(known) + ")R") == "<" + std::string(known) + ">");
  }
  CHECK(failure_of_body(thing + ")\x81}b}b").says("may be given a state, and once"));
  CHECK(failure_of_body(thing + "]R").says("only a known function may be called"));
  CHECK(failure_of_body(thing + "]\x81").says("only metadata classes may be made"));
  CHECK(failure_of_body(thing + ")N\x92").says("only metadata classes may be made"));
  CHECK(failure_of_body(thing + "}b").says("only a metadata object may be given a state"));
  CHECK(failure_of_body(thing + "Na").says("its target is not a list"));  // the class itself
  CHECK(failure_of_body(global("torch.Size") + thing + ")\x81\x85R").says("this call is not"));
  CHECK(failure_of_body(global(dcp + "Metadata") + ")\x81" + thing + "b").says("does not fit"));
}

TEST_CASE("in .metadata there may be values of kinds that nothing needs") {
  CHECK(read_body("C\x02hi") == "opaque");
  CHECK(read_body(std::string("B\x02\0\0\0hi", 7)) == "opaque");
  CHECK(read_body(std::string("\x8e\x02\0\0\0\0\0\0\0hi", 11)) == "opaque");
  CHECK(read_body(std::string("\x96\x02\0\0\0\0\0\0\0hi", 11)) == "opaque");
  CHECK(read_body(std::string("\x8a\x09\0\0\0\0\0\0\0\0\1", 11)) == "opaque");  // 2**64
  CHECK(read_body(std::string("\x8a\x0a\1\0\0\0\0\0\0\0\0\0", 12)) == "1");
  CHECK(read_body(std::string("\x8b\x02\0\0\0\xfe\xff", 7)) == "-2");
  CHECK(read_body(std::string("\x8f(K\x01K\x02\x90")) == "set(1 2)");
  CHECK(read_body("(K\x01K\x02\x91") == "set(1 2)");
  CHECK(failure_of_body("](N\x90").says("its target is not a set"));
  CHECK(failure_of_body("\x8fNa").says("its target is not a list"));
  CHECK(failure_of_body("C\x7f").says("127 bytes wanted"));
  CHECK(failure_of_body(std::string("\x8b\xff\xff\xff\xff", 5)).says("4294967295 bytes wanted"));
}

TEST_CASE("what means nothing counts for every limit") {
  std::string const thing = global("mylib.Thing");
  CHECK(failure_of_body(thing + "q" + std::string(1, '\0') +
                        [] {
                          std::string nested;  // mylib.Thing(mylib.Thing(...))
                          for (int i = 0; i < 70; ++i) {
                            nested += std::string("h\0", 2);
                          }
                          return nested + ")\x81" + [] {
                            std::string closing;
                            for (int i = 0; i < 69; ++i) {
                              closing += "\x85\x81";
                            }
                            return closing;
                          }();
                        }())
            .says("values are nested deeper than 64"));
  CHECK(failure_of_body(thing + ")\x81" + std::string(63, '\x85') + std::string(2, '\x85'))
            .says("values are nested deeper than 64"));
  format::PickleLimits small;
  small.arena_bytes = 10'000;
  std::string many = "\x80\x02(";
  for (int i = 0; i < 300; ++i) {
    many += thing;
  }
  CHECK(failure_of([&] {
          static_cast<void>(read(test::bytes_of(many + "t."), Dialect::metadata, small));
        }).says("more memory than allowed"));
  auto const itself = test::bytes_of("\x80\x02" + thing + ")\x81q" + std::string(1, '\0') + "}" +
                                     text_a + std::string("h\0sb.", 5));
  auto const tree = format::read_pickle(itself, Dialect::metadata);
  CHECK(tree.items(tree.state(tree.root()))[1] == tree.root());
}

TEST_CASE("each dialect knows its own globals") {
  auto const find = [](Dialect dialect, char const* module, char const* name) {
    return format::find_global(dialect, module, name).global;
  };
  CHECK(find(Dialect::metadata, "torch.distributed._shard.sharded_tensor.metadata",
             "TensorProperties") == Global::tensor_properties);
  CHECK(find(Dialect::tensor, "torch.distributed.checkpoint.metadata", "Metadata") == Global::none);
  CHECK(find(Dialect::metadata, "torch.distributed.checkpoint.filesystem", "_StorageInfo") ==
        Global::storage_info);
  CHECK(find(Dialect::metadata, "torch._utils", "_rebuild_tensor_v2") == Global::none);
  CHECK(find(Dialect::metadata, "torch", "FloatStorage") == Global::none);
  CHECK(find(Dialect::tensor, "torch", "FloatStorage") == Global::typed_storage);
  CHECK(find(Dialect::tensor, "torch", "UntypedStorage") == Global::untyped_storage);
  CHECK(find(Dialect::metadata, "pathlib._local", "PurePosixPath") == Global::file_path);
  CHECK(find(Dialect::tensor, "pathlib", "PosixPath") == Global::none);
  CHECK(find(Dialect::metadata, "torch", "qint8") == Global::unsupported_dtype);
  CHECK(find(Dialect::plain, "collections", "OrderedDict") == Global::none);
  CHECK(find(Dialect::plain, "torch", "float32") == Global::none);
  auto const half = format::find_global(Dialect::tensor, "torch", "half");
  CHECK((half.global == Global::dtype && half.dtype == sm::DType::float16));
  auto const store = format::find_global(Dialect::tensor, "torch", "ComplexDoubleStorage");
  CHECK(store.dtype == sm::DType::complex128);
}

TEST_CASE("calls and objects outside the rules are refused") {
  std::string const chunk = global(dcp + "ChunkStorageMetadata");
  std::pair<std::string, char const*> const table[] = {
      {chunk + ")R", "this call is not allowed"},
      {global("torch.float32") + ")R", "this call is not allowed"},
      {global("torch.Size") + ")R", "this call is not allowed"},
      {global("torch.Size") + "K\x01\x85R", "this call is not allowed"},
      {global("torch.Size") + "J\xff\xff\xff\xff\x85\x85R", "this call is not allowed"},
      {global("torch.Size") + text_a + "\x85\x85R", "this call is not allowed"},
      {global("torch.Size") + "(" +
           [] {
             std::string ones;
             for (int i = 0; i < 65; ++i) {
               ones += "K\x01";
             }
             return ones;
           }() +
           "t\x85R",
       "this call is not allowed"},
      {global(dcp + "_MEM_FORMAT_ENCODING") + "K\x03\x85R", "this call is not allowed"},
      {global("collections.OrderedDict") + "N\x85R", "this call is not allowed"},
      {global("pathlib.PosixPath") + "K\x01\x85R", "this call is not allowed"},
      {"K\x01)R", "only a known function may be called"},
      {global("torch.Size") + "]R", "only a known function may be called"},
      {global("torch.Size") + ")\x81", "only metadata classes may be made"},
      {chunk + "N\x85\x81", "only metadata classes may be made"},
      {"})\x81", "only metadata classes may be made"},
      {chunk + ")\x81}b}b", "only a metadata object may be given a state, and once"},
      {global("collections.OrderedDict") + ")R}b", "only a metadata object may be given a state"},
      {"K\x01}b", "only a metadata object may be given a state"},
      {"K\x01Q", "opcode BINPERSID: this opcode is not allowed here"},
  };
  for (auto const& [body, words] : table) {
    auto const failure = failure_of_body(body);
    CHECK(failure.kind == "PickleRefused");
    CHECK_MESSAGE(failure.says(words), failure.what);
    CHECK(failure.is_located());
  }
}

TEST_CASE("a state that does not fit its class is refused") {
  std::string const chunk = global(dcp + "ChunkStorageMetadata");
  std::string const properties = global(dcp + "TensorProperties") + ")\x81";
  for (std::string const& body :
       {chunk + ")\x81)b", chunk + ")\x81Nb", properties + "}b", properties + "(NNNNtb",
        properties + "(NNNNNNNtb", global(dcp + "BytesStorageMetadata") + ")\x81}NNsb"}) {
    CHECK(failure_of_body(body).says("opcode BUILD: the state does not fit the class"));
  }
  CHECK(read_body(properties + "(NNNNNNtb") == "object4(None None None None None None)");
  CHECK(read_body(global(dcp + "BytesStorageMetadata") + ")\x81}b") == "object3{}");
}

TEST_CASE("each of the other opcodes is refused by name") {
  std::string const allowed = "().GJKMNQRX]abcehjqrstu}\x81\x85\x86\x87\x88\x89\x8a\x8c\x8d\x93"
                              "\x94\x95";
  int refused = 0;
  for (int code = 0; code < 256; ++code) {
    auto const op = static_cast<char>(code);
    if (allowed.find(op) != std::string::npos) {
      continue;
    }
    auto const failure = failure_of_body(std::string("N") + op, Dialect::tensor);
    CHECK(failure.kind == "PickleRefused");
    CHECK(failure.offset == 3);
    CHECK(failure.says("opcode " + format::opcode_name(static_cast<std::uint8_t>(code)) +
                       ": this opcode is not allowed here"));
    ++refused;
  }
  CHECK(refused == 256 - 36);
}

TEST_CASE("a stack that has too little or keeps too much is found") {
  for (char const op : std::string_view("Rbasetu\x81\x85\x86\x87\x93\x94Q")) {
    auto const failure = failure_of_body(std::string(1, op), Dialect::tensor);
    CHECK_MESSAGE(failure.kind == "CorruptError",
                  format::opcode_name(static_cast<std::uint8_t>(op)));
    CHECK(failure.is_located());
  }
  CHECK(failure_of_body("N(\x85t").says("fewer than 1 values"));  // not across a MARK
  CHECK(failure_of_body("](Na").says("its target is not a list"));
  CHECK(failure_of_body("}Na").says("its target is not a list"));
  CHECK(failure_of_body("]NNs").says("its target is not a dict"));
  CHECK(failure_of_body("}(Nu").says("a key has no value"));
  CHECK(failure_of_body("").says("the pickle leaves 0 values instead of one"));
  CHECK(failure_of_body("NN").says("the pickle leaves 2 values instead of one"));
  CHECK(failure_of_body("N(").says("values instead of one"));
  CHECK(failure_of_body("N.N").says("2 bytes follow the end of the pickle"));
  CHECK(failure("").says("1 bytes wanted, 0 left"));
  CHECK(failure("4e2e").says("a pickle must start with PROTO"));
  for (char const* const digits : {"80004e2e", "80014e2e", "80064e2e", "80ff4e2e"}) {
    CHECK(failure(digits).says("is not one of 2 to 5"));
  }
}

TEST_CASE("lengths that reach past the end are refused before anything is made of them") {
  for (char const* const digits :
       {"800258ffffffff61", "80048dffffffffffffffff61", "80048d000000000000008061", "80048cff61",
        "80028aff61", "80028a0861"}) {
    auto const found = failure(digits);
    CHECK_FALSE(found.kind.empty());
    CHECK(found.offset == 2);
  }
  CHECK(failure("8004 95 ffffffffffffffff 4e2e").says("the frame reaches past the end"));
  CHECK(failure("8004 95 0300000000000000 4e2e").says("the frame reaches past the end"));
}

TEST_CASE("the memo cannot be made larger than the pickle, nor read where it was not set") {
  CHECK(failure("80024e72ffffffff2e").says("memo entry 4294967295 lies beyond what is allowed"));
  CHECK(failure("80024e720900000030").says("memo entry 9 lies beyond what is allowed"));
  CHECK(failure("80026800 2e").says("memo entry 0 was never set"));
  CHECK(failure("80024e710268012e").says("memo entry 1 was never set"));
  CHECK(failure("80026affffffff2e").says("memo entry 4294967295 was never set"));
  CHECK(failure("800271002e").says("the stack has no value for it"));
}

TEST_CASE("nesting, opcodes and memory are bounded") {
  std::string const deep = "N" + std::string(64, '\x85');
  CHECK(read_body(deep).size() == 4 + 2 * 64);
  CHECK(failure_of_body(deep + "\x85").says("values are nested deeper than 64"));
  CHECK(failure_of_body(std::string(100'000, ']') + std::string(99'999, 'a'))
            .says("values are nested deeper than 64"));
  CHECK(failure_of_body(std::string(65, '(')).says("MARKs are nested deeper than 64"));
  format::PickleLimits few;
  few.opcodes = 3;
  CHECK(read(unhex("80024e2e"), Dialect::plain, few) == "None");
  auto const four = unhex("80024e852e");
  CHECK(failure_of([&] {
          static_cast<void>(read(four, Dialect::plain, few));
        }).says("more opcodes than allowed"));
  format::PickleLimits small;
  small.arena_bytes = 10'000;
  auto const wide = test::bytes_of("\x80\x02(" + std::string(1000, ']') + "t.");
  CHECK(read(wide).size() == 2 + 3 * 1000 - 1);
  CHECK(failure_of([&] {
          static_cast<void>(read(wide, Dialect::plain, small));
        }).says("more memory than allowed"));
}

TEST_CASE("a list that holds itself is read as it is, without recursion") {
  auto const bytes = unhex("80025d71006800 61 2e");
  auto const tree = format::read_pickle(bytes, Dialect::plain);
  REQUIRE(tree.items(tree.root()).size() == 1);
  CHECK(tree.items(tree.root())[0] == tree.root());
}

TEST_CASE("a pickle cut at any byte is refused with its file and byte") {
  auto const reads = [](Dialect dialect) {
    return [dialect](format::ByteSpan cut) { static_cast<void>(read(cut, dialect)); };
  };
  CHECK(test::unseen_truncation(unhex(sample), 1, reads(Dialect::plain)) == "");
  auto const tensor = format::write_tensor_pickle(sm::DType::float8_e5m2, {3, 4, 5, 600});
  CHECK(test::unseen_truncation(tensor, 1, reads(Dialect::tensor)) == "");
  auto const size = test::bytes_of("\x80\x02" + global("torch.Size") + "K\x02K\x03\x86\x85R.");
  CHECK(test::unseen_truncation(size, 1, reads(Dialect::metadata)) == "");
}

TEST_CASE("a pickle with flipped bits is refused, or is another pickle") {
  auto const tensor = format::write_tensor_pickle(sm::DType::uint16, {3, 4, 5, 600});
  for (int bit = 0; bit < 8; ++bit) {
    auto const mask = static_cast<std::byte>(1 << bit);
    auto const plain = test::flip_bits(
        unhex(sample), {}, mask, [](format::ByteSpan bytes) { static_cast<void>(read(bytes)); });
    CHECK(plain.problem == "");
    CHECK(plain.refused > 20);
    auto const damage =
        test::flip_bits(tensor, test::stride(1, 4), mask, [](format::ByteSpan bytes) {
          static_cast<void>(read(bytes, Dialect::tensor));
        });
    CHECK(damage.problem == "");
    CHECK(damage.refused > damage.read);
  }
}

TEST_CASE("the writer puts each global and text into the memo once, however many there are") {
  format::PickleWriter writer;
  writer.op(format::Opcode::mark);
  std::string wanted;
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 300; ++i) {
      writer.text("t" + std::to_string(i));
      wanted += (wanted.empty() ? "'t" : " 't") + std::to_string(i) + "'";
    }
    writer.global("torch", "Size");
    wanted += " global9";
  }
  writer.op(format::Opcode::tuple);
  auto const pickle = std::move(writer).finish();
  CHECK(read(pickle, Dialect::metadata) == "(" + wanted + ")");
  std::string const bytes(format::as_text(pickle));
  CHECK(bytes.find("t299r\x2b\x01") != std::string::npos);  // LONG_BINPUT 299
  CHECK(bytes.find("j\x2b\x01") != std::string::npos);      // LONG_BINGET 299
  CHECK(bytes.find("t255q\xff") != std::string::npos);      // BINPUT 255
  CHECK(bytes.find("Size\n", bytes.find("Size\n") + 1) == std::string::npos);
}

TEST_CASE("the schema reads a value with its type, or says where it is not") {
  auto const bytes = unhex("800228 4b05 4affffffff 580100000061 4b014b0286 5d 4e 74 2e");
  auto const tree = format::read_pickle(bytes, Dialect::metadata);
  format::detail::PickleSchema schema(tree, "m", 1000, "test");
  auto const parts = tree.items(tree.root());
  CHECK(schema.integer(parts[0], "five") == 5);
  CHECK(schema.text(parts[2], "a") == "a");
  CHECK(schema.sizes(parts[3], "pair") == sm::Shape{1, 2});
  CHECK(schema.sizes(parts[4], "none").empty());
  CHECK(schema.is_none(parts[5]));
  CHECK_FALSE(schema.is_none(parts[4]));
  CHECK(schema.items(parts[4], Kind::list, "list").empty());
  auto const words = [](auto f) { return failure_of(f).what; };
  CHECK(words([&] { static_cast<void>(schema.integer(parts[1], "the offset")); }) ==
        "test: the offset is negative [m, byte 1005]");
  CHECK(words([&] { static_cast<void>(schema.text(parts[0], "the name")); }) ==
        "test: the name has another type [m, byte 1003]");
  CHECK(words([&] { static_cast<void>(schema.text(format::no_pickle_ref, "the name")); }) ==
        "test: the name is missing [m, byte 1000]");
  CHECK(words([&] { static_cast<void>(schema.sizes(parts[0], "it")); }) ==
        "test: it is not a tuple of integers [m, byte 1003]");
  CHECK(words([&] { static_cast<void>(schema.torch_size(parts[3], "it")); }) ==
        "test: it is not a torch.Size [m, byte 1020]");
  schema.charge(parts[0], 10 << 20);
  CHECK(words([&] { schema.charge(parts[0], 10 << 20); }) ==
        "test: the values shared in this file would expand beyond all proportion [m, byte 1003]");
}

TEST_CASE("the schema bounds dimensions and refuses a member that stands twice") {
  auto const sizes = [](int count) {
    std::string body = "(";
    for (int i = 0; i < count; ++i) {
      body += "K\x01";
    }
    auto const bytes = test::bytes_of("\x80\x02" + body + "t.");
    auto const tree = format::read_pickle(bytes, Dialect::metadata);
    format::detail::PickleSchema const schema(tree, "m", 0, "test");
    return failure_of([&] { static_cast<void>(schema.sizes(tree.root(), "the size")); });
  };
  CHECK(sizes(8).kind.empty());
  CHECK(sizes(9).kind == "UnsupportedError");
  CHECK(sizes(9).says("the size has 9 dimensions; at most 8 are supported [m, byte "));
  CHECK(sizes(65).says("the size has more than 64 dimensions"));
  auto const bytes = test::bytes_of("\x80\x02" + global(dcp + "StorageMeta") + ")\x81}(" + text_a +
                                    "N" + text_a + "Nub.");
  auto const tree = format::read_pickle(bytes, Dialect::metadata);
  format::detail::PickleSchema const schema(tree, "m", 0, "test");
  auto const read_member = [&](Global type, std::string_view name) {
    return failure_of(
        [&] { static_cast<void>(schema.members<1>(tree.root(), type, {name}, "the meta")); });
  };
  CHECK(read_member(Global::storage_meta, "a").says("the meta has the member a twice"));
  CHECK(read_member(Global::storage_meta, "b").kind.empty());
  CHECK(read_member(Global::metadata, "a").says("the meta is not an object of its class"));
}

TEST_CASE("runs of numbers stay where they are, whatever comes after them") {
  format::detail::PickleRuns runs;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> made;  // start, count
  for (std::uint32_t i = 0; i < 3'000; ++i) {
    std::uint32_t const count = i % 500 == 499 ? 20'000 : i % 37;
    std::uint32_t const start = runs.allocate(count);
    auto const run = runs.at(start, count);
    std::fill(run.begin(), run.end(), i);
    made.emplace_back(start, count);
  }
  bool same = true;
  std::uint64_t numbers = 0;
  for (std::uint32_t i = 0; i < made.size(); ++i) {
    auto const run = runs.at(made[i].first, made[i].second);
    same = same && std::all_of(run.begin(), run.end(), [i](std::uint32_t n) { return n == i; });
    numbers += made[i].second;
  }
  CHECK(same);
  CHECK(runs.bytes() >= 4 * numbers);
  CHECK(runs.bytes() < 8 * numbers);
  std::uint32_t const last = runs.allocate(3);
  CHECK(runs.extend(last, 3, 2));  // the last one grows where it is
  CHECK(runs.at(last, 5).size() == 5);
  CHECK_FALSE(runs.extend(made[1].first, made[1].second, 1));
  CHECK_FALSE(runs.extend(last, 3, 2));  // is no longer its end
}

TEST_SUITE_END();

}  // namespace format_pickle_test
