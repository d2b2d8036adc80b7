"""Prints what an installed engine exposes. Runs in the engine's own environment, by the engine's own Python.

    ENGINE/bin/python listing.py

Standard output gets one JSON object: the version, every route of the application that the engine would serve with its
default switches, generating and embedding, and its OpenAPI description as far as it names routes and fields. No model
is loaded. Nothing of ours is imported: the engine's environment has nothing of ours.
"""

import json
import sys
from importlib import import_module
from types import SimpleNamespace
from typing import Any


def main() -> int:
    arguments = import_module("vllm.utils.argparse_utils").FlexibleArgumentParser()
    options = import_module("vllm.entrypoints.launchers.cli_args").make_arg_parser(arguments).parse_args([])
    build = import_module("vllm.entrypoints.launchers.app").build_app
    routes: set[tuple[str, str]] = set()
    described: dict[str, Any] = {"paths": {}, "components": {"schemas": {}}}
    for task in ("generate", "embed"):
        # all that is asked of a model's configuration before one is loaded
        model = SimpleNamespace(
            get_pooling_task=lambda _, task=task: task, is_cross_encoder=False, num_labels=0
        )
        app = build(options, (task,), model)
        routes |= {(method, route.path) for route in app.routes for method in _methods(route)}
        found = app.openapi()
        described["paths"] |= {path: _operations(item) for path, item in found["paths"].items()}
        described["components"]["schemas"] |= _named(found["components"]["schemas"])
    version = import_module("vllm.version").__version__
    listing = {"version": version, "routes": [f"{m} {p}" for m, p in sorted(routes)], "openapi": described}
    json.dump(listing, sys.stdout, indent=1)
    return 0


def _operations(item: Any) -> Any:
    return {
        method: {"requestBody": {"content": operation["requestBody"]["content"]}}
        if "requestBody" in operation
        else {}
        for method, operation in item.items()
    }


def _named(schemas: Any) -> Any:
    """The schemas of whole requests, with the names of their members and nothing else."""
    return {
        name: {"properties": {member: {} for member in schema["properties"]}}
        for name, schema in schemas.items()
        if name.endswith("Request") and "properties" in schema
    }


def _methods(route: Any) -> set[str]:
    if route.__class__.__name__ == "Mount":
        return {"MOUNT"}
    return set(getattr(route, "methods", None) or {"WEBSOCKET"})


if __name__ == "__main__":
    sys.exit(main())
