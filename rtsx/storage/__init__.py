"""Where data lie: names that mean the same from every folder, and outputs that are there whole or not at all."""

from rtsx.storage.atomic import (
    MEDIUM_ERRORS,
    OUTPUT_SUFFIXES,
    refuse_other_format,
    remove,
    remove_abandoned,
    replace_settled,
    settle,
    stage,
    staged,
    write_object,
    write_whole,
)
from rtsx.storage.diagnosis import file_problem, file_start, start_problem
from rtsx.storage.paths import (
    REMOTE_SCHEMES,
    absolute,
    file_name,
    file_options,
    file_system,
    is_url,
    leads_to_server,
    local_path,
    without_query,
)

__all__ = [
    "MEDIUM_ERRORS",
    "OUTPUT_SUFFIXES",
    "REMOTE_SCHEMES",
    "absolute",
    "file_name",
    "file_options",
    "file_problem",
    "file_start",
    "file_system",
    "is_url",
    "leads_to_server",
    "local_path",
    "refuse_other_format",
    "remove",
    "remove_abandoned",
    "replace_settled",
    "settle",
    "stage",
    "staged",
    "start_problem",
    "without_query",
    "write_object",
    "write_whole",
]
