"""The ``planner`` command: its verbs, its errors and its exit codes (rule 32)."""

import os
import subprocess
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from planner import __version__
from planner.cli import bench, plans, solving, topology, trace, why
from planner.cli.render_why import show_infeasible
from planner.errors import InfeasibleError, PlannerError, VerificationError

INTERRUPTED = 130

app = typer.Typer(
    name="planner",
    help="Place the experts of a Mixture-of-Experts model on a GPU cluster so that "
    "the busiest link carries as little as possible.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(topology.app, name="topology", help="Validate, describe, expand.")
app.add_typer(trace.app, name="trace", help="Look into traces, make synthetic ones.")
app.command("solve")(solving.solve)
app.command("evaluate")(solving.evaluate)
app.command("verify")(plans.verify)
app.command("show")(plans.show)
app.command("explain")(why.explain)
app.command("diagnose")(why.diagnose)
app.command("replay")(plans.replay)
app.command("export")(plans.export)
app.command("bench")(bench.run_bench)
app.command("gate")(bench.gate)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to bind.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to bind.", min=0, max=65535)] = 8080,
) -> None:
    """Serve POST /plan, GET /healthz and GET /examples."""
    import uvicorn

    # The first start on a machine compiles; no request should wait for that. In a
    # process of its own, so that the server stays small.
    compile_kernels = "from planner.pipeline import compile_kernels; compile_kernels()"
    subprocess.run([sys.executable, "-c", compile_kernels], check=False)
    uvicorn.run("api.app:create_app", host=host, port=port, factory=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version.",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Options that need no verb."""


def main() -> None:
    """Run the command line; every error the planner knows becomes one message."""
    stderr = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        app()
    except VerificationError as error:
        stderr.print("[bold red]verification failed[/]")
        for finding in error.findings[:20]:
            stderr.print(f"  - {finding}", markup=False)
        if len(error.findings) > 20:
            stderr.print(f"  … and {len(error.findings) - 20} more")
        sys.exit(error.exit_code)
    except InfeasibleError as error:
        show_infeasible(error, stderr)
        sys.exit(error.exit_code)
    except PlannerError as error:
        # At once: ranks that share a terminal do not write into each other's message.
        stderr.print(Text.assemble(("error:", "bold red"), f" {error}"))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader of a pipe left early, as `planner show | head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
