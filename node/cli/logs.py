"""What a node says on standard error: lines for people, or an object of JSON a line for programs.

A record's fields are the names in its text: `log.info("lost %(peer)s: %(reason)s", {"peer": ..., "reason": ...})`.
"""

import argparse
import json
import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from ctt_state.errors import InvalidGenesis
from node.exits import Exit, Failure

LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("console", "json")
FAULTS_SHOWN_MAX: Final = 100

log = logging.getLogger(__name__)


def add_log_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log-level", choices=LEVELS, default="info", help="default: info")
    parser.add_argument(
        "--log-format",
        choices=FORMATS,
        default="console",
        help="lines for people, or a JSON object a line (default: %(default)s)",
    )


class JsonFormatter(logging.Formatter):
    """One object: time, level, logger and message, then the record's own fields, and `trace` of a fault."""

    def format(self, record: logging.LogRecord) -> str:
        fields = record.args if isinstance(record.args, Mapping) else {}
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{str(name): value for name, value in fields.items()},
        }
        if record.exc_info:
            said["trace"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def start_logging(options: argparse.Namespace) -> None:
    """To standard error."""
    handler = logging.StreamHandler(sys.stderr)
    is_json = options.log_format == "json"
    handler.setFormatter(
        JsonFormatter() if is_json else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    logging.basicConfig(level=options.log_level.upper(), handlers=[handler])


def error_document(code: int, message: str, **more: Any) -> str:
    """With --json: why there is no other document."""
    return json.dumps({"error": {"code": int(code), "message": message, **more}})


def say_failure(options: argparse.Namespace, failure: Failure) -> None:
    """Why the command ends, as the rest of what it says is."""
    if getattr(options, "json", False):
        print(error_document(failure.exit_code, str(failure)), file=sys.stderr, flush=True)
    elif getattr(options, "log_format", "console") == "json":
        log.critical("%(reason)s", {"reason": str(failure), "code": int(failure.exit_code)})
    else:
        print(f"ctt: {failure}", file=sys.stderr, flush=True)


def say_refused(options: argparse.Namespace, invalid: InvalidGenesis) -> None:
    """The same of a genesis document, by its first faults."""
    text, shown = "the genesis document is refused", invalid.faults[:FAULTS_SHOWN_MAX]
    over = len(invalid.faults) - len(shown)
    if getattr(options, "json", False):
        faults = [{"path": path, "text": text} for path, text in shown]
        lines = [error_document(Exit.CONFIGURATION, text, faults=faults, more=over)]
    else:
        lines = [f"ctt: {text}:", *[f"  {path}: {text}" for path, text in shown]]
        lines += [f"  and {over} more"] if over else []
    print(*lines, sep="\n", file=sys.stderr)


def say_bug(options: argparse.Namespace, bug: Exception) -> None:
    """The same of a mistake of ours, with where it happened."""
    if getattr(options, "json", False):
        trace = "".join(traceback.format_exception(bug))
        print(error_document(Exit.BROKEN, f"internal error: {bug!r}", trace=trace), file=sys.stderr)
    elif getattr(options, "log_format", "console") == "json":
        log.critical("internal error: %(bug)s; please report it", {"bug": repr(bug)}, exc_info=bug)
    else:
        traceback.print_exception(bug)
        print(f"ctt: internal error: {bug!r}; please report it with the lines above", file=sys.stderr)
