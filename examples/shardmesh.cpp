// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
// SPDX-FileCopyrightText: the shardmesh authors
// The shardmesh tool: one program, a subcommand for each task. `shardmesh --help` lists them.
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <string>

#include <CLI/CLI.hpp>

#include "support/convert_command.hpp"
#include "support/inspect_command.hpp"
#include "support/layout_command.hpp"
#include "support/plan_command.hpp"

int main(int argc, char** argv) {
  CLI::App app{"Looks at sharded tensors and checkpoints."};
  app.require_subcommand(1);
  int status = 0;

  tool::LayoutOptions layout;
  CLI::App* const layout_command =
      app.add_subcommand("layout", "Show which rank holds what of a sharded tensor");
  layout_command->add_option("--shape", layout.shape, "global shape, for example 7,5");
  layout_command->add_option("--mesh", layout.mesh, "mesh shape, for example 2,2");
  layout_command->add_option(
      "--placements", layout.placements,
      "one per mesh dimension: R, S<dim>, P, SS<dim>:<split factor>, or as in Shard(0)");
  layout_command->add_option("--format", layout.format, "text (a picture) or json")
      ->check(CLI::IsMember({"text", "json"}));
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
      ->check(CLI::IsMember({"text", "json", "svg"}));
  plan_command->add_flag_callback("--json", [&plan] { plan.format = "json"; }, "as --format json");
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
      ->check(CLI::IsMember({"dcp", "safetensors", "hf"}));
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
  convert_command->callback([&] { status = tool::run_convert(convert); });

  tool::InspectOptions inspect;
  inspect.progress = ::isatty(STDERR_FILENO) != 0;
  auto const add_looking = [&](char const* name, char const* what, auto run) {
    CLI::App* const command = app.add_subcommand(name, what);
    command
        ->add_option("checkpoint", inspect.path, "checkpoint directory, safetensors file or index")
        ->required();
    command->add_flag("--json", inspect.json, "print JSON");
    command->callback([&status, &inspect, run] { status = run(inspect); });
    return command;
  };
  add_looking("inspect", "List what is in a checkpoint", tool::run_inspect);
  add_looking("verify", "Read every byte and check it; exit 1 on damage", tool::run_verify);
  add_looking("diff", "Compare two checkpoints of any format; exit 1 if they differ",
              tool::run_diff)
      ->add_option("other", inspect.other, "the checkpoint to compare with")
      ->required();

  try {
    app.parse(argc, argv);
  } catch (CLI::ParseError const& error) {
    return app.exit(error);
  } catch (std::exception const& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return status;
}
