# pragma version 0.4.3
# pragma evm-version cancun
"""
@title TestUSDCProxy
@license AGPL-3.0-only
@notice Puts a delegate call before `TestUSDC`, as Circle's proxy does, so that gas figures carry its cost.
        For tests and local chains only.
"""

# the first slot, which `TestUSDC` keeps free
_implementation: address


@deploy
def __init__(implementation: address):
    self._implementation = implementation


@external
@raw_return
def __default__() -> Bytes[1024]:
    return raw_call(self._implementation, msg.data, max_outsize=1024, is_delegate_call=True)
