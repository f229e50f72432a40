"""Keeps hot clients from starving the rest: token buckets per API key and per address, both bounded in memory."""

import ipaddress
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

from plangate.errors import Code, Refusal

_BUCKETS_HELD: Final = 50_000
_FORWARDED_HOPS: Final = 20


class RateLimit:
    """A token bucket for each name: `per_second` requests, and as many at once after a quiet second."""

    __slots__ = ("_buckets", "per_second")

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self._buckets: OrderedDict[str, list[float]] = OrderedDict()

    def spend(self, name: str, now: float) -> None:
        """Take one token at `now` (seconds of a monotonic clock). Raises Refusal (429) when none is left."""
        bucket = self._buckets.get(name)
        if bucket is None:
            if len(self._buckets) >= _BUCKETS_HELD:
                self._buckets.popitem(last=False)
            self._buckets[name] = [self.per_second - 1.0, now]
            return
        tokens = bucket[0] + (now - bucket[1]) * self.per_second
        if tokens > self.per_second:
            tokens = self.per_second
        bucket[1] = now
        if tokens < 1.0:
            bucket[0] = tokens
            raise Refusal(
                Code.RATE_LIMITED,
                f"More than {self.per_second} requests a second. Wait a second and try again.",
                headers={"Retry-After": "1"},
            )
        bucket[0] = tokens - 1.0


class ProxyList:
    """The proxies we believe about whom they speak for: addresses and networks such as `10.0.0.0/8`."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(text, strict=False) for text in texts]

    def __bool__(self) -> bool:
        return bool(self._networks)

    def client(self, peer: str, forwarded: Sequence[str]) -> str:
        """The address of the client: `peer`, or what the nearest proxy we trust says in `X-Forwarded-For`.

        Read from the right, because everything left of the first untrusted address may be made up.
        """
        address = peer
        hops = [hop.strip() for line in forwarded for hop in line.split(",")]
        for hop in reversed(hops[-_FORWARDED_HOPS:]):
            if not self._trusts(address):
                break
            try:
                address = str(ipaddress.ip_address(hop))
            except ValueError:
                break
        return address

    def _trusts(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed.version == network.version and parsed in network for network in self._networks)
