"""Where data lie: names that mean the same from every folder, and outputs that are there whole or not at all."""

from typing import TYPE_CHECKING

from rtsx.names import lazy

if TYPE_CHECKING:
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
        cloud_of,
        file_name,
        file_options,
        file_system,
        is_url,
        leads_to_server,
        local_path,
        options_beside,
        plain_folder,
        without_query,
    )

__getattr__ = lazy(__name__)
