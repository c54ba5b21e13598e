"""The errors users see.

Every error derives from :class:`MmsurvError`; most also derive from the builtin a caller would expect. A message
names what was expected, what was found and what to do next. The command line prints the message without a
traceback and leaves with ``exit_code``: 1 when the work failed, 2 when the request itself was wrong.

    MmsurvError                        exit 1
    ├── ConfigError (ValueError)       exit 2   a recipe, option or name that cannot be right
    ├── CohortError (ValueError)                a clinical or RNA table that cannot be believed
    ├── SplitError (ValueError)                 a split that leaks or cannot be made
    ├── StoreError
    │   ├── BadSlideIdError (ValueError)        an id that could leave its folder or break a file name
    │   ├── RecordNotFoundError (LookupError)
    │   ├── CorruptRecordError (ValueError)     a record whose bytes are not those that were written
    │   ├── RecipeMismatchError (ValueError)    a store or record of another recipe
    │   └── ImportLayoutError (ValueError)      a foreign feature file that is not what it claims
    ├── SlideError
    │   ├── NotASlideError (ValueError)         no reader recognises the file
    │   ├── UnreadableSlideError (OSError)      opens, then cannot be read
    │   ├── MppError (ValueError)               no resolution, or an absurd one
    │   └── NoTissueError (ValueError)
    ├── EncoderError (ValueError)               a device the machine lacks, tiles or features that cannot be
    │   └── WeightsError                        weights that do not fit, or are not weights
    ├── NoEventsError (ValueError)              a partial likelihood without a death
    ├── RunError (ValueError)                   a run folder that is not one, or was changed
    └── JobFailedError                          a batch job that finished, with failures in it
"""

from __future__ import annotations


class MmsurvError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class ConfigError(MmsurvError, ValueError):
    exit_code = 2


class CohortError(MmsurvError, ValueError):
    pass


class SplitError(MmsurvError, ValueError):
    pass


class StoreError(MmsurvError):
    pass


class BadSlideIdError(StoreError, ValueError):
    pass


class RecordNotFoundError(StoreError, LookupError):
    pass


class CorruptRecordError(StoreError, ValueError):
    pass


class RecipeMismatchError(StoreError, ValueError):
    pass


class ImportLayoutError(StoreError, ValueError):
    pass


class SlideError(MmsurvError):
    pass


class NotASlideError(SlideError, ValueError):
    pass


class UnreadableSlideError(SlideError, OSError):
    pass


class MppError(SlideError, ValueError):
    pass


class NoTissueError(SlideError, ValueError):
    pass


class EncoderError(MmsurvError, ValueError):
    pass


class WeightsError(EncoderError):
    pass


class NoEventsError(MmsurvError, ValueError):
    pass


class RunError(MmsurvError, ValueError):
    pass


class JobFailedError(MmsurvError):
    pass
