"""The whole exception tree.

DiffcodecError
├── ImageError                 an image that cannot be read, or that the codec does not take
├── DatasetError               a training or test set that is missing, damaged or empty
├── TrainingError              a run that cannot be started, or cannot go on
│   └── InstabilityError       one step whose loss is no number, or a spike
├── BudgetError                no file of this image is as small as was asked for
├── CheckpointError            weights or configuration that cannot be read
│   └── ModelMismatchError     the file was made with another model
├── VerificationError          a file just encoded that does not decode to its image
└── BitstreamError             a compressed file that cannot be decoded
    ├── BadMagicError          not a diffcodec file
    ├── UnsupportedVersionError  made by a format version this release does not read
    ├── PixelLimitError        announces a larger image than the caller allows
    ├── ChecksumError          damaged
    ├── TruncatedStreamError   ends before the first thing that could be shown
    └── NumericMismatchError   the decoder's arithmetic departed from the encoder's
"""


class DiffcodecError(Exception):
    """Anything that went wrong for a reason the user can act on; the message is one line."""


class ImageError(DiffcodecError):
    """An image cannot be read, or is of a kind that the codec does not take."""


class DatasetError(DiffcodecError):
    """A training or test set is missing, damaged or empty."""


class TrainingError(DiffcodecError):
    """A training run cannot be started as it was asked for, or cannot go on."""


class InstabilityError(TrainingError):
    """A step's loss or gradient is not finite, or its loss is a spike; it was not taken."""


class BudgetError(DiffcodecError):
    """No file of an image is as small as was asked for."""


class CheckpointError(DiffcodecError):
    """Weights or their configuration cannot be read."""


class ModelMismatchError(CheckpointError):
    """A compressed file names another model than the one given."""


class VerificationError(DiffcodecError):
    """A file just encoded does not decode to its image; it was not written."""


class BitstreamError(DiffcodecError):
    """A compressed file cannot be decoded."""


class BadMagicError(BitstreamError):
    """The bytes do not begin like a diffcodec file."""


class UnsupportedVersionError(BitstreamError):
    """The file's format version is not one that this release reads."""


class PixelLimitError(BitstreamError):
    """The header announces more pixels than the caller allows; the file may be whole."""


class ChecksumError(BitstreamError):
    """A segment's check does not agree with its bytes: the file is damaged."""


class TruncatedStreamError(BitstreamError):
    """The file ends before the first thing that could be shown."""


class NumericMismatchError(BitstreamError):
    """The bytes are whole, but this machine's arithmetic departed from the encoder's.

    From a file the message reads ``numeric mismatch at segment k`` (docs/format.md, Segments).
    """
