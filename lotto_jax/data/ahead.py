"""Results computed ahead of their use, in order, and never more of them than fit in memory."""

import collections
import itertools
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(executor: Executor, function: Callable[[T], R], items: Iterable[T], depth: int) -> Generator[R, None, None]:
    """`map(function, items)`, computed by `executor` at most `depth` results ahead; exceptions come in order too."""
    left = iter(items)
    pending: collections.deque[Future[R]] = collections.deque()
    try:
        pending.extend(executor.submit(function, item) for item in itertools.islice(left, depth))
        while pending:
            result = pending.popleft().result()
            pending.extend(executor.submit(function, item) for item in itertools.islice(left, 1))
            yield result
    finally:
        for future in pending:
            future.cancel()
