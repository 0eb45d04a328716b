"""The relay between a scheduler and its session, in one process and in copies for another."""

import pickle

import torch
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeStore

from pacesetter import Client, Notice, Window
from pacesetter._torch.ranks import Ranks
from pacesetter._torch.relay import SessionRelay
from pacesetter._window import Expected, decode
from pacesetter.distributed import Relay, _window_out, relay_for
from pacesetter.torch import RemoteLR


def _copy_of_a_rank(client: Client, name: str) -> SessionRelay:
    """Return the relay of a rank as a process without a group unpickles it."""
    session = client.create_session(name, base_lr=0.1)
    distributed.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    try:
        relay: SessionRelay = Relay(session, Ranks())
        assert (relay.leads, relay.follows, relay.look(0)) == (False, False, None)
        assert (relay.may_raise(edge=False), relay.may_raise(edge=True)) == (False, True)
        content = pickle.dumps(relay)
    finally:
        distributed.destroy_process_group()
    copied: SessionRelay = pickle.loads(content)
    return copied


def test_a_process_that_trains_alone_has_no_ranks(client: Client, unique_name: str):
    """`relay_for` returns none, and the scheduler uses the relay of one process."""
    session = client.create_session(unique_name, base_lr=0.1)
    assert relay_for(session) is None
    scheduler = RemoteLR(torch.optim.SGD([torch.zeros(1)], lr=0.1), session)
    assert type(scheduler._relay) is SessionRelay
    twin = pickle.loads(pickle.dumps(scheduler))
    assert twin._relay.session is twin._restarts._relay.session is twin.session
    twin.session.close()


def test_a_ranks_relay_alone_is_the_one_of_one_process(client: Client, unique_name: str):
    """A scheduler that is pickled among ranks goes on alone where there is no group."""
    copied = _copy_of_a_rank(client, unique_name)
    assert type(copied) is SessionRelay
    assert copied.look(3).columns["lr"][0] == 0.1
    copied.session.close()


def test_a_notice_reaches_the_other_ranks_whole(client: Client, unique_name: str):
    """What the first rank passes on includes the step to roll back to."""
    session = client.create_session(unique_name, base_lr=0.1)
    notice = Notice(unique_name, 3, "roll_back", "the loss has blown up", good_step=1)
    window = Window(2, {"lr": [0.1, 0.1]}, (notice,))
    content = _window_out(window, session, moved=False)
    came = decode(content, Expected(session.attempt, ("lr",), 2, 2, session=unique_name)).window
    assert came is not None
    assert came.notices == (notice,)
