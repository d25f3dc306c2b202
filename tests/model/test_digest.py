from functools import partial

import numpy as np
import torch

from rtsx.model.digest import digest_of_tensors, fingerprint


def scaled(by):
    return lambda x: x * by


def recursive():
    def countdown(n):
        return countdown(n - 1) if n else 0

    return countdown


def test_tensors_digest_ignores_order_and_layout_but_no_value():
    a = torch.arange(12.0).reshape(3, 4)
    straight = digest_of_tensors({"a": a, "b": torch.ones(2)}, header="net")
    turned = digest_of_tensors({"b": torch.ones(2), "a": a.t().contiguous().t()}, header="net")
    assert straight == turned
    other = a.clone()
    other[2, 3] += 1e-5
    assert digest_of_tensors({"a": other, "b": torch.ones(2)}, header="net") != straight
    assert digest_of_tensors({"a": a, "b": torch.ones(2)}, header="nets") != straight
    assert digest_of_tensors({"a": a.reshape(4, 3), "b": torch.ones(2)}, header="net") != straight


def test_tensors_digest_takes_scalars_and_counters():
    one = digest_of_tensors({"n": torch.tensor(1)}, header="")
    assert one != digest_of_tensors({"n": torch.tensor(2)}, header="")
    assert one != digest_of_tensors({"n": torch.tensor(1.0)}, header="")


def test_functions_differ_by_what_they_close_over():
    assert fingerprint(scaled(2)) == fingerprint(scaled(2))
    assert fingerprint(scaled(2)) != fingerprint(scaled(3))
    assert fingerprint(partial(max, 1)) != fingerprint(partial(max, 2))
    assert fingerprint(scaled(np.zeros(3))) != fingerprint(scaled(np.ones(3)))
    assert fingerprint(scaled(torch.zeros(3))) != fingerprint(scaled(torch.ones(3)))


def test_functions_differ_by_code_and_defaults():
    assert fingerprint(lambda x: x + 1) != fingerprint(lambda x: x - 1)
    assert fingerprint(lambda x, y=1: x + y) != fingerprint(lambda x, y=2: x + y)


def test_a_function_that_closes_over_itself_ends():
    assert fingerprint(recursive()) == fingerprint(recursive())


def test_no_address_of_memory_is_in_a_fingerprint():
    class Thing:
        def __init__(self, size):
            self.size = size

    assert fingerprint(Thing(1)) == fingerprint(Thing(1))
    assert fingerprint(Thing(1)) != fingerprint(Thing(2))
    assert fingerprint({3, 1, 2}) == fingerprint({1, 2, 3})
