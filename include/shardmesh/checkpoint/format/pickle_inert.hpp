// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <string_view>
#include <utility>

namespace shardmesh {
inline namespace v0 {
namespace format {

namespace detail {

/// Top-level modules of Python's standard library, those of older versions included; names that start
/// with an underscore count as well.
// clang-format off
inline constexpr std::array<std::string_view, 267> standard_modules{{
    "BaseHTTPServer", "CGIHTTPServer", "ConfigParser", "Cookie", "Dialog", "DocXMLRPCServer",
    "FileDialog", "HTMLParser", "Queue", "ScrolledText", "SimpleDialog", "SimpleHTTPServer",
    "SimpleXMLRPCServer", "SocketServer", "StringIO", "Tix", "Tkconstants", "Tkdnd", "Tkinter",
    "UserDict", "UserList", "UserString", "abc", "aifc", "annotationlib", "antigravity",
    "anydbm", "argparse", "array", "ast", "asynchat", "asyncio", "asyncore", "atexit",
    "audioop", "base64", "bdb", "binascii", "bisect", "builtins", "bz2", "cPickle", "cProfile",
    "cStringIO", "calendar", "cgi", "cgitb", "cmath", "cmd", "code", "codecs", "codeop",
    "collections", "colorsys", "commands", "compileall", "compression", "concurrent",
    "configparser", "contextlib", "contextvars", "cookielib", "copy", "copy_reg", "copyreg",
    "crypt", "csv", "ctypes", "curses", "dataclasses", "datetime", "dbhash", "dbm", "decimal",
    "difflib", "dis", "distutils", "doctest", "dumbdbm", "dummy_thread", "email", "encodings",
    "ensurepip", "enum", "errno", "exceptions", "faulthandler", "fcntl", "filecmp", "fileinput",
    "fnmatch", "fractions", "ftplib", "functools", "gc", "gdbm", "genericpath", "getopt",
    "getpass", "gettext", "glob", "graphlib", "grp", "gzip", "hashlib", "heapq", "hmac", "html",
    "htmlentitydefs", "http", "httplib", "idlelib", "imaplib", "imghdr", "imp", "importlib",
    "inspect", "io", "ipaddress", "itertools", "json", "keyword", "lib2to3", "linecache",
    "locale", "logging", "lzma", "mailbox", "mailcap", "markupbase", "marshal", "math",
    "mimetypes", "mmap", "modulefinder", "msilib", "msvcrt", "multiprocessing", "netrc", "nis",
    "nntplib", "nt", "ntpath", "nturl2path", "numbers", "opcode", "operator", "optparse", "os",
    "ossaudiodev", "pathlib", "pdb", "pickle", "pickletools", "pipes", "pkgutil", "platform",
    "plistlib", "poplib", "posix", "posixpath", "pprint", "profile", "pstats", "pty", "pwd",
    "py_compile", "pyclbr", "pydoc", "pydoc_data", "pyexpat", "queue", "quopri", "random", "re",
    "readline", "repr", "reprlib", "resource", "rlcompleter", "robotparser", "runpy", "sched",
    "secrets", "select", "selectors", "shelve", "shlex", "shutil", "signal", "site", "smtpd",
    "smtplib", "sndhdr", "socket", "socketserver", "spwd", "sqlite3", "sre_compile",
    "sre_constants", "sre_parse", "ssl", "stat", "statistics", "string", "stringprep", "struct",
    "subprocess", "sunau", "symtable", "sys", "sysconfig", "syslog", "tabnanny", "tarfile",
    "telnetlib", "tempfile", "termios", "textwrap", "thread", "threading", "time", "timeit",
    "tkColorChooser", "tkCommonDialog", "tkFileDialog", "tkFont", "tkMessageBox",
    "tkSimpleDialog", "tkinter", "token", "tokenize", "tomllib", "trace", "traceback",
    "tracemalloc", "ttk", "tty", "turtle", "turtledemo", "types", "typing", "unicodedata",
    "unittest", "urllib", "urllib2", "urlparse", "uu", "uuid", "venv", "warnings", "wave",
    "weakref", "webbrowser", "whichdb", "winreg", "winsound", "wsgiref", "xdrlib", "xml",
    "xmlrpc", "xmlrpclib", "zipapp", "zipfile", "zipimport", "zlib", "zoneinfo",
}};

/// What the standard library has to hold data, as pickles name it: module, name.
inline constexpr std::array<std::pair<std::string_view, std::string_view>, 33> standard_data{{
    {"builtins", "bool"}, {"builtins", "bytearray"}, {"builtins", "bytes"},
    {"builtins", "complex"}, {"builtins", "dict"}, {"builtins", "float"},
    {"builtins", "frozenset"}, {"builtins", "int"}, {"builtins", "list"},
    {"builtins", "object"}, {"builtins", "range"}, {"builtins", "set"},
    {"builtins", "slice"}, {"builtins", "str"}, {"builtins", "tuple"},
    {"_codecs", "encode"},  // bytes, in protocol 2
    {"_io", "BytesIO"}, {"_io", "StringIO"}, {"argparse", "Namespace"},
    {"collections", "ChainMap"}, {"collections", "Counter"}, {"collections", "UserDict"},
    {"collections", "UserList"}, {"collections", "defaultdict"}, {"collections", "deque"},
    {"datetime", "date"}, {"datetime", "datetime"}, {"datetime", "time"},
    {"datetime", "timedelta"}, {"datetime", "timezone"}, {"decimal", "Decimal"},
    {"fractions", "Fraction"}, {"types", "SimpleNamespace"},
}};
// clang-format on

[[nodiscard]] constexpr bool is_standard_module(std::string_view top) noexcept {
  return (top.starts_with('_') && top != "__main__" && top != "__mp_main__") ||
         std::binary_search(standard_modules.begin(), standard_modules.end(), top);
}

[[nodiscard]] constexpr bool is_standard_data(std::string_view module,
                                              std::string_view name) noexcept {
  std::string_view const modern = module == "__builtin__" ? "builtins" : module;
  return (module == "uuid" && (name == "UUID" || name == "SafeUUID")) ||
         std::find(standard_data.begin(), standard_data.end(), std::pair(modern, name)) !=
             standard_data.end();
}

/// Identifiers with dots between them; letters beyond ASCII are taken as they come.
[[nodiscard]] constexpr bool is_dotted_name(std::string_view text) noexcept {
  bool first = true;  // of an identifier
  for (char const c : text) {
    bool const digit = c >= '0' && c <= '9';
    bool const letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
                        static_cast<unsigned char>(c) >= 0x80;
    if (!(letter || (!first && (digit || c == '.')))) {
      return false;
    }
    first = c == '.';
  }
  return !first;
}

/// Are all parts of a dotted name written as Python writes the names of classes?
[[nodiscard]] constexpr bool is_class_name(std::string_view name) noexcept {
  bool first = true;
  for (char const c : name) {
    if (first && c != '_') {
      if (c >= 'a' && c <= 'z') {
        return false;
      }
      first = false;
    }
    first = first || c == '.';
  }
  return true;
}

/// PyTorch's own functions that only put data together.
[[nodiscard]] constexpr bool is_torch_data(std::string_view module,
                                           std::string_view name) noexcept {
  return (module == "torch" && name == "device") || name.starts_with("_rebuild") ||
         (module == "torch.storage" && name == "_load_from_bytes");
}

}  // namespace detail

/// May a global that the reader does not know stand in `.metadata`, as a name without meaning? Nothing
/// is run for any name; but names of which no description of a checkpoint is made are signs of a file
/// that is meant to harm whoever unpickles it, and refuse the file: everything of Python's standard
/// library that is no plain type of data, and PyTorch's functions. Classes and functions of all other
/// packages may stand there: a training script puts what it likes into a checkpoint.
[[nodiscard]] constexpr bool is_inert_global(std::string_view module,
                                             std::string_view name) noexcept {
  if (!detail::is_dotted_name(module) || !detail::is_dotted_name(name)) {
    return false;
  }
  std::string_view const top = module.substr(0, module.find('.'));
  if (detail::is_standard_module(top)) {
    return detail::is_standard_data(module, name);
  }
  if (name.find('.') != std::string_view::npos && !detail::is_class_name(name)) {
    return false;  // attributes are for classes in classes
  }
  return top != "torch" || detail::is_class_name(name) || detail::is_torch_data(module, name);
}

}  // namespace format
}  // namespace v0
}  // namespace shardmesh
