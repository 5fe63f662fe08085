"""Where public data sets are kept, and how they get there."""

import os
from pathlib import Path

from longflow.errors import UsageError


def home(folder: str) -> Path:
    """Return the place of a data set's folder: in $LONGFLOW_DATA if that is set, else in the user's cache."""
    import pooch

    root = os.environ.get("LONGFLOW_DATA")
    return (Path(root).expanduser() if root else Path(pooch.os_cache("longflow"))) / folder


def fetch(name: str, wanted: str, url: str, md5: str, folder: Path) -> Path:
    """Download one file into a folder, under its own name, with a progress bar on stderr.

    Args:
        name: name of the data set, for the message.
        wanted: name of the file that was looked for in the folder in vain, for the message.
        url: where the file is.
        md5: hash of the genuine file.
        folder: where to put it.

    Raises:
        UsageError: it could not be downloaded, or is not the genuine file, and no part of it is left behind.
    """
    import pooch

    pooch.get_logger().setLevel("ERROR")
    try:
        return Path(pooch.retrieve(url, f"md5:{md5}", url.rpartition("/")[2], folder, progressbar=True))
    except (OSError, ValueError) as error:
        reason = type(error).__name__ if isinstance(error, OSError) else "the md5 is wrong"
        raise UsageError(
            f"{name}: {wanted} is not in {folder}, and the download of {url} failed ({reason}); "
            f"set LONGFLOW_DATA to a folder that has {folder.name}/{wanted}"
        ) from error
