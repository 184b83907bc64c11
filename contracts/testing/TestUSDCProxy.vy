# pragma version 0.4.3
# pragma evm-version cancun
"""
@title TestUSDCProxy
@license AGPL-3.0-only
@notice Puts a delegate call before `TestUSDC`, as Circle's proxy does: it looks up its admin, who may not use the
        token, and its implementation, so that gas figures carry the cost of both. For tests and local chains only.
"""

# the first slots, which `TestUSDC` keeps free
_implementation: address
_admin: address


@deploy
def __init__(implementation: address):
    self._implementation = implementation
    self._admin = self


@external
@raw_return
def __default__() -> Bytes[1024]:
    assert msg.sender != self._admin, "Cannot call fallback function from the proxy admin"
    return raw_call(self._implementation, msg.data, max_outsize=1024, is_delegate_call=True)
