from concurrent.futures import ThreadPoolExecutor

from rtsx.model.network import OpenedNetworks, StubNetwork


def stub():
    return StubNetwork(lambda batch: batch)


def test_the_network_unused_for_longest_is_dropped():
    networks = OpenedNetworks(limit=2)
    first, second = networks.get("a", stub), networks.get("b", stub)
    assert networks.get("a", stub) is first
    networks.get("c", stub)
    assert networks.get("a", stub) is first
    assert networks.get("b", stub) is not second


def test_many_threads_open_a_network_once():
    networks, opened = OpenedNetworks(limit=2), []

    def open_one():
        opened.append(stub())
        return opened[-1]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: networks.get("a", open_one), range(32)))
    assert len(opened) == 1
    assert all(network is opened[0] for network in found)


def test_clearing_drops_everything():
    networks = OpenedNetworks(limit=2)
    first = networks.get("a", stub)
    networks.clear()
    assert networks.get("a", stub) is not first
