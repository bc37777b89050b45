"""Vendors' exceptions become Python's own and ours, and what may pass is tried again.

The one place that knows how an object store says no, not now, or not here.
"""

import errno
import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from pipeline.errors import (
    BucketMissing,
    ConfigurationError,
    DiskFull,
    EnvironmentTrouble,
    PipelineError,
    StoreDenied,
    StoreThrottled,
    StoreUnreachable,
)
from pipeline.storage.traffic import count_retry

_log = logging.getLogger("dladiff.storage")

T = TypeVar("T")

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 60.0
"""Silence after which a connection to a bucket is given up and ``retrying`` tries again."""
RETRY_DELAYS_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""Waits between tries, each drawn between half and all of it: 8 to 16 s together."""
PATIENT_DELAYS_S = (*RETRY_DELAYS_S, 15.0, *[30.0] * 20)
"""The same for a store that has answered before: it is away, not misnamed. 5 to 10 minutes."""
_SAY_EVERY_S = 60.0

_THROTTLED = {
    "SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded",
    "TooManyRequests", "TooManyRequestsException", "OperationAborted",
    "ConditionalRequestConflict", "ServerBusy", "SlowDownRead", "SlowDownWrite",
    "BandwidthLimitExceeded", "KMS.ThrottlingException", "429", "503",
}  # fmt: skip
_DENIED = {
    "AccessDenied", "AllAccessDisabled", "AccountProblem", "ExpiredToken", "InvalidAccessKeyId",
    "InvalidToken", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "Unauthorized", "Forbidden",
    "ExpiredTokenException", "RequestExpired", "UnrecognizedClientException",
    "AuthorizationHeaderMalformed", "TokenRefreshRequired", "401", "403",
    "400",  # all that an answer without a body tells of an expired token
}  # fmt: skip
_DENIED_TYPES = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
    "TokenRetrievalError", "SSOError", "ClientAuthenticationError", "GoogleAuthError",
}  # fmt: skip
_UNREACHABLE_TYPES = {
    "HTTPClientError", "IncompleteReadError", "ResponseStreamingError", "ResponseParserError",
    "ConnectionError", "ClientError", "ClientConnectionError", "ServiceRequestError",
    "ServiceResponseError", "FSTimeoutError",
}  # fmt: skip
_NO_BUCKETS = {"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted"}
_FULL = {"XMinioStorageFull", "InsufficientStorage", "QuotaExceeded", "507"}
_MISSING = {"NoSuchKey", "NoSuchVersion", "NotFound", "BlobNotFound", "404"}
_MISNAMED = {"InvalidBucketName", "PermanentRedirect", "301"}
_TAKEN = {"PreconditionFailed", "ConditionNotMet", "BlobAlreadyExists", "412"}

_ERRNO_KINDS: dict[int, type[EnvironmentTrouble]] = {
    errno.ENOSPC: DiskFull,
    errno.EDQUOT: DiskFull,
    errno.EACCES: StoreDenied,
    errno.EPERM: StoreDenied,
    errno.EROFS: StoreDenied,
    errno.EIO: StoreUnreachable,
    errno.ESTALE: StoreUnreachable,
    errno.ETIMEDOUT: StoreUnreachable,
    errno.EHOSTDOWN: StoreUnreachable,
    errno.EHOSTUNREACH: StoreUnreachable,
    errno.ENOTCONN: StoreUnreachable,
    errno.EREMOTEIO: StoreUnreachable,
    errno.EBUSY: StoreThrottled,
    errno.EMFILE: StoreThrottled,
    errno.ENFILE: StoreThrottled,
}


class NotSupported(OSError):  # noqa: N818 - a fact about the store
    """The store lacks an operation, as a file system without hard links does."""


class ObjectTooLarge(ValueError):  # noqa: N818 - a fact about the object
    """An object is larger than the reader allows; nothing of it was kept."""

    def __init__(self, size: int, max_bytes: int) -> None:
        super().__init__(f"expected at most {max_bytes} bytes, the object has {size}")
        self.size, self.max_bytes = size, max_bytes

    def __reduce__(self) -> tuple[type["ObjectTooLarge"], tuple[int, int]]:
        return type(self), (self.size, self.max_bytes)


def classify(error: BaseException, action: str) -> BaseException:
    """What to raise instead of a store's exception.

    Args:
        error: As the store's library raised it.
        action: What was tried and where, for the message; names no photo.

    Returns:
        FileNotFoundError, FileExistsError, one of ``errors.EnvironmentTrouble``, or ``error``
        itself where it is none of the store's business.
    """
    if isinstance(error, PipelineError | ObjectTooLarge | NotSupported):
        return error
    code = _code(error)
    text = f"{action}: {_safe_text(error, code)}"
    if code in _NO_BUCKETS:
        return BucketMissing(f"{action}: the bucket does not exist: make it, or correct its name")
    if isinstance(error, FileNotFoundError | FileExistsError):
        return error
    if code in _MISSING:
        return FileNotFoundError(errno.ENOENT, text)
    if code in _TAKEN:
        return FileExistsError(errno.EEXIST, text)
    if code in ("NotImplemented", "501"):
        return NotSupported(errno.ENOSYS, text)
    if code in _FULL:
        return DiskFull(text)
    if code in _THROTTLED:
        return StoreThrottled(text)
    types = {base.__name__ for base in type(error).__mro__}
    # A key of the bucket's encryption that is disabled or gone is answered with a plain 400.
    if code in _DENIED or types & _DENIED_TYPES or code.startswith("KMS."):
        return StoreDenied(text)
    if code.startswith("5") or code in ("InternalError", "RequestTimeout", "IncompleteBody"):
        return StoreUnreachable(text)
    if (kind := _kind_of_status(_status(error))) is not None:
        return kind(text)
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return FileNotFoundError(errno.ENOENT, text)
    if isinstance(error, PermissionError):
        return StoreDenied(text)
    if isinstance(error, ConnectionError | TimeoutError):
        return StoreUnreachable(text)
    if isinstance(error, OSError) and error.errno in _ERRNO_KINDS and not code:
        return _ERRNO_KINDS[error.errno](text)
    if not code and types & _UNREACHABLE_TYPES:
        return StoreUnreachable(text)
    if "ParamValidationError" in types or code in _MISNAMED:
        return ConfigurationError(text)
    return error


def retrying(action: str, call: Callable[[], T], delays_s: Sequence[float] = RETRY_DELAYS_S) -> T:
    """Calls, and calls again after a wait while the store throttles or does not answer.

    Args:
        action: For messages; names no photo.
        call: Must be safe to repeat.
        delays_s: Waits between tries in seconds.

    Raises:
        FileNotFoundError, FileExistsError, EnvironmentTrouble: See ``classify``.
    """
    waits: Iterator[float] = iter(delays_s)
    while True:
        try:
            return call()
        except Exception as error:
            trouble = classify(error, action)
            wait_s = next(waits, None) if _may_pass(trouble) else None
            if wait_s is None:
                if trouble is error:
                    raise
                raise trouble from error
            if isinstance(trouble, EnvironmentTrouble):
                count_retry(trouble.cause)
            _say_that_it_waits(trouble, wait_s)
            time.sleep(wait_s * random.uniform(0.5, 1))


_said_at = -_SAY_EVERY_S


def _say_that_it_waits(trouble: BaseException, wait_s: float) -> None:
    """Aloud where a person would notice it, and once a minute however many threads wait."""
    global _said_at
    now = time.monotonic()
    if wait_s > RETRY_DELAYS_S[-1] and now - _said_at >= _SAY_EVERY_S:
        _said_at = now
        _log.warning("%s; waiting, up to ten minutes in all", trouble)
    else:
        _log.debug("%s; once more within %.1f s", trouble, wait_s)


def _safe_text(error: BaseException, code: str) -> str:
    """What happened, without the object's name, which libraries put into most of their texts.

    All of it stands in the exception's cause.
    """
    text = code or type(error).__name__
    if isinstance(error, OSError) and error.errno and not code:
        return f"{text} ({os.strerror(error.errno)})"
    arguments = getattr(error, "kwargs", None)
    if isinstance(arguments, dict) and arguments.get("endpoint_url"):
        return f"{text} at {'/'.join(str(arguments['endpoint_url']).split('/')[:3])}"
    return text


def _may_pass(trouble: BaseException) -> bool:
    if isinstance(trouble, StoreUnreachable):
        return not isinstance(trouble, BucketMissing)
    return isinstance(trouble, StoreThrottled)


def _kind_of_status(status: int) -> type[EnvironmentTrouble] | None:
    """What the HTTP status tells where the store's word for the error is unknown here."""
    if status in (429, 503):
        return StoreThrottled
    if status in (401, 403):
        return StoreDenied
    return StoreUnreachable if status >= 500 else None


def _status(error: BaseException) -> int:
    """HTTP status of the store's answer; 0: there is none."""
    for candidate in (error, error.__cause__):
        response: Any = getattr(candidate, "response", None)
        if isinstance(response, dict):
            return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if isinstance(status := getattr(candidate, "status_code", None), int):
            return status
    return 0


def _code(error: BaseException) -> str:
    """The store's own word for the error, or its HTTP status, or ''.

    s3fs raises Python's exceptions and keeps botocore's as their cause.
    """
    for candidate in (error, error.__cause__):
        if any(base.__name__ == "HttpProcessingError" for base in type(candidate).__mro__):
            continue  # aiohttp's parser on an answer that broke off; its 400 is no server's word
        response: Any = getattr(candidate, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return str(response["Error"].get("Code") or "")
        for name in ("error_code", "status_code", "status", "code"):
            value = getattr(candidate, name, None)
            value = getattr(value, "value", value)  # Azure's words are an enumeration
            if isinstance(value, int | str) and str(value):
                return str(value)
    return ""
