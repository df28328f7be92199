// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The shardmesh tool: one program, a subcommand for each task. `shardmesh --help` lists them.
#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <shardmesh/core/config.hpp>

#include "support/command_line.hpp"
#include "support/convert_command.hpp"
#include "support/inspect_command.hpp"
#include "support/layout_command.hpp"
#include "support/plan_command.hpp"

namespace {

/// Columns of the terminal; 0 where there is none: what a program reads is not folded.
long terminal_width() {
  winsize size{};
  return ::isatty(STDOUT_FILENO) != 0 && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0
             ? size.ws_col
             : 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Looks at sharded tensors and checkpoints."};
  app.require_subcommand(1);
  app.set_version_flag("--version", "shardmesh " SHARDMESH_VERSION_STRING);
  app.footer("Exit status: 0; 1 if what was looked at differs or is damaged; 2 for a wrong command "
             "line, and "
             "for what cannot be read or written.\n\n"
             "Examples:\n"
             "  shardmesh layout --shape 7,5 --mesh 2,2 --placements S0,S1\n"
             "  shardmesh plan --shape 8,6 --mesh 2,2 --from S0,S1 --to S1,S0\n"
             "  shardmesh inspect checkpoint\n"
             "  shardmesh verify checkpoint && shardmesh convert checkpoint model.safetensors\n"
             "`shardmesh COMMAND --help` has more of each.");
  int status = 0;

  tool::LayoutOptions layout;
  CLI::App* const layout_command =
      app.add_subcommand("layout", "Show which rank holds what of a sharded tensor");
  layout_command->add_option("--shape", layout.shape, "global shape, for example 7,5");
  layout_command->add_option("--mesh", layout.mesh, "mesh shape, for example 2,2");
  layout_command->add_option(
      "--placements", layout.placements,
      "one per mesh dimension: R, S<dim>, P, SS<dim>:<split factor>, or as in Shard(0)");
  layout_command->add_option("--format", layout.format, "text (a picture), json or svg")
      ->check(tool::one_of({"text", "json", "svg"}));
  layout.width = terminal_width();
  layout_command
      ->add_option("--width", layout.width,
                   "columns of text to fold a wide picture to (default: the terminal's)")
      ->check(CLI::Range(0, 100000));
  layout_command->footer(
      "Examples:\n"
      "  shardmesh layout --shape 7,5 --mesh 2,2 --placements S0,R\n"
      "  shardmesh layout --shape \"(8, 6)\" --mesh 2x2 --placements \"(Shard(0), StridedShard(0, "
      "split_factor=2))\"\n"
      "  shardmesh layout --shape 8,6 --mesh 4 --placements S-1 --format svg > layout.svg\n"
      "  shardmesh layout --shape 7,5 --mesh 2 --placements S0 --json");
  layout_command->add_flag_callback(
      "--json", [&layout] { layout.format = "json"; }, "as --format json");
  layout_command->add_flag("--batch", layout.batch,
                           "read {\"shape\":..,\"mesh\":..,\"placements\":..} a line from standard "
                           "input, answer each with a line of JSON");
  layout_command
      ->add_flag("--color,!--no-color", layout.color, "colour the picture (default: on a terminal)")
      ->default_val(::isatty(STDOUT_FILENO) != 0);
  layout_command->callback([&] { status = tool::run_layout(layout); });

  tool::PlanOptions plan;
  CLI::App* const plan_command = app.add_subcommand(
      "plan", "Show how a tensor gets from one layout to another, and what it costs");
  plan_command->add_option("--shape", plan.shape, "global shape, for example 7,5")->required();
  plan_command->add_option("--mesh", plan.mesh, "mesh shape, for example 2,2")->required();
  plan_command->add_option("--from", plan.from, "placements, for example S0,R")->required();
  plan_command->add_option("--to", plan.to, "placements, for example R,S1")->required();
  plan_command->add_option("--to-mesh", plan.to_mesh, "another mesh that the tensor goes to");
  plan_command->add_option("--ranks", plan.ranks,
                           "the ranks of the mesh, row-major (default: 0,1,...)");
  plan_command->add_option("--to-ranks", plan.to_ranks, "the ranks of the mesh it goes to");
  plan_command->add_option("--dtype", plan.dtype, "element type, for example float32 or bf16");
  plan_command->add_option("--format", plan.format, "text, json or svg (a picture)")
      ->check(tool::one_of({"text", "json", "svg"}));
  plan_command->add_flag_callback("--json", [&plan] { plan.format = "json"; }, "as --format json");
  plan_command->footer(
      "Examples:\n"
      "  shardmesh plan --shape 8,6 --mesh 2,2 --from S0,S1 --to S1,S0\n"
      "  shardmesh plan --shape 4096,4096 --mesh 8 --from P --to S0 --dtype bf16 --format svg > "
      "plan.svg\n"
      "  shardmesh plan --shape 64,32 --mesh 2,2 --from R,S0 --to S0 --to-mesh 2 --to-ranks 4,5");
  plan_command->callback([&] { status = tool::run_plan(plan); });

  tool::ConvertOptions convert;
  CLI::App* const convert_command =
      app.add_subcommand("convert", "Write a checkpoint in another format, every tensor in full");
  convert_command
      ->add_option("source", convert.source, "checkpoint directory, safetensors file or index")
      ->required();
  convert_command->add_option("target", convert.target, "what to write; nothing that is read")
      ->required();
  convert_command
      ->add_option(
          "--to", convert.to,
          "dcp: PyTorch's directory; safetensors: one file; hf: a directory of safetensors "
          "files with an index (default: safetensors or dcp, by the target's name)")
      ->check(tool::one_of({"dcp", "safetensors", "hf"}));
  convert_command
      ->add_option("--max-shard-size", convert.max_shard_bytes,
                   "for hf: most bytes of tensors in a file, for example 2GB")
      ->transform(CLI::AsSizeValue(true))
      ->default_str("5GB");
  convert_command->add_option("--dtype", convert.dtype,
                              "fp64, fp32, fp16 or bf16: what floating-point tensors become "
                              "(rounded to nearest even)");
  convert_command->add_flag(
      "--force", convert.force,
      "replace the target if it exists: a file, or in a directory what belongs "
      "to a checkpoint");
  convert_command->add_flag("--json", convert.json, "print JSON");
  convert.progress = ::isatty(STDERR_FILENO) != 0;
  convert_command->footer(
      "Examples:\n"
      "  shardmesh convert checkpoint model.safetensors\n"
      "  shardmesh convert checkpoint model --to hf --max-shard-size 2GB --dtype bf16\n"
      "  shardmesh convert model.safetensors.index.json checkpoint --force");
  convert_command->callback([&] { status = tool::run_convert(convert); });

  tool::InspectOptions inspect;
  inspect.progress = ::isatty(STDERR_FILENO) != 0;
  auto const add_looking = [&](char const* name, char const* what, char const* examples, auto run) {
    CLI::App* const command = app.add_subcommand(name, what);
    command
        ->add_option("checkpoint", inspect.path, "checkpoint directory, safetensors file or index")
        ->required();
    command->add_flag("--json", inspect.json, "print JSON");
    command->footer(examples);
    command->callback([&status, &inspect, run] { status = run(inspect); });
    return command;
  };
  CLI::App* const inspect_command = add_looking(
      "inspect", "List what is in a checkpoint",
      "Examples:\n"
      "  shardmesh inspect checkpoint\n"
      "  shardmesh inspect checkpoint --key model.layers.0.weight\n"
      "  shardmesh inspect checkpoint --format svg > map.svg    # which box lies in which file",
      tool::run_inspect);
  inspect_command->add_option("--key", inspect.key, "this value alone");
  inspect_command
      ->add_option("--format", inspect.format, "text, json or svg (a map of boxes and files)")
      ->check(tool::one_of({"text", "json", "svg"}));
  add_looking("verify", "Read every byte and check it; exit 1 on damage",
              "Examples:\n"
              "  shardmesh verify checkpoint\n"
              "  shardmesh verify model.safetensors --json",
              tool::run_verify);
  add_looking("diff", "Compare two checkpoints of any format; exit 1 if they differ",
              "Examples:\n"
              "  shardmesh diff checkpoint model.safetensors\n"
              "  shardmesh diff before after --json",
              tool::run_diff)
      ->add_option("other", inspect.other, "the checkpoint to compare with")
      ->required();

  try {
    std::string const wrong =
        tool::typing_error(app, std::vector<std::string>(argv + 1, argv + argc));
    if (!wrong.empty()) {
      std::fprintf(stderr, "error: %s\n", wrong.c_str());
      return tool::exit_usage;
    }
    app.parse(argc, argv);
  } catch (CLI::ParseError const& error) {
    return app.exit(error) == 0 ? tool::exit_good : tool::exit_usage;
  } catch (std::exception const& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return tool::exit_usage;
  }
  return status;
}
