"""Errors that a user can fix.

All errors caused by bad input are :class:`StdnetError`: one sentence that names the file, topic or value at fault and
says what to do. Command-line tools print it without a traceback (:mod:`stdnet_core.cli`)."""


class StdnetError(Exception):
    """Base of all errors caused by input, configuration or files rather than by a bug."""


class ConfigError(StdnetError):
    """A configuration value is unknown, out of range or contradicts another."""


class InputError(StdnetError):
    """An array or tensor has a wrong shape, type, size or content."""


class CheckpointError(StdnetError):
    """A checkpoint is missing, damaged, in a foreign format or not suited to its use."""


class OutputError(StdnetError):
    """A result cannot be written, for example because the disk is full or the folder is read-only."""


class DataError(StdnetError):
    """A dataset, sequence, recording or one of its files is missing, incomplete or damaged."""


class MissingDataError(DataError):
    """The file or folder of a data source does not exist."""
